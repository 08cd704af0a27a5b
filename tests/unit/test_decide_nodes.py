"""Missing, ended and wrongly attached nodes, in states that stories hardly reach."""

from __future__ import annotations

from shardcluster.actions import Reason, Replicate, RestartNode, Wait
from shardcluster.decide.nodes import ended_nodes, missing_nodes, replicas
from shardcluster.decide.shrink import shrink
from shardcluster.observed import Role
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.unit.deciding import STORAGE, changed, formed, spec_of

SPEC = spec_of(3, 1, storage=STORAGE)


def test_nothing_is_missing_in_a_formed_store() -> None:
    """Nor ended, nor to attach."""
    picture = draw(SPEC, formed().observe())
    assert missing_nodes(picture) is ended_nodes(picture) is replicas(picture) is None


def test_the_first_shard_that_waits_for_a_spare_is_named() -> None:
    """One sentence, however many are missing."""
    cluster = formed()
    cluster.spare_nodes = 0
    decision = missing_nodes(draw(spec_of(5, 1), cluster.observe()))
    assert decision is not None
    assert decision.sentence.startswith("shard-3 needs 2 more nodes")


def test_an_ended_second_owner_is_started_with_its_id() -> None:
    """Its slots are nowhere else; also without storage the ownership is brought home."""
    cluster = formed()
    master, other = cluster.nodes["shard-0-0"], cluster.nodes["shard-0-1"]
    few = SlotSet.of(list(master.slots)[:3])
    other.role, other.master_id, other.slots = Role.MASTER, None, few
    other.epoch = cluster.next_epoch()
    cluster.tick(0)
    cluster.observe()
    cluster.end("shard-0-1")
    for spec in (SPEC, spec_of(3, 1)):
        decision = ended_nodes(draw(spec, cluster.observe()))
        assert decision is not None
        assert decision.action == RestartNode("shard-0-1", fresh=False)


def test_a_second_master_with_slots_is_not_made_a_replica() -> None:
    """Its slots go home first."""
    cluster = formed()
    master, other = cluster.nodes["shard-0-0"], cluster.nodes["shard-0-1"]
    other.role, other.master_id = Role.MASTER, None
    other.slots = SlotSet.of(list(master.slots)[:3])
    other.epoch = cluster.next_epoch()
    cluster.tick(0)
    assert replicas(draw(SPEC, cluster.observe())) is None


def test_a_node_that_has_not_heard_of_its_master_waits_and_others_go_on() -> None:
    """Every replica is looked at before a wait is given."""
    cluster = formed()
    for name in ("shard-0-1", "shard-1-1", "shard-2-1"):
        node = cluster.nodes[name]
        node.role, node.master_id, node.keys = Role.MASTER, None, set()
    del cluster.nodes["shard-0-1"].lines[cluster.nodes["shard-0-0"].node_id]
    decision = replicas(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, Replicate)
    assert decision.action.node == "shard-1-1"
    for name in ("shard-1-1", "shard-2-1"):
        cluster.nodes[name].master_id = cluster.nodes[name[:-1] + "0"].node_id
        cluster.nodes[name].role = Role.REPLICA
    decision = replicas(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.reason is Reason.MEETING


def test_a_master_with_keys_is_not_made_a_replica() -> None:
    """That would erase them."""
    cluster = formed()
    node = cluster.nodes["shard-0-1"]
    node.role, node.master_id = Role.MASTER, None
    decision = replicas(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.reason is Reason.FOREIGN_NODE
    assert isinstance(decision.action, Wait)


def test_a_node_that_leaves_is_not_attached_again() -> None:
    """It was reset, perhaps, and waits to be let go."""
    cluster = formed()
    node = cluster.nodes["shard-0-1"]
    node.role, node.master_id, node.keys = Role.MASTER, None, set()
    assert replicas(draw(spec_of(3, 0), cluster.observe())) is None


def test_a_shard_without_master_lets_nobody_go() -> None:
    """Neither does it attach anybody."""
    cluster = formed()
    cluster.hang("shard-0-0")
    observed = changed(cluster.observe(), "shard-0-1", keys=0)
    spec = spec_of(3, 0, storage=STORAGE)
    picture = draw(spec, observed)
    assert shrink(picture) is None
    assert replicas(picture) is None


def test_an_unwanted_shard_with_slots_is_kept() -> None:
    """Moves come first."""
    assert shrink(draw(spec_of(2, 1), formed().observe())) is None
