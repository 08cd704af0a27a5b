"""A replica has the lost master's keys and has not heard of its slots: who may be given them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from shardcluster.actions import AddSlots, Failover, FailoverMode, Reason, Wait
from shardcluster.decide.lost_masters import lost_masters
from shardcluster.observed import Role
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.unit.deciding import changed, formed, spec_of

if TYPE_CHECKING:
    from shardcluster.actions import Decision
    from shardcluster.observed import Observed

HEIR = "shard-0-1"


def _view(observed: Observed, name: str) -> Any:
    return next(node.view for node in observed.nodes if node.name == name)


def _told(observed: Observed, name: str, owner_id: str, **line: Any) -> Observed:
    """The same, but that node believes something else of the lost master."""
    peers = tuple(
        dataclasses.replace(peer, **line) if peer.node_id == owner_id else peer
        for peer in _view(observed, name).peers
    )
    return changed(observed, name, peers=peers)


def _lost(replicas: int = 1, *, proven: bool = True) -> tuple[Observed, str]:
    """shard-0-0 has ended; its replicas have copied all and heard of none of its slots."""
    cluster = formed(3, replicas)
    cluster.proves_end = proven
    cluster.observe()
    owner_id = cluster.nodes["shard-0-0"].node_id
    cluster.end("shard-0-0")
    cluster.tick(10)
    observed = cluster.observe()
    for ordinal in range(1, replicas + 1):
        observed = _told(observed, f"shard-0-{ordinal}", owner_id, slots=SlotSet(), config_epoch=0)
    return observed, owner_id


def _elected(epoch: int = 100, **fields: Any) -> tuple[Observed, str]:
    """The replica is a master without slots by now, of that epoch."""
    observed, owner_id = _lost()
    peers = tuple(
        dataclasses.replace(peer, config_epoch=epoch) if "myself" in peer.flags else peer
        for peer in _view(observed, HEIR).peers
    )
    elected: dict[str, Any] = {"role": Role.MASTER, "master_id": None, "peers": peers, **fields}
    return changed(observed, HEIR, **elected), owner_id


def _decided(observed: Observed, replicas: int = 1) -> Decision:
    decision = lost_masters(draw(spec_of(3, replicas), observed))
    assert decision is not None
    return decision


def test_it_becomes_master_first() -> None:
    """The old one's process is proven gone, and nothing but the copy is left."""
    observed, _ = _lost()
    decision = _decided(observed)
    assert decision.action == Failover(HEIR, FailoverMode.TAKEOVER)
    assert decision.reason is Reason.MASTER_LOST


def test_of_two_the_fresher_one() -> None:
    """By what each has read of the master."""
    observed, _ = _lost(2)
    observed = changed(observed, HEIR, offset=_view(observed, "shard-0-2").offset - 1)
    assert _decided(observed, 2).action == Failover("shard-0-2", FailoverMode.TAKEOVER)


@pytest.mark.parametrize(
    "fields",
    [{"link_down_ms": -1}, {"master_id": "e" * 40}, {"current_epoch": 0}],
    ids=["never in step", "of another master", "would take a low epoch"],
)
def test_one_in_doubt_waits(fields: dict[str, Any]) -> None:
    """And the old master with it."""
    observed, _ = _lost()
    decision = _decided(changed(observed, HEIR, **fields))
    assert isinstance(decision.action, Wait)
    assert f"{HEIR} may still hold" in decision.sentence


def test_one_that_knows_of_old_slots_waits() -> None:
    """It would claim them again from those who own them now."""
    observed, owner_id = _lost()
    old = _told(observed, HEIR, owner_id, slots=SlotSet.of([0]), config_epoch=0)
    assert isinstance(_decided(old).action, Wait)


def test_while_another_of_the_shard_is_silent_all_wait() -> None:
    """It may have more."""
    observed, _ = _lost(2)
    nodes = tuple(
        dataclasses.replace(node, view=None) if node.name == "shard-0-2" else node
        for node in observed.nodes
    )
    assert isinstance(_decided(dataclasses.replace(observed, nodes=nodes), 2).action, Wait)


def test_an_ended_one_is_not_waited_for() -> None:
    """What it had is gone."""
    observed, _ = _lost(2)
    nodes = tuple(
        dataclasses.replace(node, view=None, ended=True) if node.name == "shard-0-2" else node
        for node in observed.nodes
    )
    decision = _decided(dataclasses.replace(observed, nodes=nodes), 2)
    assert decision.action == Failover(HEIR, FailoverMode.TAKEOVER)


def test_of_one_whose_place_another_has_already_nobody_takes_over() -> None:
    """Once the replica led, nothing would tell any more that it had followed that one."""
    cluster = formed(3, 1)
    owner_id = cluster.nodes["shard-0-0"].node_id
    cluster.end("shard-0-0")
    cluster.tick(10)
    cluster.begin("shard-0-0", fresh=True)
    observed = _told(cluster.observe(), HEIR, owner_id, slots=SlotSet(), config_epoch=0)
    decision = _decided(observed)
    assert isinstance(decision.action, Wait)
    assert f"{HEIR} may still hold" in decision.sentence


def test_without_proof_that_the_process_is_gone_nobody_takes_over() -> None:
    """A refused connection and broken links may be a cut."""
    observed, _ = _lost(proven=False)
    assert isinstance(_decided(observed).action, Wait)


def test_once_master_it_is_given_what_all_masters_say() -> None:
    """In one piece."""
    observed, owner_id = _elected()
    slots = draw(spec_of(3, 1), observed).owned[owner_id]
    decision = _decided(observed)
    assert decision.action == AddSlots(((HEIR, slots),))
    assert not decision.healthy


def test_a_node_deposed_long_ago_is_not_given_slots() -> None:
    """Its keys are old; its epoch is below that of the lost one."""
    observed, _ = _elected(epoch=0)
    assert isinstance(_decided(observed).action, Wait)


@pytest.mark.parametrize("line", [{"slots": SlotSet.of([0])}, {"node_id": "e" * 40}])
def test_masters_that_disagree_are_waited_for(line: dict[str, Any]) -> None:
    """One has heard of a change that another has not, or knows nothing of the lost one."""
    observed, owner_id = _elected()
    assert isinstance(_decided(_told(observed, "shard-1-0", owner_id, **line)).action, Wait)


def test_one_that_has_heard_meanwhile_is_left_to_people() -> None:
    """The engine would refuse to give it what has an owner in its eyes."""
    observed, owner_id = _elected()
    heard = _told(observed, HEIR, owner_id, slots=SlotSet.of([0]))
    assert isinstance(_decided(heard).action, Wait)


def test_of_two_such_nodes_none_is_chosen() -> None:
    """Nobody knows which one is right."""
    observed, _ = _lost(2)
    for name in (HEIR, "shard-0-2"):
        observed = changed(observed, name, role=Role.MASTER, master_id=None)
    assert isinstance(_decided(observed, 2).action, Wait)
