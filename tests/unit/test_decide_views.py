"""Outsiders, handshakes and strangers, in states that stories hardly reach."""

from __future__ import annotations

import dataclasses

from shardcluster.actions import AddSlots, Forget, Introduce, Reason, ResetNode, Wait
from shardcluster.decide.formation import formation
from shardcluster.decide.views import (
    disagreeing,
    foreign_nodes,
    introductions,
    remarks,
    strangers,
)
from shardcluster.observed import Observed, PeerView
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.scenarios.paper import PaperCluster
from tests.unit.deciding import STORAGE, formed, spec_of

SPEC = spec_of(3, 1, storage=STORAGE)


def with_stranger(cluster: PaperCluster, *flags: str) -> str:
    """Every node believes in a node that none of ours is."""
    line = PeerView("e" * 40, cluster.new_address(), frozenset({"master", *flags}), None, 0, 0,
                    link_up=False, slots=SlotSet())  # fmt: skip
    for node in cluster.nodes.values():
        node.lines[line.node_id] = line
    return line.node_id


def test_where_nobody_answers_nobody_is_introduced() -> None:
    """Nor foreign, strange or contested."""
    picture = draw(SPEC, Observed(nodes=(), now_ms=0))
    assert introductions(picture) is foreign_nodes(picture) is strangers(picture) is None
    assert disagreeing(picture) is None


def test_a_handshake_under_way_is_waited_for() -> None:
    """And only who was not greeted yet is met."""
    cluster = formed()
    spec = spec_of(4, 1, storage=STORAGE)
    first, second = cluster.start_node("shard-3-0"), cluster.start_node("shard-3-1")
    hub = draw(spec, cluster.observe()).hub
    assert hub is not None
    cluster.nodes[hub.name].handshakes.add(first.address)
    decision = introductions(draw(spec, cluster.observe()))
    assert decision is not None
    assert decision.action == Introduce(hub.name, ("shard-3-1",))
    cluster.nodes[hub.name].handshakes.add(second.address)
    decision = introductions(draw(spec, cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, Wait)


def test_a_blank_node_that_leaves_is_not_taken_in_again() -> None:
    """It was reset to be let go; one that still knows us is cut off and is met."""
    cluster = formed()
    node = cluster.start_node("shard-3-0")
    assert introductions(draw(SPEC, cluster.observe())) is None
    node.lines[cluster.nodes["shard-1-0"].node_id] = cluster.nodes["shard-0-0"].lines[
        cluster.nodes["shard-1-0"].node_id
    ]
    node.lines["e" * 40] = dataclasses.replace(
        next(iter(node.lines.values())), node_id="e" * 40, slots=SlotSet()
    )
    decision = introductions(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, Introduce)


def test_a_node_that_knows_the_hub_is_no_outsider() -> None:
    """The hub forgot it (a Forget too many): it is met again, whatever it holds."""
    cluster = formed()
    node = cluster.nodes["shard-2-1"]
    for other in cluster.nodes.values():
        other.lines.pop(node.node_id, None)
    picture = draw(SPEC, cluster.observe())
    assert foreign_nodes(picture) is None
    decision = introductions(picture)
    assert decision is not None
    assert isinstance(decision.action, Introduce)
    assert decision.action.nodes == ("shard-2-1",)


def test_a_stranger_that_all_suspect_is_forgotten_and_one_that_is_trusted_is_not() -> None:
    """After a Forget that was cut short, too few know it to agree that it failed."""
    cluster = formed()
    stranger_id = with_stranger(cluster, "fail?")
    decision = strangers(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.action == Forget((stranger_id,))
    node = cluster.nodes["shard-2-1"]
    node.lines[stranger_id] = dataclasses.replace(
        node.lines[stranger_id], flags=frozenset({"master"})
    )
    assert strangers(draw(SPEC, cluster.observe())) is None
    assert "eeeeeeee" in remarks(draw(SPEC, cluster.observe()))[0]


def test_no_stranger_is_named_while_a_place_has_no_known_id() -> None:
    """It may be that very node; a place that was never started can't be."""
    cluster = formed()
    stranger_id = with_stranger(cluster, "fail")
    place = cluster.start_node("shard-3-0")
    cluster.hang(place.name)
    assert strangers(draw(SPEC, cluster.observe())) is None
    cluster.nodes.pop(place.name)
    cluster.past["shard-3-1"] = "pending"
    cluster.start_node("shard-3-1")
    decision = strangers(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.action == Forget((stranger_id,))


def test_a_node_at_the_address_of_a_stranger_has_replaced_it() -> None:
    """One place runs one process: no need to wait until it counts as failed."""
    cluster = formed()
    stranger_id = with_stranger(cluster)
    assert strangers(draw(SPEC, cluster.observe())) is None
    for node in cluster.nodes.values():
        node.lines[stranger_id] = dataclasses.replace(
            node.lines[stranger_id], address=cluster.nodes["shard-0-1"].address
        )
    decision = strangers(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert decision.action == Forget((stranger_id,))


def test_many_contested_slots_are_told_shortly() -> None:
    """A sentence is for people."""
    cluster = formed()
    cluster.nodes["shard-1-0"].slots |= SlotSet.of(
        slot for slot in cluster.nodes["shard-0-0"].slots if slot % 2
    )
    decision = disagreeing(draw(SPEC, cluster.observe()))
    assert decision is not None
    assert "…" in decision.sentence
    assert len(decision.sentence) < 150


def test_nothing_is_given_out_beside_a_node_with_foreign_data() -> None:
    """Slots have no owner in a memory-only store, which would be given out otherwise."""
    cluster = formed()
    cluster.nodes["shard-0-0"].slots -= SlotSet.of(range(16384))
    cluster.tick(0)
    spec = spec_of(3, 1)
    decision = formation(draw(spec, cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, AddSlots)
    cluster.past["shard-3-0"] = "foreign"
    cluster.start_node("shard-3-0")
    assert formation(draw(spec, cluster.observe())) is None


def test_a_first_formation_never_starts_over_data() -> None:
    """Also without storage: the keys are somebody's."""
    cluster = PaperCluster(storage=False)
    for shard in range(3):
        for ordinal in range(2):
            cluster.start_node(f"shard-{shard}-{ordinal}")
    cluster.nodes["shard-1-0"].keys = {1}
    hub = cluster.nodes["shard-0-0"]
    hub.handshakes = {node.address for node in cluster.nodes.values() if node is not hub}
    cluster.tick(10)
    cluster.tick(10)
    decision = formation(draw(spec_of(3, 1), cluster.observe()))
    assert decision is not None
    assert decision.reason is Reason.SHARD_LOST
    assert isinstance(decision.action, Wait)


def test_a_shard_without_a_master_holds_formation_up() -> None:
    """All its nodes follow somebody who is not there."""
    cluster = PaperCluster()
    for shard in range(2):
        cluster.start_node(f"shard-{shard}-0")
    cluster.nodes["shard-0-0"].handshakes.add(cluster.nodes["shard-1-0"].address)
    cluster.tick(10)
    cluster.nodes["shard-1-0"].become_replica("e" * 40)
    decision = formation(draw(spec_of(2, 0), cluster.observe()))
    assert decision is not None
    assert decision.sentence == "shard-1 has no master to give slots to yet."


def test_an_empty_node_whose_friends_are_gone_is_reset_and_taken_in() -> None:
    """It hung while those it knew were taken out; one that is connected to owners is theirs."""
    cluster = formed()
    node = cluster.start_node("shard-0-1")
    owner = cluster.nodes["shard-1-0"].lines[cluster.nodes["shard-0-0"].node_id]
    for link_up in (True, False):
        node.lines = {
            "e" * 40: dataclasses.replace(owner, node_id="e" * 40, link_up=link_up),
        }
        decision = foreign_nodes(draw(SPEC, cluster.observe()))
        assert decision is not None
        assert isinstance(decision.action, Wait if link_up else ResetNode)


def test_nobody_is_told_to_empty_the_only_node_that_serves_slots() -> None:
    """All that knew it are gone, and the others have never met it."""
    cluster = formed(1, 0)
    owner = cluster.nodes["shard-0-0"]
    names = ("shard-1-0", "shard-1-1")
    for name in names:
        cluster.start_node(name)
    cluster.nodes[names[0]].handshakes.add(cluster.nodes[names[1]].address)
    cluster.tick(10)
    decision = foreign_nodes(draw(spec_of(2, 1, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert "let it CLUSTER MEET the others" in decision.sentence
    cluster.formed_before = False
    decision = foreign_nodes(draw(spec_of(2, 1, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert "Empty it" in decision.sentence
    assert owner.keys


def test_of_two_owners_without_storage_the_lost_one_is_known_by_who_has_its_place() -> None:
    """The other alone can't agree that it failed, and would wait for it for ever."""
    cluster = formed(2, 1)
    old = cluster.nodes["shard-1-0"]
    for name in ("shard-1-0", "shard-1-1"):
        cluster.end(name)
        cluster.begin(name, fresh=True)
    for name in ("shard-0-0", "shard-0-1"):
        node = cluster.nodes[name]
        node.lines[old.node_id] = dataclasses.replace(
            node.lines[old.node_id], flags=frozenset({"master", "fail?"}), link_up=False
        )
    decision = strangers(draw(spec_of(2, 1), cluster.observe()))
    assert decision is not None
    assert decision.action == Forget((old.node_id,))
    assert decision.reason is Reason.SHARD_LOST


def test_nothing_is_moved_while_an_owner_may_be_a_node_whose_id_is_not_known() -> None:
    """It may be a stranger, too, but that can't be told yet."""
    cluster = formed(2, 1)
    owner = cluster.nodes["shard-1-0"]
    cluster.hang("shard-1-0")
    cluster.hang("shard-1-1")
    cluster.new_controller()
    for name in ("shard-1-0", "shard-1-1"):
        cluster.move_to_new_address(name)
    decision = strangers(draw(spec_of(2, 1, storage=STORAGE), cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, Wait)
    assert decision.reason is Reason.STRANGER
    assert owner.node_id[:8] in decision.sentence


def test_a_lost_shard_s_slots_are_not_given_out_while_somebody_is_silent() -> None:
    """Who may hold its data."""
    cluster = formed(2, 1)
    old = cluster.nodes["shard-1-0"]
    for name in ("shard-1-0", "shard-1-1"):
        cluster.end(name)
        cluster.begin(name, fresh=True)
    cluster.observe()
    cluster.hang("shard-0-1")
    line = cluster.nodes["shard-0-0"].lines[old.node_id]
    cluster.nodes["shard-0-0"].lines[old.node_id] = dataclasses.replace(
        line, flags=frozenset({"master", "fail?"}), link_up=False
    )
    decision = strangers(draw(spec_of(2, 1), cluster.observe()))
    assert decision is not None
    assert isinstance(decision.action, Wait)


def test_a_blank_node_too_many_is_met_where_nobody_else_can_lead() -> None:
    """Its disk was lost while it led a shard without slots; the replica that stays follows it."""
    cluster = formed(2, 1)
    stays, leads = cluster.start_node("shard-2-0"), cluster.start_node("shard-2-1")
    cluster.nodes["shard-0-0"].handshakes.add(stays.address)
    cluster.tick(10)
    stays.become_replica("e" * 40)
    spec = spec_of(3, 0, storage=STORAGE)
    decision = introductions(draw(spec, cluster.observe()))
    assert decision is not None
    assert decision.action == Introduce("shard-0-0", (leads.name,))
    cluster.hang(stays.name)
    assert introductions(draw(spec, cluster.observe())) is None
