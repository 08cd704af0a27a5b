"""`shardctl ring`: who owns how much of the slots, who shall, and why.

Asks the same ring as the controller does, with the slots as they are owned now, so what it says
will move is what the controller would move.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardcluster.ring import explain, plan_ownership
from shardcluster.ring_svg import ring_svg
from shardcluster.slots import SlotSet
from shardcluster.spec import parse
from shardcluster_runtime.cli import tables
from shardcluster_runtime.cli.client import CliError
from shardcluster_runtime.cli.common import client_options, output_option, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster.spec import Spec
    from shardcluster_runtime.cli.client import Client

__all__ = ["ring", "ring_rows"]

Document = dict[str, Any]


@click.command()
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw the ring into this file, too.",
)
@output_option
@client_options
def ring(client: Client, output: str, svg: Path | None) -> None:
    """Show who owns how much of the ring and why."""
    state = client.status()
    owned = {
        shard["name"]: SlotSet.parse(shard["slot_ranges"]) for shard in state.get("shards") or []
    }
    if not owned:
        message = "The store has no shards yet: `shardctl status` says what it is doing."
        raise CliError(message)
    if svg is not None:
        _draw(svg, owned, state["cluster"])
    rows = ring_rows(parse(state["spec"]), owned)
    show(output, rows, lambda: tables.ring_table(rows))


def _draw(file: Path, owned: Mapping[str, SlotSet], title: str) -> None:
    try:
        file.write_text(ring_svg(owned, title=title), encoding="utf-8")
    except OSError as error:
        message = f"The picture {file} can't be written: {error.strerror}."
        raise CliError(message) from error


def ring_rows(spec: Spec, owned: Mapping[str, SlotSet]) -> list[Document]:
    """One row a shard: its weight, points, slots, fair share, and a few words why."""
    weights = {name: spec.weight(name) for name in spec.wanted_shards()}
    wanted = plan_ownership(
        weights,
        {name: slots for name, slots in owned.items() if slots},
        virtual_nodes=spec.ring.virtual_nodes,
        load_bound=spec.ring.load_bound,
    )
    shares = {
        share.name: share
        for share in explain(
            weights, owned, virtual_nodes=spec.ring.virtual_nodes, load_bound=spec.ring.load_bound
        )
    }
    rows = []
    for name in [*owned, *(name for name in weights if name not in owned)]:
        share = shares.get(name)
        rows.append(
            {
                "shard": name,
                "weight": share.weight if share else 0.0,
                "points": share.virtual_nodes if share else 0,
                "arc_slots": share.arcs if share else 0,
                "slots": len(owned.get(name, SlotSet())),
                "wanted_slots": len(wanted.get(name, SlotSet())),
                "fair_slots": round(share.fair, 1) if share else 0.0,
                "why": _why(name, owned, wanted, spec.ring.load_bound),
            }
        )
    return rows


def _why(
    name: str, owned: Mapping[str, SlotSet], wanted: Mapping[str, SlotSet], load_bound: float
) -> str:
    slots, target = owned.get(name, SlotSet()), wanted.get(name, SlotSet())
    gives, takes = len(slots - target), len(target - slots)
    words = [f"gives {gives:,}"] if gives else []
    words += [f"takes {takes:,}"] if takes else []
    if name not in wanted:
        return ", ".join(["leaves the ring", *words])
    return ", ".join(words) or f"in its band of ±{load_bound:.0%} or one slot"
