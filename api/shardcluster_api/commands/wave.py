"""Sends many commands at once, each to the node of its slot, and gathers the answers.

Everything that can go out now goes out in one event-loop tick, so as one write for each node; the
replies of one connection come in their order, so waiting for the last is waiting for all.  No task
and no callback for a single command.  What the first try did not settle (redirects, passing
errors, a node that is silent or gone) is handed to the router, which knows every way to go on.

Law: commands of one slot take effect in their order.  If any of them writes, all of them go to the
master over one connection; and one that failed is not tried again once a later write of its slot
was applied: its error is its answer then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster.spec_model import Durability, ReadFrom
from shardcluster_api.commands.paths import Path, Paths
from shardcluster_api.commands.sync_token import is_seen
from shardcluster_api.durability import WAITS, reached
from shardcluster_api.errors import ApiError, EngineRefused, NotServed
from shardcluster_api.limits import CONNECT_TIMEOUT_S, HEDGE_AFTER_S, REQUEST_DEADLINE_S
from shardcluster_api.links import NotReached
from shardcluster_api.router import PASSING, Reply
from shardcluster_runtime.wire import ConnectionLost, Overloaded

if TYPE_CHECKING:
    from shardcluster_api.links import NodeLink
    from shardcluster_api.router import Router
    from shardcluster_api.slot_map import ShardRoute
    from shardcluster_runtime.wire import NodeConnection

__all__ = ["How", "Part", "carry_out"]

_AGAIN = PASSING | {"MOVED", "ASK"}
_UNSETTLED = object()  # the value of a part without an answer yet


@dataclass(frozen=True, slots=True)
class How:
    """What a request wants of all its commands."""

    strong: bool = False  # reads at the master
    durability: Durability = Durability.ASYNC
    seen: int = 0  # slots that are read at the master, as `sync_token` counts them


class Part:
    """One command for one slot; `value` is its reply or an `ApiError`."""

    __slots__ = ("packed", "place", "slot", "strong", "value", "writing")

    def __init__(self, slot: int, packed: bytes, writing: bool, strong: bool = False) -> None:  # noqa: FBT001, FBT002 - by position it is made in half the time, and a batch makes thousands
        """Not sent yet; `strong` reads at the master even if the others needn't."""
        self.slot = slot
        self.packed = packed
        self.writing = writing
        self.strong = strong
        self.place: Reply | None = None  # where the answer came from
        self.value: Any = _UNSETTLED

    @property
    def failed(self) -> bool:
        """Whether the value is an error."""
        return isinstance(self.value, ApiError)


async def carry_out(router: Router, parts: list[Part], how: How) -> None:
    """Fill in every part's value; raises nothing."""
    wave = _Wave(router, how)
    if len(parts) == 1:
        await wave.alone(parts[0])
    elif parts:
        await wave.run(parts)


class _Wave:
    def __init__(self, router: Router, how: How) -> None:
        self._router = router
        self._how = how
        self._map = router.topology.map
        self._loop = asyncio.get_running_loop()
        self._deadline_s = self._loop.time() + REQUEST_DEADLINE_S
        self._strong = how.strong or router.policy.read_from is ReadFrom.MASTER
        self._written: frozenset[int] = frozenset()  # slots
        self._paths = Paths()
        self._borrowed: list[tuple[NodeLink, NodeConnection]] = []

    async def run(self, parts: list[Part]) -> None:
        self._written = frozenset(part.slot for part in parts if part.writing)
        try:
            if self._how.durability is not Durability.ASYNC:
                await self._borrow()
            self._send(parts)
            await self._wait()
            self._settle()
        finally:
            for link, connection in self._borrowed:
                link.give_back(connection)
        await self._finish([part for part in parts if part.value is _UNSETTLED], parts)

    # -- out ------------------------------------------------------------------------------

    def _send(self, parts: list[Part]) -> None:
        self._choose(parts)
        wait = WAITS[self._how.durability]
        for path in self._paths.all():
            if not path.parts:
                continue
            path.writing = any(part.writing for part in path.parts)
            try:
                packed = b"".join([part.packed for part in path.parts])
                path.volley = path.connection.send_many(packed, len(path.parts))
                if wait is not None and path.writing:
                    path.waited = path.connection.send(*wait)
            except (ConnectionLost, Overloaded):
                continue  # what was not sent stays unsettled

    def _choose(self, parts: list[Part]) -> None:
        """Which path each part takes; without one that is open it is left to the router."""
        now_s = self._loop.time()
        owners, written, paths = self._map.owners, self._written, self._paths
        must_look = written or self._strong or self._how.seen or now_s < self._map.quiet_from_s
        for part in parts:
            slot = part.slot
            route = owners[slot]
            if route is None:
                continue
            if part.strong or (
                must_look and (slot in written or self._must_be_strong(slot, now_s))
            ):
                path = paths.master(route)
            else:
                path = paths.reader(route, now_s)
            if path is not None:
                path.parts.append(part)

    def _must_be_strong(self, slot: int, now_s: float) -> bool:
        return (
            self._strong
            or self._map.is_moving(slot, now_s)
            or self._map.is_settling(slot, now_s)
            or is_seen(self._how.seen, slot)
        )

    async def _borrow(self) -> None:
        """WAIT holds up a connection, so each master's writes and their WAIT get one of their own.

        A node that has none to lend is left to the router.
        """
        routes = {self._map.owners[slot] for slot in self._written} - {None}

        async def one(route: ShardRoute) -> None:
            link = route.master
            self._paths.set_master(route, None)
            if link.suspect:
                return
            try:
                connection = await link.borrow(CONNECT_TIMEOUT_S)
            except NotReached:
                return
            self._borrowed.append((link, connection))
            self._paths.set_master(route, Path(link, connection, route, "master"))

        await asyncio.gather(*(one(route) for route in routes if route is not None))

    # -- back -----------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until every node has answered, or for reads so long that others should be asked."""
        writes: list[asyncio.Future[Any]] = []
        reads: list[asyncio.Future[Any]] = []
        for path in self._paths.all():
            if path.volley is not None:
                (writes if path.writing else reads).append(path.waited or path.volley.last)
        if reads:
            await asyncio.wait(reads, timeout=HEDGE_AFTER_S)
        pending = [future for future in writes if not future.done()]
        if pending:
            left_s = max(0.0, self._deadline_s - self._loop.time())
            await asyncio.wait(pending, timeout=left_s)

    def _settle(self) -> None:
        """Take the answers that are final; the other parts stay unsettled."""
        for path in self._paths.all():
            volley, place = path.volley, path.place
            if volley is None:
                continue
            if path.waited is not None:
                place.acked = _acked(path.waited)
            replies = volley.replies()
            checked = path.writing and self._how.durability is not Durability.ASYNC
            for part, value in zip(path.parts, replies, strict=False):
                part.place, part.value = place, value
                if isinstance(value, hiredis.ReplyError):
                    self._take_error(part, str(value), path)
                elif checked and part.writing:
                    self._check_reached(part, place)
            if len(replies) < len(path.parts):
                self._take_silence(path.parts[len(replies) :], volley.lost(), path)

    def _take_silence(self, parts: list[Part], lost: BaseException | None, path: Path) -> None:
        """No reply came: what was written has an unknown fate, what was read is asked for anew."""
        assert lost is None or isinstance(lost, ConnectionLost)
        if lost is None and path.place.role == "replica":
            path.link.leave_out(self._loop.time())
        for part in parts:
            if part.writing and (lost is None or lost.sent):
                part.value = self._router.unknown(path.link, lost)

    def _take_error(self, part: Part, message: str, path: Path) -> None:
        if message.split(" ", 1)[0] in _AGAIN:
            part.value = _UNSETTLED
        else:
            part.value = EngineRefused(path.link.name, message, writing=part.writing)

    def _check_reached(self, part: Part, reply: Reply) -> None:
        try:
            reached(self._how.durability, reply, part.slot)
        except ApiError as error:
            part.value = error

    # -- what is left ----------------------------------------------------------------------

    async def _finish(self, left: list[Part], parts: list[Part]) -> None:
        """Through the router: slots side by side, the commands of one slot one by one."""
        if not left:
            return
        by_slot: dict[int, list[Part]] = {}
        for part in left:
            by_slot.setdefault(part.slot, []).append(part)
        overtaken = self._overtaken(parts)

        async def in_order(waiting: list[Part]) -> None:
            for part in waiting:
                if part in overtaken:
                    message = "It was not carried out, and a later command of its slot was."
                    part.value = NotServed(message, writing=part.writing)
                else:
                    await self.alone(part)

        await asyncio.gather(*map(in_order, by_slot.values()))

    @staticmethod
    def _overtaken(parts: list[Part]) -> set[Part]:
        """Open ones with a later write of their slot that was, or may have been, applied."""
        found: set[Part] = set()
        applied: set[int] = set()
        for part in reversed(parts):
            if part.value is _UNSETTLED:
                if part.slot in applied:
                    found.add(part)
            elif part.writing and not isinstance(part.value, EngineRefused):
                applied.add(part.slot)
        return found

    async def alone(self, part: Part) -> None:
        """One command by the router's own ways."""
        router, how = self._router, self._how
        try:
            if part.writing:
                wait = WAITS[how.durability]
                reply = await router.write(
                    part.slot, part.packed, wait, deadline_s=self._deadline_s
                )
            else:
                strong = self._strong or part.strong or part.slot in self._written
                strong = strong or is_seen(how.seen, part.slot)
                reply = await router.read(
                    part.slot, part.packed, strong=strong, deadline_s=self._deadline_s
                )
        except ApiError as error:
            part.value = error
        else:
            part.value, part.place = reply.value, reply
            if part.writing:
                self._check_reached(part, reply)


def _acked(waited: asyncio.Future[Any]) -> int | str:
    """What WAIT or WAITAOF said of the writes before it."""
    if not waited.done():
        return "no answer in time"
    if waited.exception() is not None:
        return str(waited.exception())
    answer = waited.result()
    if isinstance(answer, list):  # WAITAOF: local, then replicas
        return int(answer[0])
    return str(answer) if isinstance(answer, hiredis.ReplyError) else int(answer)
