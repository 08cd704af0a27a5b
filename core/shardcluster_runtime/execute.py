"""Do one action: the bounded I/O that a Decision asks for.

Law: an action is checked against the node itself right before anything that can't be undone, is
safe to do twice, and raises ActionFailed with a sentence instead of going on by halves.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster import actions
from shardcluster.cluster_nodes import parse_cluster_nodes
from shardcluster.decide.settings import LOG_LEVEL, LOGS_USUALLY
from shardcluster.observed import Role
from shardcluster_runtime.migrate import LanePool, Pace, Peer, SliceResult, move_slots
from shardcluster_runtime.platforms.protocol import PlatformUnable
from shardcluster_runtime.wire import ConnectionLost, NodeConnection, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from shardcluster.observed import ObservedNode
    from shardcluster.picture import Picture
    from shardcluster_runtime.observe import Observer
    from shardcluster_runtime.platforms.protocol import Platform

__all__ = ["ActionFailed", "Executor"]

COMMAND_TIMEOUT_S = 2.0
LOGS_WHILE_MOVING = "warning"
SLICE_S = 2.0  # of moving slots, between two looks at the whole
VOTE_WAIT_S = 0.4  # FORCE: measured 10-14 ms; past this the vote was refused or lost
HANDOVER_WAIT_S = 2.0  # graceful: the replica has to catch up first
URGENT_WAIT_S = 0.5  # a verb of the platform goes on so long after a node's connection has ended
ROLE_POLL_S = 0.003
RANGES_PER_COMMAND_MAX = 8_192  # all there can be: whoever ends meanwhile got all or none


class ActionFailed(Exception):
    """The action could not be done now; the message is a sentence, the loop tries again."""


class Executor:
    """Carries out actions on the nodes of one platform."""

    def __init__(self, platform: Platform, observer: Observer, stop_moving: asyncio.Event) -> None:
        """`stop_moving` is set by the loop in the moment a node's connection ends."""
        self._platform = platform
        self._observer = observer
        self._stop_moving = stop_moving
        self._movers: dict[str, NodeConnection] = {}
        self._lanes = LanePool(platform.credentials)
        self.on_moved: Callable[[SliceResult], None] = lambda _result: None
        self.mark_rebalanced: Callable[[], None] = lambda: None

    async def execute(self, action: actions.Action, picture: Picture) -> None:
        """Do it; raises ActionFailed."""
        try:
            await self._execute(action, picture)
        except (NodeReplyError, ConnectionLost, Overloaded, PlatformUnable) as error:
            raise ActionFailed(str(error)) from error
        except TimeoutError as error:
            message = f"{type(action).__name__} took longer than it may."
            raise ActionFailed(message) from error
        except OSError as error:
            raise ActionFailed(str(error)) from error

    def rest(self) -> None:
        """Nothing is to be done now: end the connections that only moving needs."""
        self._lanes.close()

    async def close(self) -> None:
        """End the connections that moved slots."""
        for connection in self._movers.values():
            connection.close()
        self._movers.clear()
        self._lanes.close()

    async def _execute(self, action: actions.Action, picture: Picture) -> None:
        if not isinstance(action, actions.MoveSlots):
            self._lanes.close()
        match action:
            case actions.Wait():
                pass
            case actions.ScaleShard(shard, nodes):
                await self._unless_more_urgent(self._platform.scale_shard(shard, nodes))
            case actions.RestartNode(node, fresh):
                await self._unless_more_urgent(self._platform.restart(node, fresh=fresh))
            case actions.ReplaceNode(node):
                await self._unless_more_urgent(self._platform.replace(node))
            case actions.Fence(node):
                await self._platform.fence(node)
            case actions.MarkFormed():
                await self._platform.mark_formed()
            case actions.MarkRebalanced():
                self.mark_rebalanced()
            case actions.MoveSlots():
                await self._move(action, picture)
            case actions.Release():
                await self._release(action, picture)
            case actions.Failover():
                await self._failover(action)
            case _:
                await self._commands(action, picture)

    async def _commands(self, action: actions.Action, picture: Picture) -> None:
        """The actions that are a few commands each."""
        match action:
            case actions.Introduce(hub, nodes):
                await self._introduce(picture, hub, nodes)
            case actions.Forget(node_ids):
                await self._forget(picture, node_ids, leaving=())
            case actions.ResetNode(node):
                await self._check_empty(node)
                await self._reset(node)
            case actions.DropLeftovers(node):
                await self._drop_leftovers(node)
            case actions.AddSlots(gifts):
                await self._add_slots(gifts)
            case actions.Replicate(node, _, master_id):
                await self._call(node, "CLUSTER", "REPLICATE", master_id)
            case actions.StabilizeSlot(node, slots):
                for slot in slots:
                    await self._call(node, "CLUSTER", "SETSLOT", slot, "STABLE")
            case actions.CloseEmptyImports(slot, nodes):
                await self._close_empty_imports(slot, nodes)
            case actions.Configure(node, settings):
                for name, value in settings:
                    await self._call(node, "CONFIG", "SET", name, value)
            case _:
                message = f"no way to do {action!r}"
                raise TypeError(message)

    def _connection(self, node: str) -> NodeConnection:
        connection = self._observer.connection(node)
        if connection is None:
            message = f"There is no connection to {node}."
            raise ActionFailed(message)
        return connection

    async def _call(self, node: str, *command: str | int) -> Any:
        return await self._connection(node).call(*command, timeout_s=COMMAND_TIMEOUT_S)

    async def _add_slots(self, gifts: tuple[tuple[str, Any], ...]) -> None:
        for node, slots in gifts:
            ranges = slots.ranges()
            for start in range(0, len(ranges), RANGES_PER_COMMAND_MAX):
                bounds = [
                    bound
                    for pair in ranges[start : start + RANGES_PER_COMMAND_MAX]
                    for bound in pair
                ]
                await self._call(node, "CLUSTER", "ADDSLOTSRANGE", *bounds)

    async def _introduce(self, picture: Picture, hub: str, nodes: Sequence[str]) -> None:
        for node in nodes:
            address = _node(picture, node).address
            if address is not None:
                await self._call(hub, "CLUSTER", "MEET", address.host, address.port)

    async def _close_empty_imports(self, slot: int, nodes: tuple[str, ...]) -> None:
        keys = {node: await self._count_keys(node, slot) for node in nodes}
        holders = [node for node in nodes if keys[node]]
        if len(holders) > 1:
            names = " and ".join(holders)
            message = f"Slot {slot} has keys on {names}, which both import it: it is left alone."
            raise ActionFailed(message)
        for node in nodes:
            if node not in holders:
                await self._close_if_empty(node, slot)

    async def _close_if_empty(self, node: str, slot: int) -> None:
        """Closed first and counted then: until it is closed, clients may write there."""
        view = parse_cluster_nodes((await self._call(node, "CLUSTER", "NODES")).decode())
        sources = [entry.other_id for entry in view.importing if entry.slot == slot]
        await self._call(node, "CLUSTER", "SETSLOT", slot, "STABLE")
        if await self._count_keys(node, slot):
            for source in sources:
                await self._call(node, "CLUSTER", "SETSLOT", slot, "IMPORTING", source)
            message = f"Slot {slot} was written to at {node} meanwhile: it stays open there."
            raise ActionFailed(message)

    async def _count_keys(self, node: str, slot: int) -> int:
        return int(await self._call(node, "CLUSTER", "COUNTKEYSINSLOT", slot))

    async def _drop_leftovers(self, node: str) -> None:
        # FLUSHALL, for no other command reaches keys of slots that a node does not own.
        nodes = parse_cluster_nodes((await self._call(node, "CLUSTER", "NODES")).decode())
        myself = next(peer for peer in nodes.peers if "myself" in peer.flags)
        if myself.slots or nodes.importing or nodes.migrating or "master" not in myself.flags:
            message = f"{node} owns or moves slots, or follows a master: its keys are kept."
            raise ActionFailed(message)
        await self._call(node, "FLUSHALL", "ASYNC")

    async def _check_empty(self, node: str) -> None:
        """Raise ActionFailed unless the node owns no slot and, being a master, holds no key."""
        nodes = parse_cluster_nodes((await self._call(node, "CLUSTER", "NODES")).decode())
        myself = next(peer for peer in nodes.peers if "myself" in peer.flags)
        keys = await self._call(node, "DBSIZE")
        if myself.slots or nodes.importing or ("master" in myself.flags and keys):
            message = f"{node} owns {len(myself.slots)} slots and holds {keys} keys: it is kept."
            raise ActionFailed(message)

    async def _reset(self, node: str) -> None:
        """Make it blank; what it had copied before is taken off its disk, too.

        The engine refuses to reset a master that has keys, and empties the memory of a replica, but
        not its append-only file.  Started again, the node would read that: keys of slots without
        owners, as far as it knows then, so that it would claim them.
        """
        await self._call(node, "CLUSTER", "RESET", "HARD")
        await self._call(node, "FLUSHALL", "SYNC")

    async def _forget(
        self, picture: Picture, node_ids: tuple[str, ...], leaving: tuple[str, ...]
    ) -> None:
        """At every node that stays and answers; a node that knows nothing of them is fine."""
        for node in picture.answering:
            if node.name in leaving:
                continue
            connection = self._observer.connection(node.name)
            if connection is None:
                continue
            replies = await connection.calls(
                (("CLUSTER", "FORGET", node_id) for node_id in node_ids),
                timeout_s=COMMAND_TIMEOUT_S,
            )
            for reply in replies:
                if isinstance(reply, hiredis.ReplyError) and "Unknown node" not in str(reply):
                    message = f"{node.name} does not forget: {reply}"
                    raise ActionFailed(message)

    async def _release(self, action: actions.Release, picture: Picture) -> None:
        answering = {node.name: node for node in picture.answering}
        present = [answering[name] for name in action.nodes if name in answering]
        for node in present:
            await self._check_empty(node.name)
        # Replicas first: a replica of a reset master would follow nobody's data.
        present.sort(key=lambda node: node.view is not None and node.view.role is Role.MASTER)
        for node in present:
            await self._reset(node.name)
        await self._forget(picture, action.node_ids, leaving=action.nodes)
        await self._unless_more_urgent(self._platform.scale_shard(action.shard, action.keep))

    async def _unless_more_urgent(self, verb: Coroutine[Any, Any, None]) -> None:
        """Let the platform do it; a death meanwhile must not wait for a platform that hangs."""
        doing = asyncio.ensure_future(verb)
        interrupted = asyncio.ensure_future(self._stop_moving.wait())
        try:
            await asyncio.wait({doing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():  # often it is the node that we end just now
                await asyncio.wait({doing}, timeout=URGENT_WAIT_S)
        finally:
            interrupted.cancel()
            if not doing.done():
                doing.cancel()
        if doing.done():
            doing.result()
        else:
            message = "The platform did not answer yet when a node's connection ended."
            raise ActionFailed(message)

    async def _failover(self, action: actions.Failover) -> None:
        mode = (action.mode.value,) if action.mode.value else ()
        await self._call(action.node, "CLUSTER", "FAILOVER", *mode)
        graceful = action.mode is actions.FailoverMode.GRACEFUL
        if await self._became_master(action.node, HANDOVER_WAIT_S if graceful else VOTE_WAIT_S):
            return
        if action.takeover_if_refused:
            await self._call(action.node, "CLUSTER", "FAILOVER", "TAKEOVER")
            if await self._became_master(action.node, VOTE_WAIT_S):
                return
        message = f"{action.node} did not become master in time."
        raise ActionFailed(message)

    async def _became_master(self, node: str, wait_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + wait_s
        while asyncio.get_running_loop().time() < deadline:
            role = await self._call(node, "ROLE")
            if role[0] == b"master":
                return True
            await asyncio.sleep(ROLE_POLL_S)
        return False

    async def _move(self, action: actions.MoveSlots, picture: Picture) -> None:
        needed = {name for move in action.moves for name in (move.source, move.target)}
        masters = {}
        for node in picture.answering:
            assert node.view is not None
            if node.name in needed or node.view.role is Role.MASTER:
                masters[node.name] = Peer(
                    node.name, node.view.node_id, _address(node), await self._mover(node)
                )
        # Each node logs lines for each slot that changes hands: measured, 40 % of the time.
        chatty = [
            node.name
            for node in picture.answering
            if node.view is not None and dict(node.view.config).get(LOG_LEVEL) == LOGS_USUALLY
        ]
        self._set_log_level(chatty, LOGS_WHILE_MOVING)
        try:
            result = await move_slots(
                action.moves,
                masters,
                lanes=self._lanes,
                stop=self._stop_moving,
                pace=Pace(SLICE_S, action.keys_per_second),
            )
        finally:
            self._set_log_level(chatty, LOGS_USUALLY)
        self.on_moved(result)
        if result.failures:
            slot, sentence = result.failures[0]
            message = (
                f"{len(result.failures)} slots could not be moved now; slot {slot}: {sentence}"
            )
            raise ActionFailed(message)

    def _set_log_level(self, nodes: Sequence[str], level: str) -> None:
        """Ask for it and wait for nobody; where it is lost, `decide` sees it and sets it right."""
        for name in nodes:
            connection = self._observer.connection(name)
            if connection is None:
                continue
            with suppress(ConnectionLost, Overloaded):
                answer = connection.send("CONFIG", "SET", LOG_LEVEL, level)
                answer.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _mover(self, node: ObservedNode) -> NodeConnection:
        """A connection of its own for moving: MIGRATE and SETSLOT may hold one up for seconds."""
        connection = self._movers.get(node.name)
        address = _address(node)
        if connection is None or connection.closed or connection.address != address:
            connection = await NodeConnection.open(
                address, timeout_s=COMMAND_TIMEOUT_S, credentials=self._platform.credentials
            )
            self._movers[node.name] = connection
        return connection


def _node(picture: Picture, name: str) -> ObservedNode:
    return next(node for node in picture.observed.nodes if node.name == name)


def _address(node: ObservedNode) -> Any:
    assert node.address is not None  # an answering node has one
    return node.address
