"""Do to a real store what a schedule says, and note what each fault may have taken.

Law: a fault is chosen such that the promise still means something: a process that has its data in
memory alone ends, and a disk is lost, only while another node has the data.  What the kinds do
is each tier's own (`process_faults.py`, `k8s_faults.py`); here is what they have in common.
"""

from __future__ import annotations

import abc
import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tests.chaos.history import Cause
from tests.chaos.look import Seen, keys_in
from tests.chaos.reach import Trouble, now_ms
from tests.chaos.recoveries import Awaited
from tests.chaos.taken import STALE_MS, TAIL_MS, Hit, Taken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence

    from tests.chaos.nemesis import Fault

__all__ = ["Befaller"]

Candidate = TypeVar("Candidate")
POLL_S = 1.0


@dataclass(kw_only=True)
class Befaller(abc.ABC):
    """One round's."""

    keys: tuple[str, ...]  # that clients write
    ballast: tuple[str, ...]  # keys of older writes, hit like all others
    faults: Collection[str]  # the kinds that are no wishes
    counts: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    began_ms: int = field(default_factory=now_ms)
    last_kind: str = ""
    taken: list[Taken] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    awaited: list[Awaited] = field(default_factory=list)
    ending: frozenset[str] = frozenset()  # nodes that were asked to end: no copy that counts
    _undoing: list[asyncio.Task[None]] = field(default_factory=list)

    # -- what a tier says -------------------------------------------------------------------

    @abc.abstractmethod
    def does(self) -> dict[str, Callable[[Fault], Awaitable[str]]]:
        """What each kind does; it tells whom it has befallen, or nothing if nobody."""

    @abc.abstractmethod
    async def wish(self, fault: Fault) -> str:
        """What people ask for: all other kinds; raises Trouble when it is refused."""

    @abc.abstractmethod
    async def phase(self) -> str:
        """What the controller is at."""

    @abc.abstractmethod
    async def end_faults(self) -> None:
        """See to it that all go on."""

    # -- what happens -----------------------------------------------------------------------

    async def befall(self, fault: Fault) -> None:
        """Do it if there is somebody whom it can befall."""
        phase = await self.phase()
        try:
            whom = await self._whom(fault)
        except Trouble as error:
            self.tell(f"{fault.kind}: {error}")
            return
        if not whom:
            self.tell(f"{fault.kind}: befalls nobody, while {phase}")
            return
        self.tell(f"{fault.kind}: {whom} (lasts {fault.lasts}), while {phase}")
        self.counts[fault.kind] += 1
        if fault.kind in self.faults:
            self.under_way[phase] += 1
            self.last_kind = fault.kind

    async def _whom(self, fault: Fault) -> str:
        work, since_ms = self.does().get(fault.kind, self.wish), now_ms()
        while not (whom := await work(fault)) and now_ms() - since_ms < self.patience_ms(
            fault.kind
        ):
            await asyncio.sleep(POLL_S)
        return whom

    def patience_ms(self, kind: str) -> int:
        """How long somebody is looked for whom it may befall."""
        del kind
        return 0

    async def undone(self) -> None:
        """Wait until what lasts has ended."""
        await asyncio.gather(*self._undoing)
        await self.end_faults()

    def tell(self, sentence: str) -> None:
        self.told.append(f"{now_ms() - self.began_ms:>7} ms  {sentence}")

    def meanwhile(self, work: Coroutine[None, None, None]) -> None:
        """Something that lasts."""
        self._undoing.append(asyncio.create_task(work))

    def later(self, wait_ms: int, undo: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(wait_ms / 1000)
            undo()

        self.meanwhile(wait())

    # -- choosing ---------------------------------------------------------------------------

    def pick(self, fault: Fault, candidates: Sequence[Candidate]) -> Candidate | None:
        return candidates[int(fault.pick * len(candidates))] if candidates else None

    def in_step(self, nodes: Iterable[Seen], master: Seen) -> bool:
        """Whether another node has all that this master has.

        A replica that has just copied gets no more before its master hears its acknowledgement,
        up to a second later: until then it has got no more than it acknowledged.
        """
        return any(
            node.shard == master.shard
            and node.link_up
            and (node.offset == master.offset or node.offset not in master.acked)
            and node.master == master.record.address
            and node.name not in self.ending
            for node in nodes
            if not node.is_master
        )

    def copied(self, nodes: Sequence[Seen], node: Seen) -> bool:
        """Whether the data outlives the loss of this one's."""
        if node.is_master:
            return self.in_step(nodes, node)
        return any(
            master.record.address == node.master and master.name not in self.ending
            for master in nodes
            if master.is_master
        )

    def masters_of(self, nodes: Iterable[Seen], node: Seen) -> list[Seen]:
        """Who serves the shard of the node that was hit."""
        return [other for other in nodes if other.is_master and other.shard == node.shard]

    # -- noting -----------------------------------------------------------------------------

    def all_keys_in(self, nodes: Iterable[Seen]) -> frozenset[str]:
        """Of clients and ballast."""
        return keys_in((*self.keys, *self.ballast), nodes)

    def take(self, master: Seen, before_ms: int, cause: Cause = Cause.FORCED) -> Taken:
        """Right before a master ends: what only it has is gone, or hidden by its heir's copy."""
        at_ms, hit = now_ms(), self.all_keys_in([master])
        taken = Taken(cause, hit, at_ms, at_ms - before_ms)
        self.taken.append(taken)
        self.hits.append(Hit(master.shard, hit, at_ms))
        return taken

    def ends(self, nodes: Iterable[Seen], node: Seen) -> Taken | None:
        """The same for any node; a replica's end takes nothing."""
        if not node.is_master:
            return None
        in_step = self.in_step(nodes, node)
        return self.take(node, TAIL_MS if in_step else self.behind_ms(node.shard))

    def behind_ms(self, shard: str) -> int:
        """By how much a replica may be behind that takes over although it isn't in step."""
        del shard
        return STALE_MS

    def await_write(self, fault: Fault, nodes: Iterable[Seen], within_ms: int = 0) -> None:
        """Look later how long it took until the first write to one of these nodes' slots."""
        if keys := keys_in(self.keys, nodes):
            self.awaited.append(Awaited(fault.kind, now_ms(), keys, within_ms=within_ms))

    def await_gateway(self, fault: Fault) -> None:
        """The same for any write through the gateway."""
        keys = frozenset(self.keys)
        self.awaited.append(Awaited(fault.kind, now_ms(), keys, through_gateway=True))
