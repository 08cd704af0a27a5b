"""`shardctl ring`: who owns how much of the slots, who shall, and why.

Asks the same ring as the controller does, with the slots as they are owned now, so what it says
will move is what the controller would move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from shardcluster.ring import plan_ownership

from shardcluster.slots import SLOT_COUNT, SlotSet
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
@output_option
@client_options
def ring(client: Client, output: str) -> None:
    """Show who owns how much of the ring and why."""
    state = client.status()
    owned = {
        shard["name"]: SlotSet.parse(shard["slot_ranges"]) for shard in state.get("shards") or []
    }
    if not owned:
        message = "The store has no shards yet: `shardctl status` says what it is doing."
        raise CliError(message)
    rows = ring_rows(parse(state["spec"]), owned)
    show(output, rows, lambda: tables.ring_table(rows))


def ring_rows(spec: Spec, owned: Mapping[str, SlotSet]) -> list[Document]:
    """One row a shard: its weight, points, slots, fair share, and a few words why."""
    weights = {name: spec.weight(name) for name in spec.wanted_shards()}
    wanted = plan_ownership(
        weights,
        {name: slots for name, slots in owned.items() if slots},
        virtual_nodes=spec.ring.virtual_nodes,
        load_bound=spec.ring.load_bound,
    )
    whole = sum(weights.values())
    rows = []
    for name in [*owned, *(name for name in weights if name not in owned)]:
        slots = owned.get(name, SlotSet())
        fair = SLOT_COUNT * weights.get(name, 0.0) / whole
        rows.append(
            {
                "shard": name,
                "weight": weights.get(name, 0.0),
                "points": round(weights.get(name, 0.0) * spec.ring.virtual_nodes),
                "slots": len(slots),
                "wanted_slots": len(wanted.get(name, SlotSet())),
                "fair_slots": round(fair, 1),
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
