"""The control loop: observe, decide, execute one bounded action, report; then again.

Law: nothing is kept here that a follower could not read from the nodes, the platform and the
desired spec; progress and events are for people only.  The end of any node's connection wakes
the loop and stops a slice of moves, so that a death is looked at within milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import hiredis

from shardcluster import edits
from shardcluster.actions import Decision, MoveSlots, Reason, Wait
from shardcluster.decide import decide_on
from shardcluster.decide.settings import wanted_settings
from shardcluster.decide.timing import IDLE_S, SOON_S
from shardcluster.picture import Picture, draw
from shardcluster.preview import preview
from shardcluster.spec import Spec, parse
from shardcluster_runtime.control import Accepted
from shardcluster_runtime.execute import ActionFailed, Executor
from shardcluster_runtime.metrics import LoopCounts, StoreView, exposition
from shardcluster_runtime.observe import Observer
from shardcluster_runtime.platforms.protocol import PlatformUnable
from shardcluster_runtime.report import parts
from shardcluster_runtime.state import EventLog, ProgressMeter, StateBoard, assemble
from shardcluster_runtime.wire import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.actions import Action
    from shardcluster.slots import SlotSet
    from shardcluster_runtime.migrate import SliceResult
    from shardcluster_runtime.platforms.protocol import Platform

__all__ = ["GLANCE_S", "STARTING", "Controller", "DesiredSpec", "Rhythm"]

STARTING = "Starting"  # the reason of the state before the first look

RETRY_S = 0.5  # after an action that failed, unless something wakes the loop
COUNT_TIMEOUT_S = 2.0  # for counting the keys of a plan
GLANCE_S = 1.0  # between two short questions while nothing happens
WAITED_SHARE = 0.05  # of what a wait has lasted, looked at again: a long one is not polled

Document = dict[str, Any]
_log = logging.getLogger(__name__)


class DesiredSpec(Protocol):
    """Where the loop reads what is wanted; the changes people ask of *it* are written there."""

    @property
    def document(self) -> Document:
        """The desired spec, valid."""
        ...

    @property
    def generation(self) -> int:
        """Of the spec by which everything besides the nodes is made; it rises with each change."""
        ...

    @property
    def rebalance_wanted(self) -> bool:
        """Whether a rebalance was asked for that is not done."""
        ...

    def mark_rebalanced(self) -> None:
        """Every rebalance asked for so far is done."""
        ...

    def edit(self, document: Document) -> None:
        """A change made through the API."""
        ...

    def apply(self, document: Document) -> None:
        """A whole document from a user."""
        ...

    def request_rebalance(self) -> int:
        """Note that somebody asked for a rebalance."""
        ...


class Rhythm(NamedTuple):
    """How often a store is looked at while nothing happens, s."""

    look_around_s: float = IDLE_S  # at all of it
    glance_s: float = GLANCE_S  # one node is asked in between whether it sees any change


class Controller:
    """One store's loop, and the changes of its desired state that people ask for."""

    def __init__(
        self,
        platform: Platform,
        desired: DesiredSpec,
        *,
        clock: Callable[[], float] = time.time,
        before_action: Callable[[Decision], None] = lambda _decision: None,
        rhythm: Callable[[], Rhythm] = Rhythm,
    ) -> None:
        """`clock` gives Unix time, s; `before_action` is told of each action about to be done.

        `rhythm` is asked how often to look while nothing happens.
        """
        self._platform = platform
        self._desired = desired
        self._clock = clock
        self._before_action = before_action
        self._rhythm = rhythm
        self._waiting: tuple[str, float] = ("", 0.0)  # for what, since when (monotonic, s)
        self._wake = asyncio.Event()
        self._stop_moving = asyncio.Event()
        self._editing = asyncio.Lock()  # an edit is planned between reading the spec and writing it
        self._observer = Observer(platform, self._woken_by_node, clock=clock)
        self._executor = Executor(platform, self._observer, self._stop_moving)
        self._executor.on_moved = self._moved
        self._executor.mark_rebalanced = desired.mark_rebalanced
        self.events = EventLog(clock)
        self.counts = LoopCounts()
        self._progress: ProgressMeter | None = None
        self._picture: Picture | None = None
        self._last_told: tuple[str, str] | None = None
        self._last_action: Action | None = None
        self._task: asyncio.Task[None] | None = None
        self.board = StateBoard({"cluster": self._spec().name, "phase": "Forming",
                                 "reason": STARTING, "message": "Starting.", "healthy": True,
                                 "spec": desired.document, "generation": desired.generation,
                                 "shards": [], "nodes": [], "progress": None,
                                 "spare_nodes": None, "notes": [], "events": []})  # fmt: skip

    async def start(self) -> None:
        """Begin; raises PlatformUnable when the platform can't."""
        await self._platform.start(self.wake)
        self._task = asyncio.create_task(self._run(), name="control-loop")

    async def stop(self, *, stop_nodes: bool) -> None:
        """End the loop; with `stop_nodes` the nodes too, their data on disk."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._executor.close()
        await self._observer.close()
        await self._platform.close(stop_nodes=stop_nodes)

    def wake(self) -> None:
        """Something may have changed: look now instead of later."""
        self._wake.set()

    # -- the loop ---------------------------------------------------------------------------

    def _woken_by_node(self) -> None:
        self._stop_moving.set()
        self._wake.set()

    def _spec(self) -> Spec:
        return parse(self._desired.document)

    async def _run(self) -> None:
        while True:
            began_s, result = time.monotonic(), "ok"
            try:
                wait_s = await self._pass()
            except PlatformUnable as error:
                self._tell("PlatformUnable", str(error))
                wait_s, result = RETRY_S, "platform_unable"
            except Exception:  # noqa: BLE001 - a bug must not end the loop that fails over
                _log.exception("a pass of the control loop failed")
                self._tell("InternalError", "A pass of the control loop failed; see the log.")
                wait_s, result = RETRY_S, "error"
            self.counts.passed(result, time.monotonic() - began_s, self._clock())
            await self._rest(wait_s)

    async def _rest(self, wait_s: float) -> None:
        """Until something happens, at most `wait_s`."""
        glance_s = self._rhythm().glance_s
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, glance_s)):
                    await self._wake.wait()
                    return
            if left_s > glance_s and not await self._observer.glance():
                return

    async def _pass(self) -> float:
        """Observe, decide, act, report once; returns how long to wait before the next pass, s."""
        self._wake.clear()
        spec, generation = self._spec(), self._desired.generation
        self._observer.settings = tuple(wanted_settings(spec))
        observed = await self._observer.observe(rebalance_asked=self._desired.rebalance_wanted)
        self._stop_moving.clear()  # what ended until now is in there; what ends from now on stops
        picture = draw(spec, observed)
        decision = decide_on(picture)
        self._picture = picture
        self._follow_progress(decision)
        self._tell_decision(decision)
        await self._publish(picture, decision, generation)
        if isinstance(decision.action, Wait):
            self._executor.rest()
            return self._patience_s(decision.action.seconds, decision)
        self._before_action(decision)
        try:
            await self._executor.execute(decision.action, picture)
        except ActionFailed as error:
            self.counts.failed(decision)
            self._tell("ActionFailed", str(error))
            return RETRY_S
        self.counts.acted(decision)
        # The engine needs a moment for what was just asked of it; asking again at once is no help.
        again, self._last_action = decision.action == self._last_action, decision.action
        if not again:
            self._waiting = ("", 0.0)
        return self._patience_s(SOON_S, decision) if again else 0.0

    def _patience_s(self, seconds: float, decision: Decision) -> float:
        """The longer one thing is waited for, the less often it is looked at."""
        now_s = time.monotonic()
        if self._waiting[0] != decision.sentence:
            self._waiting = (decision.sentence, now_s)
        if decision.reason in {Reason.IDLE, Reason.PAUSED}:
            return self._rhythm().look_around_s
        return min(IDLE_S, max(seconds, (now_s - self._waiting[1]) * WAITED_SHARE))

    def _tell_decision(self, decision: Decision) -> None:
        """Slices of one piece of moving are one event, though each counts what is left."""
        if isinstance(decision.action, MoveSlots) and self._last_told is not None:
            reason, _ = self._last_told
            if reason == decision.reason.value:
                return
        self._tell(decision.reason.value, decision.sentence)

    def _tell(self, reason: str, message: str) -> None:
        """An event, when it is another one than the last."""
        if (reason, message) != self._last_told:
            self._last_told = (reason, message)
            self.events.add(reason, message)

    def _follow_progress(self, decision: Decision) -> None:
        if not isinstance(decision.action, MoveSlots):
            self._progress = None
        elif self._progress is None:
            self._progress = ProgressMeter(
                decision.reason.value, len(decision.action.moves), time.monotonic()
            )
        else:
            self._progress.replanned(len(decision.action.moves))

    def _moved(self, result: SliceResult) -> None:
        self.counts.moved_slots += len(result.moved_slots)
        self.counts.moved_keys += result.moved_keys
        if self._progress is not None:
            self._progress.moved(len(result.moved_slots), result.moved_keys)
        for big in result.big_keys:
            self._tell("BigKey", f"Moved a big key alone: {big}.")

    async def _publish(self, picture: Picture, decision: Decision, generation: int) -> None:
        places = await self._platform.nodes()
        document = assemble(
            parts(
                picture,
                decision,
                events=self.events.documents(),
                progress=self._progress.document(time.monotonic()) if self._progress else None,
                process_ids={place.name: place.process_id for place in places},
            )
        )
        self.counts.saw(document)
        self.board.publish({**document, "generation": generation})

    # -- what people ask for (ControllerLike) -----------------------------------------------

    def state(self) -> Document:
        """The state document."""
        return self.board.document()

    def metrics(self) -> bytes:
        """For Prometheus, where this store is the only one of its process."""
        state = self.state()
        return exposition(
            lambda: [StoreView("", state["cluster"], self.counts, state)], "controller"
        )

    async def wait_state(self, since: int, wait_s: float) -> Document:
        """The state document once its version is not `since`, or after `wait_s`."""
        return await self.board.wait(since, wait_s)

    async def add_shard(self) -> Accepted:
        """One shard more; raises EditError."""
        async with self._editing:
            spec, name = edits.add_shard(self._spec())
            await self._check_spares(spec)
            return await self._change(spec, f"{name} is being added.", name)

    async def remove_shard(self, node: str) -> Accepted:
        """Drain and remove a shard, named by itself or by one of its nodes; raises EditError."""
        present = {shard.name for shard in self._picture.shards} if self._picture else set()
        async with self._editing:
            spec = self._spec()
            smaller = edits.remove_shard(spec, node, present=present)
            name = next(iter(set(spec.wanted_shards()) - set(smaller.wanted_shards())))
            return await self._change(smaller, f"{name} is being drained and removed.", name)

    async def rebalance(self) -> Accepted:
        """Move slots to where the ring wants them, once."""
        plan = await self._plan(self._spec())
        self._desired.request_rebalance()
        self._wake.set()
        moving = f"{plan['slots']} slots will move." if plan["slots"] else (
            "Every shard is within its share: no slot needs to move."
        )  # fmt: skip
        return Accepted(moving, None, plan)

    async def put_spec(self, document: Document) -> Accepted:
        """Replace the desired spec; raises SpecError."""
        spec = parse(document)
        async with self._editing:
            plan = await self._plan(spec)
            self._desired.apply(document)
        self._wake.set()
        self.events.add("SpecChanged", f"The spec was replaced: {spec.shards} shards wanted.")
        return Accepted("The spec is accepted.", None, plan)

    async def preview(self, document: Document) -> Document:
        """The plan that `put_spec` of this document would lead to; changes nothing."""
        return await self._plan(parse(document))

    async def kill(self, node: str, signal_name: str) -> None:
        """Send KILL, STOP or CONT to a node's process."""
        await self._platform.kill(node, signal_name)
        self.events.add("Signal", f"SIG{signal_name} was sent to {node} on request.")

    async def _check_spares(self, spec: Spec) -> None:
        spare = await self._platform.spare_nodes()
        needed = 1 + spec.replicas_per_shard
        if spare is not None and spare < needed:
            code = "NoSpareNode"
            raise edits.EditError(
                code,
                f"A new shard needs {needed} spare nodes and there are {spare}: start more first.",
            )

    async def _change(self, spec: Spec, message: str, name: str) -> Accepted:
        plan = await self._plan(spec)
        self._desired.edit(spec.document())
        self._wake.set()
        self.events.add("SpecChanged", message)
        return Accepted(message, name, plan)

    async def _plan(self, spec: Spec) -> Document:
        if self._picture is None:
            return {"slots": 0, "keys": 0, "moves": [], "start_nodes": [], "stop_nodes": []}
        picture = self._picture
        wanted = preview(picture, spec)
        moves = [
            {
                "from": source,
                "to": target,
                "slots": len(slots),
                "keys": await self._count_keys(picture, source, slots),
            }
            for source, target, slots in wanted.moves
        ]
        return {
            "slots": wanted.slots,
            "keys": sum(move["keys"] for move in moves),
            "moves": moves,
            "start_nodes": list(wanted.start_nodes),
            "stop_nodes": list(wanted.stop_nodes),
        }

    async def _count_keys(self, picture: Picture, shard: str, slots: SlotSet) -> int:
        """Keys in the slots, asked of the shard's master; 0 when it doesn't answer."""
        found = picture.shard(shard)
        master = found.master if found is not None else None
        connection = self._observer.connection(master.name) if master is not None else None
        if connection is None:
            return 0
        try:
            replies = await connection.calls(
                (("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots), timeout_s=COUNT_TIMEOUT_S
            )
        except (ConnectionLost, TimeoutError):
            return 0
        return sum(reply for reply in replies if not isinstance(reply, hiredis.ReplyError))
