"""The simulated cluster: gossip, votes, lagging copies, and what the controller asks of nodes.

It extends the paper cluster of `tests/scenarios/paper.py`: the actions and what the controller
sees are its; time, packets (see `gossip.py`), elections and data are new. Deterministic: all
chance comes from one seed, and nothing looks at a clock.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from shardcluster import actions
from shardcluster.actions import FailoverMode
from shardcluster.observed import Role
from shardcluster.slots import SlotSet
from tests.chaos.copying import CopyingCluster
from tests.chaos.gossip import GossipCluster
from tests.chaos.losses import Losses
from tests.chaos.model_node import ModelNode
from tests.scenarios.paper import REJOIN_DELAY_MS
from tests.scenarios.paper_actions import STEPWISE_SLOTS, move_at_once, retarget_open_slots
from tests.scenarios.paper_actions import steps as paper_steps
from tests.scenarios.paper_node import PaperNode, Process, slot_of_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shardcluster.observed import Address, NodeView, ObservedNode

__all__ = ["BEAT_MS", "ActionFailed", "ModelCluster"]

BEAT_MS = 100
CONTROLLER_ISLAND = 0
PAUSE_MS = 5_000  # a master that hands over holds its clients' writes at most so long
ELECTION_DELAY_MS = 500
RETRY_TIMEOUTS = 4  # between two elections of one replica
VALIDITY_FACTOR = 10  # cluster-replica-validity-factor


class ActionFailed(Exception):
    """A node or the executor refused, or did not answer; the loop looks again."""


@dataclass(slots=True)
class ModelCluster(CopyingCluster):
    """The world that `decide` is let loose on."""

    losses: Losses = field(default_factory=Losses)
    elections: int = 0
    promotions: int = 0
    ungated: bool = False  # a mutant's: slots are closed without counting their keys
    next_beat_ms: int = 0
    slice_slots: int = 3_000
    outdated: set[str] = field(default_factory=set)  # nodes that run in yesterday's form

    # -- nodes ------------------------------------------------------------------------------

    def new_node(self, name: str, address: Address) -> PaperNode:
        """A blank node."""
        shard, _, ordinal = name.rpartition("-")
        node = ModelNode(name, shard, int(ordinal), address, self.new_id())
        old = cast("ModelNode | None", self.nodes.get(name))
        node.island = old.island if old is not None else CONTROLLER_ISLAND
        node.begin_stream(self.new_stream())
        return node

    def answers(self, node: PaperNode) -> bool:
        """Whether the controller's commands get through to it."""
        seen = cast("ModelNode", node).island == CONTROLLER_ISLAND
        return node.running and not node.loading and seen

    def end(self, name: str) -> None:
        """The process ends."""
        node = cast("ModelNode", self.nodes[name])
        if node.process is Process.ENDED:
            return
        if node.process is Process.RUNNING:
            self.note_life(node)
        node.last_data = dict(node.data)
        for waiting in (node.inbox, node.unread, node.buffered):
            waiting.clear()
        node.paused_until_ms = node.election_ms = 0
        super(GossipCluster, self).end(name)

    def hang(self, name: str) -> None:
        """SIGSTOP."""
        node = cast("ModelNode", self.nodes[name])
        self.note_life(node)
        super(GossipCluster, self).hang(name)

    def begin(self, name: str, *, fresh: bool = False) -> None:
        """It starts: it knows its old friends, and counts their silence from now."""
        node = cast("ModelNode", self.nodes[name])
        if node.process is not Process.ENDED or node.pending:
            return
        self.outdated.discard(name)
        super(GossipCluster, self).begin(name, fresh=fresh)
        node = cast("ModelNode", self.nodes[name])
        node.stream = 0  # another process's history is another
        node.begin_stream(self.new_stream())
        for peer_id, line in list(node.lines.items()):
            node.lines[peer_id] = dataclasses.replace(
                line, pong_ms=self.now_ms, flags=line.flags - {"fail", "fail?"}, link_up=False
            )

    def hand_over(self, source: PaperNode, target: PaperNode, keys: set[int]) -> None:
        """MIGRATE: it may be cut off before the target has them, or before the source deletes."""
        one, two = cast("ModelNode", source), cast("ModelNode", target)
        if not self.reaches(one, two) or self.lost():
            return
        moving = sorted(keys & one.keys)
        for key in moving:
            two.put(key, one.data[key])
            self.losses.arrived_ms.update(dict.fromkeys(one.data[key], self.now_ms))
        if not self.lost():
            one.drop(set(moving))

    def counted_zero(self, source: PaperNode, slot: int) -> bool:
        """The gate."""
        return self.ungated or not source.keys_in(slot)

    def replicated(self, target: PaperNode) -> bool:
        """WAIT."""
        master = cast("ModelNode", target)
        master.sent_offset = master.offset
        for node in self.model_nodes():
            if node.master_id == master.node_id and node.link_up:
                self.copy_on(node)
                if node.offset != master.offset:
                    return False
        return True

    # -- time -------------------------------------------------------------------------------

    def tick(self, passed_ms: int) -> None:
        """Time passes."""
        until_ms = self.now_ms + passed_ms
        while True:
            self.now_ms = min(until_ms, max(self.now_ms, self.next_beat_ms))
            self.deliver()
            if self.now_ms >= self.next_beat_ms:
                self.next_beat_ms = self.now_ms + BEAT_MS
                self._beat()
            if self.now_ms >= until_ms:
                return

    def _beat(self) -> None:
        self.gossip()
        for node in self.model_nodes():
            if node.process is Process.HUNG:
                self.buffer(node)
            if node.running:
                if not self.majority(node):
                    node.serves_from_ms = max(node.serves_from_ms, self.now_ms + REJOIN_DELAY_MS)
                if node.role is Role.REPLICA:
                    self.copy_on(node)
                    self._stand(node)
        for node in self.model_nodes():
            node.sent_offset = node.offset

    # -- elections --------------------------------------------------------------------------

    def _stand(self, node: ModelNode) -> None:
        """A replica of a failed master stands for election, the freshest first."""
        line = node.lines.get(node.master_id or "")
        if line is None or "fail" not in line.flags or not line.slots or not node.offset:
            node.election_ms = 0
            return
        valid_ms = self.node_timeout_ms * VALIDITY_FACTOR
        if not node.link_up and (node.link_down_since_ms is None
                                 or self.now_ms - node.link_down_since_ms > valid_ms):  # fmt: skip
            return
        if not node.election_ms:
            rank = sum(other.master_id == node.master_id and other.offset > node.offset
                       for other in self.model_nodes())  # fmt: skip
            wait_ms = ELECTION_DELAY_MS + int(self.chance.random() * 500) + 1_000 * rank
            node.election_ms = self.now_ms + wait_ms
        elif self.now_ms >= node.election_ms:
            node.election_ms = self.now_ms + 2 * self.node_timeout_ms
            master, held = self._deposed(node)
            if self._elected(node, force=False):
                self.losses.elected(node, master, held)
                self._promote(node, node.known_epoch)

    def _deposed(self, heir: ModelNode) -> tuple[ModelNode | None, dict[int, tuple[int, ...]]]:
        """The master whose place it takes, and all that it held."""
        master = cast("ModelNode | None", self.by_id(heir.master_id))
        if master is None:
            return None, {}
        gone = master.process is Process.ENDED and not self.storage
        return master, master.last_data if gone else master.data

    def _elected(self, heir: ModelNode, *, force: bool) -> bool:
        """Ask every master for its vote; `force`: they give it though they don't see a failure."""
        self.elections += 1
        about = heir.lines.get(heir.master_id or "")
        if about is None or not about.slots:
            return False  # the engine holds no election for a master without slots
        if self.now_ms < heir.campaign_ms:
            return False
        heir.campaign_ms = self.now_ms + RETRY_TIMEOUTS * self.node_timeout_ms
        heir.known_epoch += 1
        epoch, votes, masters = heir.known_epoch, 0, 0
        for peer_id, line in heir.lines.items():
            if not line.slots:
                continue
            masters += 1
            voter = self.at(line.address)
            if voter is not None and voter.node_id == peer_id and self.reaches(heir, voter):
                lost = self.lost() or self.lost()
                votes += not lost and self._votes(voter, heir, epoch, force=force)
        return votes * 2 > masters

    def _votes(self, voter: ModelNode, heir: ModelNode, epoch: int, *, force: bool) -> bool:
        if epoch < voter.known_epoch:
            return False
        voter.known_epoch = epoch
        master_id = heir.master_id or ""
        line, about = voter.lines.get(heir.node_id), voter.lines.get(master_id)
        if not voter.slots or epoch <= voter.voted_epoch or line is None:
            return False
        if line.master_id != master_id:
            return False
        failed = about is not None and "fail" in about.flags
        if not (failed or force):
            return False
        if self.now_ms - voter.voted_ms.get(master_id, 0) < 2 * self.node_timeout_ms:
            return False
        claim = heir.lines[master_id]
        newer = any(
            other.slots & claim.slots and other.config_epoch > claim.config_epoch
            for other in voter.lines.values()
        )
        if newer or (voter.node_id != master_id and voter.slots & claim.slots
                     and voter.epoch > claim.config_epoch):  # fmt: skip
            return False
        voter.voted_epoch, voter.voted_ms[master_id] = epoch, self.now_ms
        return True

    def _promote(self, heir: ModelNode, epoch: int) -> None:
        old_id = heir.master_id
        assert old_id is not None
        self.promotions += 1
        heir.slots = heir.lines[old_id].slots
        heir.role, heir.master_id, heir.epoch = Role.MASTER, None, epoch
        heir.known_epoch = max(heir.known_epoch, epoch)
        heir.link_up, heir.syncing, heir.election_ms, heir.campaign_ms = True, False, 0, 0
        heir.replaced.add(old_id)
        heir.begin_stream(self.new_stream())
        heir.lines[old_id] = dataclasses.replace(heir.lines[old_id], slots=SlotSet())
        retarget_open_slots(self, heir, old_id)
        self.tell_all(heir)

    def _observed(self, node: PaperNode) -> ObservedNode:
        seen = super(GossipCluster, self)._observed(node)
        return dataclasses.replace(seen, outdated=node.name in self.outdated)

    def _view(self, node: PaperNode) -> NodeView:
        view = super(GossipCluster, self)._view(node)
        known = cast("ModelNode", node).known_epoch
        now, before = (str(stream or "") for stream in cast("ModelNode", node).streams)
        return dataclasses.replace(view, current_epoch=known, history=now, history_before=before)

    # -- what the controller asks for -------------------------------------------------------

    def steps(self, action: actions.Action) -> Iterator[str]:
        """The sub-steps of an action; raises ActionFailed."""
        for name in _asked(action):
            if not self.answers(self._node(name)):
                message = f"{name} does not answer"
                raise ActionFailed(message)
        match action:
            case actions.Failover():
                yield from self._fail_over(action)
            case actions.MoveSlots():
                yield from self._move(action)
            case actions.AddSlots(gifts):
                yield from self._add_slots(gifts)
            case actions.ReplaceNode(name):
                self.end(name)
                yield "ended"
                self.begin(name)
                yield "begun"
            case actions.DropLeftovers(name):
                node = self._node(name)
                self._check_no_part(node)
                node.drop(set(node.keys))
                yield "erased"
            case _:
                self._look_first(action)
                yield from paper_steps(self, action)

    def _look_first(self, action: actions.Action) -> None:
        """What the executor or the engine checks right before it can't be undone."""
        match action:
            case actions.ResetNode(name):
                self._check_empty(self._node(name))
            case actions.Replicate(name):
                node = self._node(name)
                if node.role is Role.MASTER and (node.slots or node.keys):
                    message = f"{name} is not empty"
                    raise ActionFailed(message)
            case actions.Release(_, names):
                for name in names:
                    if self.answers(self._node(name)):
                        self._check_empty(self._node(name))
            case actions.Fence(name):
                node = self._node(name)
                if not self.answers(node) and not self.storage:
                    self.losses.ended(node)
            case _:
                pass

    def _node(self, name: str) -> ModelNode:
        if name not in self.nodes:
            message = f"{name} is not there any more"
            raise ActionFailed(message)
        return cast("ModelNode", self.nodes[name])

    def _check_empty(self, node: ModelNode) -> None:
        if node.slots or node.importing or (node.role is Role.MASTER and node.keys):
            message = f"{node.name} is not empty"
            raise ActionFailed(message)

    def _check_no_part(self, node: ModelNode) -> None:
        if node.slots or node.importing or node.migrating or node.role is not Role.MASTER:
            message = f"{node.name} owns or moves slots, or follows a master"
            raise ActionFailed(message)

    def _add_slots(self, gifts: tuple[tuple[str, SlotSet], ...]) -> Iterator[str]:
        """ADDSLOTSRANGE: a node refuses slots that have an owner in its own eyes."""
        for name, slots in gifts:
            node = self._node(name)
            busy = node.slots | SlotSet()
            for line in node.lines.values():
                busy |= line.slots
            if busy & slots or not self.answers(node):
                message = f"{name} says that slots are busy"
                raise ActionFailed(message)
            node.slots |= slots
            yield f"gave {name}"

    def _fail_over(self, action: actions.Failover) -> Iterator[str]:
        heir = self._node(action.node)
        if heir.role is not Role.REPLICA:
            message = f"{heir.name} is a master"
            raise ActionFailed(message)
        if action.mode is FailoverMode.GRACEFUL:
            yield from self._switch_over(heir)
            return
        others = self._other_heirs(heir)
        master, held = self._deposed(heir)
        if action.mode is FailoverMode.FORCE and self._elected(heir, force=True):
            self.losses.promoted(heir, master, held, others)
            self._promote(heir, heir.known_epoch)
        elif action.mode is FailoverMode.TAKEOVER or action.takeover_if_refused:
            yield "refused"
            others = self._other_heirs(heir)
            master, held = self._deposed(heir)
            if heir.master_id is None or not self.answers(heir):
                return  # elected meanwhile, or out of reach
            if master is None or master.process is Process.ENDED:
                self.losses.promoted(heir, master, held, others)
                self.losses.unknown_reigns(heir, master, self.led)
            self._promote(heir, self.next_epoch(heir))
        yield "became master"

    def _other_heirs(self, heir: ModelNode) -> list[ModelNode]:
        return [
            node
            for node in self.model_nodes()
            if node is not heir and self.answers(node) and not node.syncing
            and node.master_id == heir.master_id
            and (node.link_up or node.link_down_since_ms is not None)
        ]  # fmt: skip

    def _switch_over(self, heir: ModelNode) -> Iterator[str]:
        """CLUSTER FAILOVER: the master holds its writes, the replica catches up and is elected."""
        master = self.source_of(heir)
        if master is None or not self.reaches(heir, master) or not heir.link_up or self.lost():
            message = f"{heir.name} does not reach its master"
            raise ActionFailed(message)
        if heir.stalled_until_ms > self.now_ms:
            message = f"{heir.name} does not catch up"
            raise ActionFailed(message)
        master.paused_until_ms = self.now_ms + PAUSE_MS
        yield "paused"
        if not self.reaches(heir, master) or heir.role is not Role.REPLICA or not heir.link_up:
            return
        master.sent_offset = master.offset
        self.copy_on(heir)
        if heir.offset != master.offset or not self._elected(heir, force=True):
            return
        self._promote(heir, heir.known_epoch)
        yield "became master"

    def _move(self, action: actions.MoveSlots) -> Iterator[str]:
        """Slots without keys go at once, the others (and a few) step by step."""
        moves = action.moves[: self.slice_slots]
        keyed = self._keyed()
        opened = {
            slot for node in self.model_nodes() for slot in (*node.migrating, *node.importing)
        }
        slow = [move for move in moves if move.slot in keyed or move.slot in opened]
        plain = [move for move in moves if move.slot not in keyed and move.slot not in opened]
        slow += plain[-STEPWISE_SLOTS // 4 :]
        ways: dict[tuple[str, str], list[actions.Move]] = {}
        for move in plain[: -STEPWISE_SLOTS // 4]:
            ways.setdefault((move.source, move.target), []).append(move)
        for (source, target), pair in ways.items():
            if source in self.nodes and target in self.nodes:
                # Clients have gone on writing: what isn't empty any more has its turn later.
                keyed = self._keyed()
                if still_plain := [move for move in pair if move.slot not in keyed]:
                    move_at_once(self, still_plain)
                    self.tell_all(self._node(target))
            yield "moved at once"
        if slow:
            yield from paper_steps(self, actions.MoveSlots(tuple(slow[:STEPWISE_SLOTS]), 0))

    def _keyed(self) -> set[int]:
        """Slots of which any node holds a key."""
        return {slot_of_key(key) for node in self.model_nodes() for key in node.keys}


def _asked(action: actions.Action) -> tuple[str, ...]:
    """Nodes that must answer, or the action can't begin."""
    match action:
        case actions.Introduce(hub):
            return (hub,)
        case (
            actions.ResetNode(name)
            | actions.Replicate(name)
            | actions.Failover(name)
            | actions.Configure(name)
            | actions.DropLeftovers(name)
            | actions.StabilizeSlot(name)
        ):
            return (name,)
        case actions.CloseEmptyImports(_, names):
            return names
        case _:
            return ()
