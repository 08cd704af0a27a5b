"""`shardctl bench`: a steady load of writes and reads for some seconds, and how it was answered.

Closed loop: each of N callers sends its next request when the last one was answered, so the
numbers are what N patient callers see, not what an open flood would.  The keys it writes carry
their own prefix and are removed at the end.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from shardcluster_runtime.cli import tables
from shardcluster_runtime.cli.client import Client, CliError
from shardcluster_runtime.cli.common import client_options, output_option, show
from shardcluster_runtime.cli.load import HttpLane, NodeRoutes, RequestFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shardcluster_runtime.cli.load import Lane

__all__ = ["bench"]

KEY_PREFIX = "shardctl-bench:"
PAUSE_AFTER_ERROR_S = 0.01  # so that a store that is down is not asked in a spin
REASONS_SHOWN_MAX = 3
ERRORS_MAX = 10  # of one lane, before and after the measurement

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Load:
    """What is asked for."""

    seconds: float
    connections: int
    value_bytes: int
    keys: int
    read_percent: int


@dataclass(slots=True)
class _Tally:
    """What came back for one operation."""

    latencies_s: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def document(self, operation: str, seconds: float) -> Document:
        """As `bench` prints it."""
        ordered = sorted(self.latencies_s)
        return {
            "operation": operation,
            "requests": len(ordered),
            "per_second": round(len(ordered) / seconds, 1),
            "p50_ms": _percentile_ms(ordered, 0.50),
            "p99_ms": _percentile_ms(ordered, 0.99),
            "worst_ms": _percentile_ms(ordered, 1.0),
            "errors": self.reasons.total(),
            "reasons": dict(self.reasons.most_common(REASONS_SHOWN_MAX)),
        }


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True)
@click.option("--connections", type=click.IntRange(1, 1024), default=32, show_default=True)
@click.option("--value-bytes", type=click.IntRange(0, 1 << 20), default=100, show_default=True)
@click.option("--keys", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True)
@click.option(
    "--reads", type=click.IntRange(0, 100), default=50, show_default=True, help="Reads, per cent."
)
@click.option(
    "--through",
    type=click.Choice(["http", "nodes"]),
    default="http",
    show_default=True,
    help="Ask the HTTP API, or the nodes directly as a cluster client does.",
)
@output_option
@client_options
def bench(client: Client, output: str, through: str, reads: int, **sizes: Any) -> None:
    """Write and read for some seconds; show requests a second and latencies."""
    load = _Load(read_percent=reads, **sizes)
    client.status()  # a clear sentence when nothing runs there
    if through == "http" and client.gateway_url is None:
        message = "No HTTP API is known here, only a controller: use --through nodes."
        raise CliError(message)
    result = asyncio.run(_run(client, load, through))
    show(output, result, lambda: tables.bench_table(result))


async def _run(client: Client, load: _Load, through: str) -> Document:
    lanes: list[Lane]
    if through == "nodes":
        routes = NodeRoutes(client.status)
        await routes.refresh()
        lanes = [routes] * load.connections
    else:
        lanes = [HttpLane(client.url) for _ in range(load.connections)]
    value = b"x" * load.value_bytes
    tallies = {"SET": _Tally(), "GET": _Tally()}
    try:
        await _check_writable(lanes[0], value)
        await _for_all_keys(lanes, load.keys, lambda lane, key: lane.set(key, value))
        began_s = time.perf_counter()
        deadline_s = began_s + load.seconds
        await asyncio.gather(*(_caller(lane, load, tallies, deadline_s) for lane in lanes))
        took_s = time.perf_counter() - began_s
        await _for_all_keys(lanes, load.keys, lambda lane, key: lane.delete(key))
    finally:
        for lane in lanes:
            await lane.close()
    shown = [tally.document(name, took_s) for name, tally in tallies.items()]
    return {
        "through": through,
        "seconds": round(took_s, 3),
        "connections": load.connections,
        "value_bytes": load.value_bytes,
        "operations": [row for row in shown if row["requests"] or row["errors"]],
    }


async def _check_writable(lane: Lane, value: bytes) -> None:
    """Raise CliError when the store takes no writes now: numbers would say nothing then."""
    try:
        await lane.set(f"{KEY_PREFIX}0", value)
    except RequestFailed as error:
        message = f"The store takes no writes now ({error}): `shardctl status` says why."
        raise CliError(message) from error


async def _for_all_keys(
    lanes: Sequence[Lane], keys: int, act: Callable[[Lane, str], Awaitable[None]]
) -> None:
    """Do something once with every key, shared out over the lanes; a lane that fails gives up."""

    async def some(lane: Lane, numbers: range) -> None:
        errors = 0
        for number in numbers:
            try:
                await act(lane, f"{KEY_PREFIX}{number}")
            except RequestFailed:
                errors += 1
                if errors == ERRORS_MAX:
                    return
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)

    await asyncio.gather(
        *(some(lane, range(index, keys, len(lanes))) for index, lane in enumerate(lanes))
    )


async def _caller(lane: Lane, load: _Load, tallies: dict[str, _Tally], deadline_s: float) -> None:
    value = b"x" * load.value_bytes
    dice = random.Random()  # noqa: S311 - which key is next is no secret
    while (sent_s := time.perf_counter()) < deadline_s:
        key = f"{KEY_PREFIX}{dice.randrange(load.keys)}"
        reads = dice.randrange(100) < load.read_percent
        tally = tallies["GET" if reads else "SET"]
        try:
            await (lane.get(key) if reads else lane.set(key, value))
        except RequestFailed as error:
            tally.reasons[str(error)] += 1
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        else:
            tally.latencies_s.append(time.perf_counter() - sent_s)


def _percentile_ms(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3, 3)
