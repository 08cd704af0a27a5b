"""One round: a formed store, faults, a controller, clients; then calm, then the checker.

Law: the same schedule gives the same round on every machine; nothing here looks at a clock.
"""

from __future__ import annotations

import functools
import pickle
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Reason, Wait
from shardcluster.decide import decide
from tests.chaos.befall import Befalls, spec_for
from tests.chaos.checker import Rule, Violation, check
from tests.chaos.clients import KEYS, Clients, value_of
from tests.chaos.history import Cause, Kind, Outcome, Readout
from tests.chaos.losses import Losses, numbers_of
from tests.chaos.model import BEAT_MS, ActionFailed, ModelCluster
from tests.scenarios.paper_actions import PaperViolation
from tests.scenarios.paper_checks import assert_shape
from tests.scenarios.paper_node import slot_of_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster.actions import Action
    from shardcluster.observed import Observed
    from shardcluster.spec import Spec
    from tests.chaos.model_node import ModelNode
    from tests.chaos.nemesis import Schedule, World

    Decider = Callable[[Spec, Observed], Decision]

__all__ = ["Plot", "Report", "play"]

CLIENT_PART = 0.7  # how often a client asks for something in a beat
REQUESTS_AFTER_MS = 3_000  # clients go on so long after the last fault
# FORGET bans for 60 s, a vote is refused for two timeouts after the last, a broken replication link
# may take 60 s to be noticed; twice that, and a reserve.
SETTLE_MS_MAX = 180_000
QUIET_MS = 3_000  # at rest so long: gossip has told all
STEP_MS_MAX = 30  # between two sub-steps of an action
FORMING_PASSES_MAX = 400
WAIT_MS = 300  # a wait lasts at least so long: what ends meanwhile wakes the loop


@dataclass(slots=True)
class Plot:
    """What a planted bug changes; the defaults change nothing."""

    decider: Decider = decide
    ungated: bool = False
    again: int = 0  # how often a client sends a write of unknown fate once more


@dataclass(slots=True)
class Report:
    """What came of a round."""

    schedule: Schedule
    violations: list[Violation]
    counts: Counter[str]  # faults and wishes by kind, as far as they could happen
    excused: Counter[Cause]  # acknowledged writes that a fault may have taken
    simulated_ms: int
    figures: Counter[str]
    reasons: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)


def play(schedule: Schedule, plot: Plot | None = None, *, tell: bool = False) -> Report:
    """Live the round and check it; `tell` keeps what happened in sentences."""
    return _Round(schedule, plot or Plot(), tell=tell).play()


def _blank(world: World, seed: int) -> ModelCluster:
    cluster = ModelCluster(
        storage=world.storage, replicas_know_open_slots=world.replicas_know_open_slots
    )
    cluster.chance = random.Random(seed)
    cluster.losses = Losses(keeps_data=world.storage, nodes=cluster.nodes)
    return cluster


@functools.lru_cache(maxsize=64)
def _formed(world: World) -> bytes:
    """A store of that kind at rest, made by the real `decide`; forming it takes long."""
    cluster, spec = _blank(world, 0), spec_for(world)
    for _ in range(FORMING_PASSES_MAX):
        decision = decide(spec, cluster.observe())
        if decision.reason is Reason.IDLE and _in_shape(cluster, spec) is None:
            return pickle.dumps(cluster)
        if not isinstance(decision.action, Wait):
            for _step in cluster.steps(decision.action):
                pass
        cluster.tick(WAIT_MS)
    message = f"{world} is not formed"
    raise AssertionError(message)


def _in_shape(cluster: ModelCluster, spec: Spec) -> str | None:
    """What the store lacks of its spec; None when nothing."""
    try:
        assert_shape(cluster, spec)
    except AssertionError as error:
        return str(error) or "the store is not in shape"
    return None


class _Round:
    """The state of one."""

    def __init__(self, schedule: Schedule, plot: Plot, *, tell: bool) -> None:
        self._plan, self._plot, self._telling = schedule, plot, tell
        self._cluster: ModelCluster = pickle.loads(_formed(schedule.world))  # noqa: S301 - our own
        self._cluster.chance = random.Random(schedule.seed)
        self._cluster.ungated = plot.ungated
        clients = Clients(self._cluster, random.Random(schedule.seed + 1), again=plot.again)
        self._clients = clients
        self._befalls = Befalls(self._cluster, clients, spec_for(schedule.world))
        self._look_ms = self._begun_ms = self._cluster.now_ms
        self._asking = True
        self._violations: list[Violation] = []
        self._last: Decision | None = None
        self._figures: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._told: list[str] = []

    def play(self) -> Report:
        cluster, befalls = self._cluster, self._befalls
        try:
            for fault in self._plan.faults:
                while cluster.now_ms < self._begun_ms + fault.at_ms:
                    self._beat()
                before = befalls.counts[fault.kind]
                befalls.happen(fault)
                if befalls.counts[fault.kind] > before:
                    self._tell(f"# {fault.kind} ({fault.pick:.3f}, {fault.lasts})")
                if befalls.woken:
                    befalls.woken, self._look_ms = False, cluster.now_ms
            sentence = self._settle()
        except PaperViolation as error:
            self._violations.append(Violation(Rule.OWNERS, "an action", str(error)))
            sentence = None
        readout = self._readout(sentence)
        history = self._clients.history
        history.excuses = cluster.losses.excuses
        self._violations += check(history, readout)
        return self._report()

    def _settle(self) -> str | None:
        """After the last fault: None when the spec was reached in time, else the last sentence."""
        cluster, spec = self._cluster, self._befalls.spec
        self._befalls.calm()
        self._tell("# calm")
        calm_ms, rested_ms = cluster.now_ms, 0
        why: str | None = "it took too long"
        while cluster.now_ms < calm_ms + SETTLE_MS_MAX:
            self._asking = cluster.now_ms < calm_ms + REQUESTS_AFTER_MS
            self._beat()
            if self._left_to_people():
                continue
            idle = self._last is not None and self._last.reason is Reason.IDLE
            if self._asking or not idle:
                rested_ms = 0
                continue
            rested_ms = rested_ms or cluster.now_ms
            if cluster.now_ms - rested_ms >= QUIET_MS:
                why = _in_shape(cluster, spec)
                if why is None:
                    return None
                rested_ms = 0
        return f"{why}; {self._last.sentence if self._last else ''}"

    def _left_to_people(self) -> bool:
        """Somebody reads what `decide` leaves to people, looks at the node, and empties it.

        Older engines: keys that others have by now.  A node without storage that hung until nobody
        of those it knew was left: its place is given to a blank one, or it is the store's own.
        """
        cluster, said = self._cluster, self._last.sentence if self._last is not None else ""
        nodes = cluster.model_nodes()
        for node in nodes:
            if not node.running or not said.startswith(f"{node.name} "):
                continue
            others = {key for other in nodes if other.slots and other is not node
                      for key in other.keys}  # fmt: skip
            if "let it CLUSTER MEET the others" in said:
                node.handshakes |= {other.address for other in nodes if other is not node}
            elif "it is not taken in" in said and not cluster.storage:
                cluster.end(node.name)
                cluster.begin(node.name, fresh=True)
            elif (
                "then FLUSHALL there" in said
                and (node.keys <= others or self._given_up(node, node.keys - others))
                and not (node.slots or cluster.replicas_know_open_slots)
            ):
                node.drop(set(node.keys))
            else:
                continue
            self._tell(f"# somebody looks after {node.name}")
            self._figures["left to people"] += 1
            return True
        return False

    def _given_up(self, node: ModelNode, keys: set[int]) -> bool:
        """Whether a fault may have taken all that is in those keys."""
        held = numbers_of({key: node.data[key] for key in keys})
        return all(
            any(number in excuse.numbers for excuse in self._cluster.losses.excuses)
            for number in held
        )

    def _beat(self) -> None:
        cluster = self._cluster
        until_ms = cluster.now_ms + BEAT_MS
        self._befalls.expire()
        self._request()
        if cluster.now_ms >= max(self._look_ms, self._befalls.away_until_ms):
            self._pass()
        if cluster.now_ms < until_ms:
            cluster.tick(until_ms - cluster.now_ms)

    def _request(self) -> None:
        if self._asking and self._clients.chance.random() < CLIENT_PART:
            self._clients.one()

    # -- the controller ---------------------------------------------------------------------

    def _pass(self) -> None:
        cluster = self._cluster
        decision = self._plot.decider(self._befalls.spec, cluster.observe())
        self._figures["passes"] += 1
        if self._last is None or self._last.sentence != decision.sentence:
            self._tell(f"{decision.reason.value}: {decision.sentence}")
        self._last = decision
        self._reasons[decision.reason.value] += 1
        if isinstance(decision.action, Wait):
            wait_ms = max(WAIT_MS, int(decision.action.seconds * 1000))
            self._look_ms = cluster.now_ms + wait_ms
            return
        self._look_ms = cluster.now_ms
        try:
            self._do(decision.action)
        except ActionFailed as error:
            self._figures["actions failed"] += 1
            self._tell(f"  failed: {error}")
            self._look_ms = cluster.now_ms + WAIT_MS

    def _do(self, action: Action) -> None:
        """Sub-step by sub-step, with time between them, until done or the controller dies."""
        self._figures["actions"] += 1
        befalls, cluster = self._befalls, self._cluster
        for number, _ in enumerate(cluster.steps(action)):
            if befalls.dies_after is not None and number >= befalls.dies_after:
                befalls.dies_after = None
                cluster.new_controller()
                self._tell("  the controller dies")
                return
            self._request()
            cluster.tick(int(cluster.chance.random() * STEP_MS_MAX))

    # -- the end ----------------------------------------------------------------------------

    def _readout(self, sentence: str | None) -> Readout:
        masters = [node for node in self._cluster.model_nodes() if node.running and node.slots]
        values = {}
        for name, key in KEYS.items():
            owner = next((node for node in masters if slot_of_key(key) in node.slots), None)
            state = owner.data.get(key) if owner is not None else None
            values[name] = value_of(name, state, self._clients.deletions)
        owners = tuple((node.name, node.slots) for node in masters)
        return Readout(values, owners, sentence is None, sentence or "")

    def _report(self) -> Report:
        operations = self._clients.history.operations
        acknowledged = {
            item.number
            for item in operations
            if item.outcome is Outcome.OK and item.kind is not Kind.READ
        }
        excused: Counter[Cause] = Counter()
        for excuse in self._cluster.losses.excuses:
            excused[excuse.cause] += len(excuse.numbers & acknowledged)
        self._figures["requests"] = len(operations)
        self._figures["acknowledged"] = len(acknowledged)
        self._figures["packets lost"] = self._cluster.packets_lost
        self._figures["packets late"] = self._cluster.packets_late
        self._figures["elections"] = self._cluster.elections
        self._figures["promotions"] = self._cluster.promotions
        return Report(
            self._plan, self._violations, self._befalls.counts, excused,
            self._cluster.now_ms - self._begun_ms, self._figures, self._reasons, self._told,
        )  # fmt: skip

    def _tell(self, line: str) -> None:
        if self._telling:
            self._told.append(f"{(self._cluster.now_ms - self._begun_ms) / 1000:8.2f}  {line}")
