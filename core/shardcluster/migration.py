"""One slot on its way from its owner to another master: allowed steps, and keys in batches.

Law: nothing but `COUNTED_ZERO` leads out of `OPEN` towards a new owner.  The engine does not check
that the source is empty when the target takes a slot over, and a source that learns of the new
owner *deletes* the keys it still holds, so that gate is the only thing between a move and a loss.

Between the gate and the take-over no key can appear at the source: it holds the slot in MIGRATING,
where every command on a key that is not there is answered with ASK, also inside transactions and
scripts, so new keys are made at the target.

The table below is the whole machine; `advance` refuses what is not in it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TRANSITIONS", "Batch", "BatchLimits", "SlotEvent", "SlotState", "advance", "split"]


class SlotState(enum.Enum):
    """Where a slot's move stands, as far as it was confirmed by the nodes."""

    PLANNED = "planned"  # nothing was asked of any node
    TARGET_IMPORTING = "target importing"  # the target takes keys that come with ASKING
    TARGET_AHEAD = "target ahead"  # the target owned the slot before this run asked anything
    OPEN = "open"  # the source sends clients of missing keys on; keys move
    EMPTY = "empty"  # the source was counted and holds no key of the slot
    REPLICATED = "replicated"  # a replica of the target has all that was moved, if it has any
    TARGET_OWNS = "target owns"  # the target has taken the slot over
    DONE = "done"  # the source knows, too
    FAILED = "failed"  # left as it is; a sentence says why


class SlotEvent(enum.Enum):
    """What a node's answer meant."""

    IMPORTING_SET = "importing set"
    TARGET_WAS_OWNER = "target was owner"
    MIGRATING_SET = "migrating set"
    SOURCE_WAS_NOT_OWNER = "source was not owner"
    KEYS_LEFT = "keys left"
    COUNTED_ZERO = "counted zero"
    REPLICA_HAS_IT = "replica has it"
    TARGET_CLOSED = "target closed"
    SOURCE_CLOSED = "source closed"
    REFUSED = "refused"


_S, _E = SlotState, SlotEvent

TRANSITIONS: Mapping[tuple[SlotState, SlotEvent], SlotState] = {
    (_S.PLANNED, _E.IMPORTING_SET): _S.TARGET_IMPORTING,
    (_S.PLANNED, _E.TARGET_WAS_OWNER): _S.TARGET_AHEAD,
    (_S.TARGET_IMPORTING, _E.MIGRATING_SET): _S.OPEN,
    (_S.TARGET_IMPORTING, _E.SOURCE_WAS_NOT_OWNER): _S.FAILED,  # a third node owns it
    (_S.TARGET_AHEAD, _E.MIGRATING_SET): _S.OPEN,
    # Both agree already.  A node that gave a slot up holds no key of it that anyone can reach.
    (_S.TARGET_AHEAD, _E.SOURCE_WAS_NOT_OWNER): _S.EMPTY,
    (_S.OPEN, _E.KEYS_LEFT): _S.OPEN,
    (_S.OPEN, _E.COUNTED_ZERO): _S.EMPTY,
    (_S.EMPTY, _E.REPLICA_HAS_IT): _S.REPLICATED,
    (_S.REPLICATED, _E.TARGET_CLOSED): _S.TARGET_OWNS,
    (_S.TARGET_OWNS, _E.SOURCE_CLOSED): _S.DONE,
    **{
        (state, _E.REFUSED): _S.FAILED
        for state in _S
        if state not in (_S.DONE, _S.FAILED)
    },
}  # fmt: skip


def advance(state: SlotState, event: SlotEvent) -> SlotState:
    """The state after `event`; raises ValueError for a step that is not in the table."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        message = f"a slot that is {state.value!r} can't go on with {event.value!r}"
        raise ValueError(message)
    return after


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one MIGRATE may carry: the source answers nobody while it runs."""

    keys: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys of one slot that go in one MIGRATE."""

    keys: tuple[bytes, ...]
    size_bytes: int  # an estimate
    alone: bool = False  # one big key


def split(
    keys: Sequence[bytes], total_bytes: int, big: Mapping[int, int], limits: BatchLimits
) -> list[Batch]:
    """Cut `keys` into batches: small ones together, each of `big` (index: bytes) alone, last.

    Big ones go last so that a refused one keeps no other key from moving.
    """
    small = [key for index, key in enumerate(keys) if index not in big]
    small_bytes = max(0, total_bytes - sum(big.values()))
    mean_bytes = max(1, small_bytes // len(small)) if small else 1
    count = max(1, min(limits.keys, limits.size_bytes // mean_bytes))
    batches = [
        Batch(tuple(small[start : start + count]), mean_bytes * len(small[start : start + count]))
        for start in range(0, len(small), count)
    ]
    batches += [Batch((keys[index],), size, alone=True) for index, size in sorted(big.items())]
    return batches
