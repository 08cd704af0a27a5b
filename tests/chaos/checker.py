"""Decide whether a history and what was found at its end keep what the store promises.

What is promised, with `durability=async`:

* An acknowledged write is there at the end. It may be missing only if a *fault* took it: a
  failover that was forced because the master's process had ended, its machine was lost, or it was
  cut off or hung until the other masters (or, where no majority can vote, a fence) ended its
  reign, and only if the write had not reached the replica that took over (`Cause.FORCED`); or
  because every copy ended with its process or disk (`Cause.LAST_COPY`: reported, no violation). A
  master that is cut off goes on acknowledging until it notices; those writes are of the first
  kind. Engines that tell replicas nothing of open slots (before Valkey 8) may also lose keys that
  had left the master in an open slot.
* No such excuse exists for what our controller does by itself: moving slots, switching masters
  over, taking nodes in or out, promoting a staler replica while a fresher one can be had, a
  TAKEOVER while the old master's process is not proven gone, wiping or forming over data.
* A refused write has no effect, one of unknown fate has it once or not at all, and none has it
  twice.
* No value is found that nobody wrote; none comes back that was overwritten or deleted.
* Every slot has exactly one owner, and the spec is reached within the run's bound after the last
  fault.

Pure: a history in, violations out; the excuses are in the history, because only who caused a
fault knows what it may have taken. Used by every tier.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.slots import SlotSet
from tests.chaos.history import Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.history import History, Operation, Readout, Value

__all__ = ["Rule", "Violation", "check"]


class Rule(enum.Enum):
    """The promise that was broken."""

    LOST = "an acknowledged write is lost"
    INVENTED = "a value was never written"
    RESURRECTED = "a deleted or overwritten value came back"
    TWICE = "a write took effect twice"
    ORDER = "one client's writes changed places"
    OWNERS = "a slot has not exactly one owner"
    UNREACHED = "the spec is not reached"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    rule: Rule
    where: str  # a key, or slots
    sentence: str

    def __str__(self) -> str:
        """In a line."""
        return f"{self.rule.value}: {self.where}: {self.sentence}"


def check(history: History, readout: Readout, *, late_ms: int = 0) -> list[Violation]:
    """All violations.

    `late_ms`: how long after its client gave up a write of unknown fate may still take effect.
    """
    by_key: dict[str, list[Operation]] = {key: [] for key in readout.values}
    for operation in history.operations:
        by_key.setdefault(operation.key, []).append(operation)
    found: list[Violation] = []
    for key, operations in sorted(by_key.items()):
        writes = [operation for operation in operations if operation.kind is not Kind.READ]
        excused = history.excused(writes)
        final = readout.values.get(key)
        if key.startswith("register"):
            found += _register(_Writes(key, writes, excused), final, late_ms)
        elif key.startswith("counter"):
            found += _counter(_Writes(key, writes, excused), final)
        else:
            found += _list(_Writes(key, writes, excused), final)
        found += _reads(key, operations, writes)
    return found + _owners(readout) + _spec(readout)


@dataclass(frozen=True, slots=True)
class _Writes:
    """The writes to one key, in their one writer's order."""

    key: str
    all: Sequence[Operation]
    excused: frozenset[int]

    def of(self, outcome: Outcome) -> list[Operation]:
        return [operation for operation in self.all if operation.outcome is outcome]


# -- registers ------------------------------------------------------------------------------


def _written(operation: Operation) -> Value:
    return None if operation.kind is Kind.DELETE else operation.number


def _register(writes: _Writes, final: Value, late_ms: int) -> list[Violation]:
    """The last acknowledged write's value, or that of one that may be later or in its place."""
    allowed: list[Value] = []
    held: Operation | None = None  # the last acknowledged write that nothing excuses
    for operation in reversed(writes.all):
        if operation.outcome is Outcome.FAILED:
            continue
        allowed.append(_written(operation))
        if operation.outcome is Outcome.OK and operation.number not in writes.excused:
            held = operation
            break
    else:
        allowed.append(None)
    if held is not None:
        allowed += [
            _written(operation)
            for operation in writes.of(Outcome.UNKNOWN)
            if operation.ended_ms + late_ms >= held.began_ms
        ]
    if final in allowed:
        return []
    return [_register_broken(writes, final, held)]


def _register_broken(writes: _Writes, final: Value, held: Operation | None) -> Violation:
    writer = next((item for item in writes.all if _written(item) == final), None)
    if final is not None and (writer is None or writer.outcome is Outcome.FAILED):
        how = "nobody wrote" if writer is None else "a refused write held"
        return Violation(Rule.INVENTED, writes.key, f"{final} was found, which {how}")
    assert held is not None  # else every written value and none at all is allowed
    said = f"{final} was found, the last acknowledged write is {held.number} ({held.kind.value})"
    if final is not None and held.kind is Kind.DELETE:
        return Violation(Rule.RESURRECTED, writes.key, said)
    return Violation(Rule.LOST, writes.key, said)


# -- counters and lists ---------------------------------------------------------------------


def _counter(writes: _Writes, final: Value) -> list[Violation]:
    """Between what must and what may have been counted."""
    count = final if isinstance(final, int) else 0
    acknowledged = writes.of(Outcome.OK)
    least = sum(operation.number not in writes.excused for operation in acknowledged)
    most = len(acknowledged) + len(writes.of(Outcome.UNKNOWN))
    said = f"{count} was found, {least} to {most} is right"
    if count < least:
        return [Violation(Rule.LOST, writes.key, said)]
    if count > most:
        return [Violation(Rule.TWICE, writes.key, said)]
    return []


def _list(writes: _Writes, final: Value) -> list[Violation]:
    """Each acknowledged element once, in its writer's order; no refused one, no stranger."""
    elements = final if isinstance(final, tuple) else ()
    key, found = writes.key, []
    may = {operation.number for operation in writes.all if operation.outcome is not Outcome.FAILED}
    there = set(elements)
    if strange := sorted(there - may):
        found.append(Violation(Rule.INVENTED, key, f"{strange[:5]} were found"))
    if len(there) != len(elements):
        twice = sorted({element for element in there if elements.count(element) > 1})
        found.append(Violation(Rule.TWICE, key, f"{twice[:5]} were found more than once"))
    must = [operation.number for operation in writes.of(Outcome.OK)]
    if missing := [number for number in must if number not in there | writes.excused]:
        found.append(Violation(Rule.LOST, key, f"{missing[:5]} are not there"))
    acknowledged = set(must)
    order = [element for element in elements if element in acknowledged]
    if order != sorted(order) and len(order) == len(set(order)):
        found.append(Violation(Rule.ORDER, key, f"{order[:10]} were found in that order"))
    return found


# -- reads on the way, and what stands there at the end -------------------------------------


def _reads(
    key: str, operations: Sequence[Operation], writes: Sequence[Operation]
) -> list[Violation]:
    """What was read was written, and not refused, and asked for before the answer came."""
    found = []
    began = {
        write.number: write.began_ms for write in writes if write.outcome is not Outcome.FAILED
    }
    for read in operations:
        if read.kind is not Kind.READ or read.outcome is not Outcome.OK:
            continue
        if key.startswith("counter"):
            seen = read.seen if isinstance(read.seen, int) else 0
            if seen > sum(began_ms <= read.ended_ms for began_ms in began.values()):
                found.append(Violation(Rule.TWICE, key, f"{seen} was read, which is too much"))
            continue
        values = read.seen if isinstance(read.seen, tuple) else (read.seen,)
        found += [
            Violation(Rule.INVENTED, key, f"{value} was read")
            for value in values
            if value is not None and began.get(value, read.ended_ms + 1) > read.ended_ms
        ]
    return found


def _owners(readout: Readout) -> list[Violation]:
    claimed, twice = SlotSet(), SlotSet()
    for _, slots in readout.owners:
        twice |= slots & claimed
        claimed |= slots
    found = []
    if none := SlotSet.full() - claimed:
        found.append(Violation(Rule.OWNERS, f"slots {str(none)[:60]}", "nobody owns them"))
    if twice:
        names = ", ".join(name for name, slots in readout.owners if slots & twice)
        found.append(Violation(Rule.OWNERS, f"slots {str(twice)[:60]}", f"{names} own them"))
    return found


def _spec(readout: Readout) -> list[Violation]:
    if readout.spec_reached:
        return []
    return [Violation(Rule.UNREACHED, "the store", readout.sentence)]
