"""How long a shard took to be written again after a fault, read from the history.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.chaos.history import Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.writers import Written

__all__ = ["Awaited", "recoveries"]


@dataclass(frozen=True, slots=True)
class Awaited:
    """A fault after which the first acknowledged write of one of these keys is looked for."""

    kind: str
    since_ms: int
    keys: frozenset[str]
    through_gateway: bool = False
    within_ms: int = 0  # what ends slowly does so sometime in this time


def recoveries(awaited: Iterable[Awaited], written: Written) -> list[tuple[str, int]]:
    """(kind, ms) of those that came; a write counts that was begun after the fault.

    Of what ends slowly it is the longest time without a write that begins within its time.
    """
    writes = [
        operation
        for operation in written.operations
        if operation.outcome is Outcome.OK and operation.kind is not Kind.READ
    ]
    found = []
    for fault in awaited:
        ended_ms = sorted(
            write.ended_ms
            for write in writes
            if write.key in fault.keys
            and write.began_ms > fault.since_ms
            and (write.number in written.through_gateway or not fault.through_gateway)
        )
        if ended_ms:
            gaps_ms = (
                end_ms - begin_ms
                for begin_ms, end_ms in pairwise([fault.since_ms, *ended_ms])
                if begin_ms <= fault.since_ms + fault.within_ms
            )
            found.append((fault.kind, max(gaps_ms)))
    return found
