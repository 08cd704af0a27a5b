"""Move a queue of slots from one master to another, a group at a time through each step.

`shardcluster.migration` says which step may follow which; this module asks the nodes, and turns
their answers into those steps.  What ends one slot is a failure with a sentence and the others go
on; what says that a *node* can't go on (`NodeTrouble`) ends this pair and leaves its slots open.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster.migration import Batch, BatchLimits, SlotEvent, SlotState, advance, split
from shardcluster_runtime.migrate_node import NodeTrouble
from shardcluster_runtime.migrate_state import MIB, BigKey

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine, Sequence

    from shardcluster_runtime.migrate_node import MigrationNode
    from shardcluster_runtime.migrate_state import SliceState
    from shardcluster_runtime.wire import Argument, Credentials

__all__ = ["PairMover"]

MIGRATE_ANSWER_S = 1.0  # beyond what the engine was given for it
PING_TIMEOUT_S = 0.3  # a target that does not answer this is not asked to take more keys
CUT_OFF_MAX = 4  # IOERR answers in one slot before the pair gives up
ROUNDS_WITHOUT_PROGRESS_MAX = 3  # of one slot: keys were sent but the source still has as many
BIG_BYTES_PER_S = 20 * MIB  # how slow a big key may travel; measured 70-280 MiB/s
KEYS_READ_PER_BATCH = 4  # batches of keys read ahead in one slot

_TARGET_TROUBLE = (
    "OOM", "LOADING", "NOAUTH", "WRONGPASS", "NOPERM", "READONLY", "MISCONF", "NOREPLICAS",
    "CLUSTERDOWN", "MASTERDOWN", "ERR max number of clients",
)  # fmt: skip


@dataclass(slots=True)
class _Job:
    slot: int
    keys: list[bytes] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    state: SlotState = SlotState.PLANNED
    replace: bool = True
    cut_off: int = 0  # IOERR answers in a row

    @property
    def failed(self) -> bool:
        return self.state is SlotState.FAILED

    def on(self, event: SlotEvent) -> None:
        self.state = advance(self.state, event)


class PairMover:
    """Moves `queue` from `source` to `target`; `run` may run several times at once."""

    def __init__(
        self,
        source: MigrationNode,
        target: MigrationNode,
        others: Sequence[MigrationNode],
        queue: deque[int],
        state: SliceState,
    ) -> None:
        """`others`: masters to be told of new owners."""
        self._source = source
        self._target = target
        self._others = others
        self._queue = queue
        self._state = state
        self._options = state.options
        self._limits = BatchLimits(state.options.batch_keys, state.options.batch_bytes)
        self._keys_read = state.options.batch_keys * KEYS_READ_PER_BATCH
        self._login = _login(state.lanes.credentials)
        self._ended = False

    async def run(self) -> None:
        """Group after group until the queue is empty, time is up, or a node gives trouble."""
        try:
            while self._queue and not self._state.over() and not self._at_an_end():
                jobs = await self._looked_at(self._next_slots())
                jobs = await self._opened(jobs)
                await self._sent_together(jobs)
                await _all([self._emptied(job) for job in jobs if job.state is SlotState.OPEN])
                await self._closed([job for job in jobs if job.state is SlotState.EMPTY])
        except NodeTrouble as trouble:
            self._ended = True
            self._state.stopped = self._state.stopped or str(trouble)
        for node in (self._source, self._target):
            if node.lost and not self._state.stopped:  # another pair's words may say more
                self._state.stopped = f"The connection to {node.name} was lost."

    def _next_slots(self) -> list[int]:
        count = min(self._options.slots_at_once, len(self._queue))
        return [self._queue.popleft() for _ in range(count)]

    def _fail(self, job: _Job, sentence: str) -> None:
        job.on(SlotEvent.REFUSED)
        self._state.failures[job.slot] = sentence

    # -- before a slot is opened ------------------------------------------------------------

    async def _looked_at(self, slots: Sequence[int]) -> list[_Job]:
        """Read the first keys of each and leave out what must not be opened.

        With a limit on keys/s only as many slots as fit the time left; the others go back.
        """
        replies = await self._source.calls(
            [("CLUSTER", "GETKEYSINSLOT", slot, self._keys_read) for slot in slots]
        )
        room = self._state.room()
        jobs: list[_Job] = []
        for index, (slot, keys) in enumerate(zip(slots, replies, strict=True)):
            if isinstance(keys, hiredis.ReplyError):
                raise NodeTrouble(f"{self._source.name} refused to list keys: {keys}")  # noqa: EM102, TRY003
            room -= len(keys)
            if room < 0 and jobs:
                self._queue.extendleft(reversed(slots[index:]))
                break
            jobs.append(_Job(slot, keys))
        filled = [job for job in jobs if job.keys]
        # With a limit one at a time: the engine would run all of them in one go.
        at_once = 1 if self._options.gentle else max(1, len(filled))
        for start in range(0, len(filled), at_once):
            await self._measured(filled[start : start + at_once])
        return [job for job in jobs if job.state is SlotState.PLANNED]

    async def _measured(self, jobs: Sequence[_Job]) -> None:
        """Cut the keys read into batches; a key that is too big fails its slot."""
        sizes = await self._source.sizes([job.keys for job in jobs], self._options.big_key_bytes)
        for job, (total, big) in zip(jobs, sizes, strict=True):
            largest = max(big, key=big.__getitem__, default=None)
            if largest is not None and big[largest] >= self._options.largest_key_bytes:
                limit = self._options.largest_key_bytes / MIB
                self._fail(
                    job,
                    f"its key {job.keys[largest][:64]!r} takes {big[largest] / MIB:.0f} MiB; moving"
                    f" it would stall the shard (limit {limit:.0f} MiB), so the slot stays.",
                )
                continue
            job.batches = split(job.keys, total, big, self._limits)

    # -- opening ----------------------------------------------------------------------------

    async def _opened(self, jobs: Sequence[_Job]) -> list[_Job]:
        if not jobs:
            return []
        source_id, target_id = self._source.peer.node_id, self._target.peer.node_id
        replies = await self._state.set_slots(
            self._target, [("CLUSTER", "SETSLOT", job.slot, "IMPORTING", source_id) for job in jobs]
        )
        for job, reply in zip(jobs, replies, strict=True):
            if not isinstance(reply, hiredis.ReplyError):
                job.on(SlotEvent.IMPORTING_SET)
            elif "already the owner" in str(reply):
                job.on(SlotEvent.TARGET_WAS_OWNER)
                job.replace = False
            else:
                self._fail(job, f"{self._target.name} does not import it: {reply}")
        jobs = [job for job in jobs if not job.failed]
        replies = await self._state.set_slots(
            self._source, [("CLUSTER", "SETSLOT", job.slot, "MIGRATING", target_id) for job in jobs]
        )
        for job, reply in zip(jobs, replies, strict=True):
            if not isinstance(reply, hiredis.ReplyError):
                job.on(SlotEvent.MIGRATING_SET)
            elif "not the owner" not in str(reply):
                self._fail(job, f"{self._source.name} does not give it away: {reply}")
            else:
                job.on(SlotEvent.SOURCE_WAS_NOT_OWNER)
                if job.failed:
                    self._state.failures[job.slot] = f"{self._source.name} does not own it."
        return [job for job in jobs if not job.failed]

    # -- moving keys ------------------------------------------------------------------------

    def _at_an_end(self) -> bool:
        """Whether what is open is left as it is: no time, a stop, or a node that can't go on.

        Asked before each MIGRATE, because each to a hung target holds the source up.
        """
        lost = self._source.lost or self._target.lost
        return self._ended or lost or self._state.overtime()

    async def _sent_together(self, jobs: Sequence[_Job]) -> None:
        """The usual slot: no key, or all its keys in one batch.  What is left over stays OPEN."""
        jobs = [job for job in jobs if job.state is SlotState.OPEN]
        empty = [job for job in jobs if not job.batches]
        counts = await self._source.calls(
            [("CLUSTER", "COUNTKEYSINSLOT", job.slot) for job in empty]
        )
        for job, count in zip(empty, counts, strict=True):
            if count == 0:
                job.on(SlotEvent.COUNTED_ZERO)
        usual = [job for job in jobs if len(job.batches) == 1 and not job.batches[0].alone]
        at_once = self._options.migrates_per_turn
        await _all(
            [self._turn(usual[start : start + at_once]) for start in range(0, len(usual), at_once)]
        )

    async def _turn(self, jobs: Sequence[_Job]) -> None:
        """MIGRATE and count for a few slots with one batch each, as one write."""
        await self._state.may_send(sum(len(job.keys) for job in jobs))
        async with self._source.turn(alone=False), self._state.alone():
            if self._at_an_end():
                return
            replies = await self._asked(
                [command for job in jobs for command in self._migrate(job, job.batches[0])]
            )
        for job, reply, count in zip(jobs, replies[::2], replies[1::2], strict=True):
            if isinstance(reply, hiredis.ReplyError):
                await self._refused(job, str(reply))
                continue
            self._state.moved_keys += len(job.keys)
            job.batches = []
            if count == 0:
                job.on(SlotEvent.COUNTED_ZERO)

    async def _emptied(self, job: _Job) -> None:
        try:
            await self._emptying(job)
        except NodeTrouble:
            self._ended = True  # at once: the other slots' tasks are still at it
            raise

    async def _emptying(self, job: _Job) -> None:
        """Move keys until the source counts none; the slot stays OPEN when it has to wait."""
        counted_before, stuck = -1, 0
        while job.state is SlotState.OPEN and not self._at_an_end():
            count = await self._sent(job)
            if job.failed or self._at_an_end():
                return
            if count is None:
                count = await self._source.call("CLUSTER", "COUNTKEYSINSLOT", job.slot)
            if count == 0:
                job.on(SlotEvent.COUNTED_ZERO)
                return
            if isinstance(count, hiredis.ReplyError):
                self._fail(job, f"{self._source.name} does not count its keys: {count}")
                return
            job.on(SlotEvent.KEYS_LEFT)
            stuck = stuck + 1 if count == counted_before else 0
            counted_before = count
            if stuck >= ROUNDS_WITHOUT_PROGRESS_MAX:
                self._fail(job, f"{count} of its keys do not leave {self._source.name}.")
                return
            await self._read_on(job)

    async def _read_on(self, job: _Job) -> None:
        keys = await self._source.call("CLUSTER", "GETKEYSINSLOT", job.slot, self._keys_read)
        if isinstance(keys, hiredis.ReplyError):
            self._fail(job, f"{self._source.name} does not list its keys: {keys}")
            return
        job.keys, job.batches = keys, []
        if keys:
            await self._measured([job])

    async def _sent(self, job: _Job) -> Any:
        """Send the batches that were read; yields the source's count after the last, if it came."""
        count = None
        for batch in job.batches:
            await self._state.may_send(len(batch.keys))
            async with self._source.turn(alone=batch.alone), self._state.alone():
                if self._at_an_end():
                    return None
                commands = self._migrate(job, batch)
                reply, count = await self._asked(commands, batch.size_bytes if batch.alone else 0)
            if isinstance(reply, hiredis.ReplyError):
                await self._refused(job, str(reply))
                return None
            job.cut_off = 0
            self._state.moved_keys += len(batch.keys)
            if batch.alone:
                big = BigKey(job.slot, batch.keys[0], batch.size_bytes)
                self._state.big_keys.append(big)
        return count

    def _migrate(self, job: _Job, batch: Batch) -> list[tuple[Argument, ...]]:
        """MIGRATE, and the count right behind it."""
        timeout_ms = self._timeout_ms(batch.size_bytes if batch.alone else 0)
        command: list[Argument] = [
            "MIGRATE", self._target.peer.address.host, self._target.peer.address.port,
            "", 0, timeout_ms,
        ]  # fmt: skip
        if job.replace:
            command.append("REPLACE")
        return [
            (*command, *self._login, "KEYS", *batch.keys),
            ("CLUSTER", "COUNTKEYSINSLOT", job.slot),
        ]

    def _timeout_ms(self, big_bytes: int) -> int:
        return self._options.migrate_timeout_ms + 1000 * big_bytes // BIG_BYTES_PER_S

    async def _asked(self, commands: list[tuple[Argument, ...]], big_bytes: int = 0) -> list[Any]:
        """Answers of the source to MIGRATEs and counts; `big_bytes` of a key that goes alone."""
        # The engine's own limit counts from the moment the command runs: others stand before it.
        queued_s = self._timeout_ms(big_bytes) / 1000 * (self._options.migrates_in_flight + 1)
        if big_bytes:
            self._source.held_up(queued_s)
            self._target.held_up(queued_s)
        return await self._source.calls(commands, MIGRATE_ANSWER_S + queued_s)

    async def _refused(self, job: _Job, said: str) -> None:
        """An answer to MIGRATE that is not OK: cut off, the target's fault, or the slot's."""
        if said.startswith("IOERR"):
            # A target that hangs must not hold the source up again.
            await self._target.call("PING", timeout_s=PING_TIMEOUT_S)
            job.cut_off += 1
            if job.cut_off > CUT_OFF_MAX:
                message = f"{self._source.name} can't get keys over to {self._target.name}: {said}"
                raise NodeTrouble(message)
            return
        by_target = said.partition("Target instance replied with error: ")[2]
        if by_target.startswith(_TARGET_TROUBLE) or said.startswith(_TARGET_TROUBLE):
            message = f"{self._target.name} takes no keys now: {by_target or said}"
            raise NodeTrouble(message)
        if by_target.startswith("BUSYKEY"):
            self._fail(
                job,
                f"{self._target.name} owns it and has a key that {self._source.name} has, too;"
                " the engine settles which master is right.",
            )
            return
        self._fail(job, f"{self._source.name} could not move its keys: {said}")

    # -- closing ----------------------------------------------------------------------------

    async def _closed(self, jobs: Sequence[_Job]) -> None:
        """Every job is EMPTY here: counted by the source after the last key was sent."""
        if not jobs or self._state.stopping or self._source.lost or self._target.lost:
            return
        await self._target.replicated()
        for job in jobs:
            job.on(SlotEvent.REPLICA_HAS_IT)
        await self._set_owner(self._target, jobs, SlotEvent.TARGET_CLOSED)
        jobs = [job for job in jobs if job.state is SlotState.TARGET_OWNS]
        try:
            await self._set_owner(self._source, jobs, SlotEvent.SOURCE_CLOSED)
        finally:
            # The target owns it whatever the source says: it learns it by gossip.
            self._state.moved_slots += [job.slot for job in jobs]
        self._state.tell(self._others, [job.slot for job in jobs], self._target.peer.node_id)

    async def _set_owner(
        self, node: MigrationNode, jobs: Sequence[_Job], closed: SlotEvent
    ) -> None:
        owner_id = self._target.peer.node_id
        replies = await self._state.set_slots(
            node, [("CLUSTER", "SETSLOT", job.slot, "NODE", owner_id) for job in jobs]
        )
        for job, reply in zip(jobs, replies, strict=True):
            if isinstance(reply, hiredis.ReplyError):
                self._fail(job, f"{node.name} does not close it: {reply}")
            else:
                job.on(closed)


async def _all(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end, then raise what the first of them raised."""
    for outcome in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _login(credentials: Credentials) -> tuple[str, ...]:
    if credentials.password is None:
        return ()
    if credentials.username:
        return ("AUTH2", credentials.username, credentials.password)
    return ("AUTH", credentials.password)
