"""What all slots of one slice share: how hard to push, what is done, and when to end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shardcluster_runtime.migrate_node import NodeTrouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardcluster_runtime.migrate_node import LanePool, MigrationNode
    from shardcluster_runtime.throttle import TokenBucket

__all__ = ["MIB", "BigKey", "Meeting", "MigrateOptions", "Pace", "SliceState"]

MIB = 1024 * 1024
OVERTIME_S = 1.0  # past its budget a slice still finishes the slots it has opened
THROTTLED_BATCH_S = 0.004  # with a limit, one MIGRATE carries what the limit allows in this time
THROTTLED_SLOTS = 256  # in one group at most: their SETSLOTs take the engine about 2 ms
THROTTLED_BATCH_KEYS_MIN = 8  # fewer cost the source more in commands than they save in pauses


@dataclass(frozen=True, slots=True)
class BigKey:
    """A key that moved alone."""

    slot: int
    key: bytes
    size_bytes: int

    def __str__(self) -> str:
        """For events: the key cut short, the size in MiB."""
        return f"{self.key[:64]!r} of slot {self.slot}, {self.size_bytes / MIB:.1f} MiB"


@dataclass(frozen=True, slots=True)
class MigrateOptions:
    """How hard to push."""

    slots_at_once: int = 128  # of one group of a pair; 64 gave 93k keys/s, 128 and 256 113k
    batch_keys: int = 200  # in one MIGRATE
    batch_bytes: int = MIB  # in one MIGRATE, by the engine's estimate
    migrates_in_flight: int = 4  # in a source's queue; it runs them without a pause
    migrate_timeout_ms: int = 300  # × in flight: how long a hung target can hold a source up
    big_key_bytes: int = MIB  # from here on a key moves alone and is reported
    # From here on a key is not moved: measured, 100 MiB hold both ends up for 0.3-1 s, and 400 MiB
    # longer than a node timeout of 1.5 s, after which the cluster takes the source for dead.
    largest_key_bytes: int = 128 * MIB
    migrates_per_turn: int = 2  # as one write; two such turns make up those in flight
    groups_per_pair: int = 2  # that overlap: one opens or closes while the other moves keys
    gentle: bool = False  # no bursts: what clients of the nodes feel counts

    def throttled(self, keys_per_second: int) -> MigrateOptions:
        """The same with short pauses for clients of the nodes.

        Small batches, but *large* groups of slots: what clients feel most is the node file, which
        every node writes and syncs after each round of new owners.  A group is what fits a slice.
        """
        batch = max(THROTTLED_BATCH_KEYS_MIN, int(keys_per_second * THROTTLED_BATCH_S))
        return replace(
            self,
            batch_keys=min(self.batch_keys, batch),
            batch_bytes=min(self.batch_bytes, MIB // 4),
            migrates_in_flight=1,
            migrates_per_turn=1,
            slots_at_once=THROTTLED_SLOTS,
            groups_per_pair=1,
            gentle=True,
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one slice may take and how fast it may go."""

    budget_s: float
    keys_per_second: int = 0  # of all pairs together; 0 is no limit
    options: MigrateOptions = field(default_factory=MigrateOptions)


class Meeting:
    """Where groups wait for each other, so that their slots change hands in the same moment."""

    def __init__(self) -> None:
        """Nobody is expected yet."""
        self.expected = 1
        self._arrived = 0
        self._together = asyncio.Event()

    async def meet(self) -> None:
        """Return when all that are still expected have come."""
        self._arrived += 1
        together = self._together
        self._look()
        await together.wait()

    def leave(self) -> None:
        """Come no more."""
        self.expected -= 1
        self._look()

    def _look(self) -> None:
        if self._arrived >= self.expected:
            self._together.set()
            self._together = asyncio.Event()
            self._arrived = 0


@dataclass
class SliceState:
    """What all pairs of one slice share."""

    options: MigrateOptions
    bucket: TokenBucket
    ends_s: float
    lanes: LanePool
    meeting: Meeting = field(default_factory=Meeting)
    stopping: bool = False
    stopped: str = ""
    moved_keys: int = 0
    moved_slots: list[int] = field(default_factory=list)
    big_keys: list[BigKey] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # other masters that did not answer
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    def overtime(self) -> bool:
        """Whether even what is open must be left for the next slice."""
        return self.stopping or asyncio.get_running_loop().time() > self.ends_s + OVERTIME_S

    def over(self) -> bool:
        """Whether no new slot may be opened."""
        return self.stopping or asyncio.get_running_loop().time() > self.ends_s

    def room(self) -> float:
        """How many keys one more group may bring in: its share of what the time left allows."""
        left_s = max(0.0, self.ends_s - asyncio.get_running_loop().time())
        return self.bucket.rate_per_s * left_s / self.meeting.expected or float("inf")

    async def may_send(self, keys: int) -> None:
        """Return when the limit on keys/s lets `keys` more go."""
        if self.bucket.rate_per_s <= 0:
            return
        loop = asyncio.get_running_loop()
        async with self._turn:  # first come, first served
            await asyncio.sleep(self.bucket.wait_s(loop.time()))
            self.bucket.take(keys, loop.time())

    def tell(self, others: Sequence[MigrationNode], slots: Sequence[int], owner_id: str) -> None:
        """Let other masters know of new owners, beside the work; the target's broadcast does, too.

        Only those without replicas: with them each SETSLOT is a round trip and a node file written
        for what the node has heard by then.  For the same reason not with a limit on keys/s.
        """
        for node in others:
            if node.name not in self.silent:
                task = asyncio.create_task(self._tell(node, slots, owner_id))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _tell(self, node: MigrationNode, slots: Sequence[int], owner_id: str) -> None:
        try:
            await node.set_slots([("CLUSTER", "SETSLOT", slot, "NODE", owner_id) for slot in slots])
        except NodeTrouble:
            self.silent.add(node.name)

    async def told(self) -> None:
        """Wait for what `tell` began."""
        if self._telling:
            await asyncio.wait(self._telling)

    def close(self) -> None:
        """Give up what `tell` began."""
        for task in self._telling:
            task.cancel()
