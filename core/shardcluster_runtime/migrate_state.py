"""What all slots of one slice share: how hard to push, what is done, and when to end."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shardcluster_runtime.migrate_node import NodeTrouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from shardcluster_runtime.migrate_node import LanePool, MigrationNode
    from shardcluster_runtime.throttle import TokenBucket
    from shardcluster_runtime.wire import Argument

__all__ = ["MIB", "OVERTIME_S", "BigKey", "MigrateOptions", "Pace", "SliceState"]

MIB = 1024 * 1024
OVERTIME_S = 1.0  # past its budget a slice still finishes the slots it has opened
THROTTLED_BATCH_S = 0.004  # with a limit, one MIGRATE carries what the limit allows in this time
THROTTLED_SLOTS = 16  # in one group: every node they concern writes its node file at each step
GENTLE_REST_MAX_S = 0.1  # on a machine with other work a step may take long
GENTLE_REST = 6.0  # × the time a step took: the pause until the next; 3 gave p99 ×2.0, 6 ×1.8
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
        """The same with short pauses for clients of the nodes: few keys and few slots at a time."""
        batch = max(THROTTLED_BATCH_KEYS_MIN, int(keys_per_second * THROTTLED_BATCH_S))
        return replace(
            self,
            batch_keys=min(self.batch_keys, batch),
            batch_bytes=min(self.batch_bytes, MIB // 4),
            migrates_in_flight=1,
            migrates_per_turn=1,
            slots_at_once=THROTTLED_SLOTS,
            gentle=True,
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one slice may take and how fast it may go."""

    budget_s: float
    keys_per_second: int = 0  # of all pairs together; 0 is no limit
    options: MigrateOptions = field(default_factory=MigrateOptions)


@dataclass
class SliceState:
    """What all pairs of one slice share."""

    options: MigrateOptions
    bucket: TokenBucket
    ends_s: float
    lanes: LanePool
    groups: int = 1  # that share the limit
    stopping: bool = False
    stopped: str = ""
    moved_keys: int = 0
    moved_slots: list[int] = field(default_factory=list)
    big_keys: list[BigKey] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # other masters that did not answer
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _setting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rested_s: float = 0.0  # when slots may be set again
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    def overtime(self) -> bool:
        """Whether even what is open must be left for the next slice."""
        return self.stopping or asyncio.get_running_loop().time() > self.ends_s + OVERTIME_S

    def over(self) -> bool:
        """Whether no new slot may be opened."""
        return self.stopping or asyncio.get_running_loop().time() > self.ends_s

    def room(self) -> float:
        """How many keys one more group may bring in: its share of what the time left allows."""
        if self.bucket.rate_per_s <= 0:
            return float("inf")
        left_s = max(0.0, self.ends_s - asyncio.get_running_loop().time())
        return self.bucket.rate_per_s * left_s / self.groups

    async def may_send(self, keys: int) -> None:
        """Return when the limit on keys/s lets `keys` more go."""
        if self.bucket.rate_per_s <= 0:
            return
        loop = asyncio.get_running_loop()
        async with self._turn:  # first come, first served
            await asyncio.sleep(self.bucket.wait_s(loop.time()))
            self.bucket.take(keys, loop.time())

    async def set_slots(
        self, node: MigrationNode, commands: Sequence[tuple[Argument, ...]]
    ) -> list[Any]:
        """`MigrationNode.set_slots`; with a limit on keys/s one group at a time, with pauses."""
        if not self.options.gentle:
            return await node.set_slots(commands)
        loop = asyncio.get_running_loop()
        async with self._setting:
            await asyncio.sleep(self._rested_s - loop.time())
            async with self._one:
                began_s = time.perf_counter()  # the loop's own may stand still meanwhile (uvloop)
                replies = await node.set_slots(commands)
                took_s = time.perf_counter() - began_s
            self._rested_s = loop.time() + min(GENTLE_REST * took_s, GENTLE_REST_MAX_S)
        return replies

    def alone(self) -> AbstractAsyncContextManager[Any]:
        """For a MIGRATE with a limit on keys/s: nothing else is asked of any node meanwhile.

        A source stands still until the target has answered; a target that is busy with slots
        answers late.
        """
        return self._one if self.options.gentle else nullcontext()

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
