"""What clients asked for, what became of it as far as they know, and what was found at the end.

Every write has a number of its own, which is also what it writes: so a value that is read back
names its write.  A key has one writer, which asks for one thing at a time; anybody reads.  The
name of a key tells what it is: `register-3`, `counter-0`, `list-7`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster.slots import SlotSet

__all__ = [
    "Cause", "Excuse", "History", "Kind", "Operation", "Outcome", "Readout", "Value",
    "kind_of",
]  # fmt: skip

Value = int | None | tuple[int, ...]  # a register's or counter's, an absent register's, a list's


class Kind(enum.Enum):
    """What a client asked for."""

    SET = "set"
    DELETE = "delete"
    INCREMENT = "increment"
    APPEND = "append"
    READ = "read"


def kind_of(name: str, part: float, *, reads: float, deletions: float) -> Kind:
    """What is asked of the key; `part` is drawn from 0 to 1, of which so much reads or deletes."""
    if part < reads:
        return Kind.READ
    if name.startswith("counter"):
        return Kind.INCREMENT
    if name.startswith("list"):
        return Kind.APPEND
    return Kind.DELETE if part < reads + deletions else Kind.SET


class Outcome(enum.Enum):
    """What the client knows of it."""

    OK = "ok"  # acknowledged
    FAILED = "failed"  # refused: it has had and will have no effect
    UNKNOWN = "unknown"  # no answer: it took effect once or not at all


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client; times in ms of any clock, the same for all."""

    number: int  # unique; what a SET or an APPEND writes
    key: str
    kind: Kind
    outcome: Outcome
    began_ms: int
    ended_ms: int
    seen: Value = None  # what a READ that was answered found


class Cause(enum.Enum):
    """Why acknowledged writes may be missing without anybody being to blame."""

    FORCED = "forced failover"  # the master was gone, and its heir had not been sent them yet
    LAST_COPY = "last copy gone"  # every copy ended with its process or its disk


@dataclass(frozen=True, slots=True)
class Excuse:
    """Writes that a fault may have taken.

    A tier that sees inside the nodes names `numbers`; one that doesn't names `keys` and the time in
    which they were acknowledged.
    """

    cause: Cause
    numbers: frozenset[int] = frozenset()
    keys: frozenset[str] = frozenset()
    since_ms: int = 0
    until_ms: int = 0

    def covers(self, operation: Operation) -> bool:
        """Whether the write may be missing."""
        in_time = self.since_ms <= operation.ended_ms <= self.until_ms
        return operation.number in self.numbers or (operation.key in self.keys and in_time)


@dataclass(frozen=True, slots=True)
class Readout:
    """What stood there after the faults had stopped and the store had been given its time."""

    values: dict[str, Value]  # by key, read at the slots' owners
    owners: tuple[tuple[str, SlotSet], ...]  # every master that says it owns slots
    spec_reached: bool
    sentence: str = ""  # the last that the controller said


@dataclass(slots=True)
class History:
    """All of a run."""

    operations: list[Operation] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)

    def excused(self, operations: Iterable[Operation]) -> frozenset[int]:
        """The numbers of those that may be missing."""
        named = frozenset[int]().union(*(excuse.numbers for excuse in self.excuses))
        timed = [excuse for excuse in self.excuses if excuse.keys]
        return frozenset(
            operation.number
            for operation in operations
            if operation.number in named or any(excuse.covers(operation) for excuse in timed)
        )
