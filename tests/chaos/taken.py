"""Which acknowledged writes a fault may have taken from a real store, told from outside.

A write that its master alone had when it ended or hung is gone with it.  Which these were can't be
seen from outside; they are those that were acknowledged in the last moment before.  The excuses
are those of `tests/chaos/checker.py`.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.history import Cause, Excuse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.history import History

__all__ = [
    "AOF_MS",
    "LATE_VOTE_MS",
    "STALE_MS",
    "TAIL_MS",
    "Hit",
    "Taken",
    "Takeover",
    "excuse",
    "late",
]

# A write that was answered reaches a replica in step with the next turn of the master's event loop,
# and what is in the kernel's buffers outlives a process.
TAIL_MS = 300
# `decide` bears 2.5 s of a broken link before a master's last sign of life, which may be a node
# timeout (2 s) old; the append-only file may be 2 s behind while the disk is slow (`everysec`).
STALE_MS = 6_000
AOF_MS = 2_200
# Nobody hangs or is cut off for longer than 15 s, and then votes within some node timeouts; what a
# master hands over later it hands over in good order.
LATE_VOTE_MS = 30_000


@dataclass(slots=True)
class Taken:
    """Writes that a fault may have taken: asked for before, answered after."""

    cause: Cause
    keys: frozenset[str]
    asked_until_ms: int
    answered_since_ms: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A shard that has lost its master, or may have, and whose nodes may yet vote for another."""

    shard: str
    keys: frozenset[str]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """A node became the master of its shard between two moments."""

    shard: str
    since_ms: int
    until_ms: int


def late(takeovers: Iterable[Takeover], hits: Iterable[Hit]) -> list[Taken]:
    """What a master had answered last that was deposed after a fault, however late.

    A voter that hung grants, when it goes on, what was asked of it seconds ago, and a master that
    has come back meanwhile is deposed while it serves.
    """
    hits = list(hits)
    return [
        Taken(Cause.FORCED, hit.keys, one.until_ms + TAIL_MS, one.since_ms - TAIL_MS)
        for one in takeovers
        for hit in hits
        if hit.shard == one.shard and hit.at_ms <= one.until_ms <= hit.at_ms + LATE_VOTE_MS
    ]


def excuse(history: History, taken: Iterable[Taken]) -> None:
    """Name the writes."""
    for one in taken:
        numbers = frozenset(
            operation.number
            for operation in history.operations
            if operation.key in one.keys
            and operation.began_ms <= one.asked_until_ms
            and operation.ended_ms >= one.answered_since_ms
        )
        history.excuses.append(Excuse(one.cause, numbers))
