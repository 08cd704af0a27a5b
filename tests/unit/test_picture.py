"""One observation put in order: who owns, who leads, who is meant."""

from __future__ import annotations

import dataclasses

from shardcluster.observed import Address, Observed, PeerView, Role
from shardcluster.picture import draw
from shardcluster.slots import SlotSet
from tests.scenarios.drive import run, spec_of
from tests.scenarios.paper import PaperCluster

SPEC = spec_of(3, 1)


def formed() -> PaperCluster:
    cluster = PaperCluster()
    run(cluster, SPEC)
    return cluster


def test_a_formed_store_is_one_picture() -> None:
    """Every slot has an owner, every shard its master and replica."""
    picture = draw(SPEC, formed().observe())
    assert not picture.unowned
    assert picture.votes_possible()
    for shard in picture.shards:
        assert shard.master is shard.owner is shard.nodes[0]
        assert shard.replicas == (shard.nodes[1],)
        assert picture.shard(shard.name) is shard
        assert picture.shard_of_id(picture.ids[shard.nodes[1].name]) is shard
    assert picture.shard("shard-9") is None
    assert picture.shard_of_id("nobody") is None
    assert picture.hub is not None


def test_nothing_observed_is_an_empty_picture() -> None:
    """No hub, no votes, every slot unowned."""
    picture = draw(SPEC, Observed(nodes=(), now_ms=0))
    assert picture.hub is None
    assert not picture.votes_possible()
    assert picture.unowned == SlotSet.full()


def test_a_silent_owner_is_known_by_what_the_others_say() -> None:
    """By the id it had, or by the address that it answered at."""
    cluster = formed()
    cluster.hang("shard-1-0")
    for remembered in (True, False):
        if not remembered:
            cluster.new_controller()
        picture = draw(SPEC, cluster.observe())
        shard = picture.shard("shard-1")
        assert shard is not None
        assert shard.owner is not None
        assert shard.owner.name == "shard-1-0"
        assert shard.master is None
        assert not picture.unowned


def test_a_deposed_master_that_is_back_does_not_own_what_its_silent_heir_has() -> None:
    """It has not heard yet; the heir, and whom its copy is to outlive, are told by the epoch."""
    cluster = formed()
    deposed, heir = cluster.nodes["shard-1-0"], cluster.nodes["shard-1-1"]
    stale = deposed.slots, deposed.epoch
    heir.role, heir.master_id, heir.slots = Role.MASTER, None, deposed.slots
    heir.epoch = cluster.next_epoch()
    cluster.hang("shard-1-0")
    cluster.tick(10)
    cluster.end("shard-1-1")
    cluster.resume("shard-1-0")
    deposed.role, deposed.master_id = Role.MASTER, None
    deposed.slots, deposed.epoch = stale
    picture = draw(SPEC, cluster.observe())
    shard = picture.shard("shard-1")
    assert shard is not None
    assert shard.owner is not None
    assert shard.owner.name == "shard-1-1"
    assert shard.master is None
    assert not picture.contested


def test_of_two_ids_at_one_address_the_last_heard_is_meant() -> None:
    """An earlier node there may linger in the views, in whatever order they list it."""
    cluster = formed()
    silent = cluster.nodes["shard-1-1"]
    cluster.hang(silent.name)
    cluster.new_controller()
    for older_id in ("0" * 40, "f" * 40):
        older = PeerView(older_id, silent.address, frozenset({"slave", "fail"}), None, 1, 0,
                         link_up=False, slots=SlotSet())  # fmt: skip
        for first in (True, False):
            lines = dict(cluster.nodes["shard-0-0"].lines)
            pairs = [(older_id, older), *lines.items()]
            cluster.nodes["shard-0-0"].lines = dict(pairs if first else reversed(pairs))
            assert draw(SPEC, cluster.observe()).ids["shard-1-1"] == silent.node_id
            cluster.nodes["shard-0-0"].lines = lines


def test_a_silent_node_whose_address_another_has_now_has_no_id() -> None:
    """An id belongs to one place."""
    cluster = formed()
    observed = cluster.observe()
    silent = dataclasses.replace(
        observed.nodes[1], view=None, known_id=None, address=observed.nodes[0].address
    )
    nodes = (observed.nodes[0], silent, *observed.nodes[2:])
    picture = draw(SPEC, dataclasses.replace(observed, nodes=nodes))
    assert "shard-0-1" not in picture.ids


def test_hearsay_of_the_higher_epoch_counts() -> None:
    """One node has heard less than another; what both heard at one epoch is put together."""
    cluster = formed()
    cluster.hang("shard-2-0")
    silent_id = cluster.nodes["shard-2-0"].node_id
    line = cluster.nodes["shard-0-0"].lines[silent_id]
    slots = line.slots
    behind = dataclasses.replace(line, config_epoch=line.config_epoch - 1, slots=SlotSet.of([0]))
    less = dataclasses.replace(line, slots=SlotSet.of(list(slots)[:5]))
    for names in (("shard-0-0", "shard-0-1"), ("shard-2-1", "shard-1-1")):
        twin = cluster.copy()
        twin.nodes[names[0]].lines[silent_id] = behind
        twin.nodes[names[1]].lines[silent_id] = less
        assert draw(SPEC, twin.observe()).owned[silent_id] == slots


def test_what_an_answering_node_claims_is_taken_off_hearsay() -> None:
    """The promoted replica speaks, the silent old master is only spoken of."""
    cluster = formed()
    old, heir = cluster.nodes["shard-0-0"], cluster.nodes["shard-0-1"]
    cluster.hang(old.name)
    heir.role, heir.master_id, heir.slots, heir.epoch = old.role, None, old.slots, 99
    picture = draw(SPEC, cluster.observe())
    assert old.node_id not in picture.owned
    assert picture.owned[heir.node_id] == old.slots
    assert not picture.contested


def test_of_two_answering_claimants_the_higher_epoch_owns_and_both_are_contested() -> None:
    """The engine will settle it the same way."""
    cluster = formed()
    taken = SlotSet.of(list(cluster.nodes["shard-0-0"].slots)[:3])
    cluster.nodes["shard-1-0"].slots |= taken
    picture = draw(SPEC, cluster.observe())
    assert picture.contested == taken
    assert sum(len(slots) for slots in picture.owned.values()) == len(SlotSet.full())


def test_a_lone_nodes_claims_are_its_own_affair() -> None:
    """It knows nobody here and nobody knows it: another cluster's."""
    cluster = formed()
    cluster.past["shard-3-0"] = "foreign"
    foreign = cluster.start_node("shard-3-0")
    foreign.epoch = 1000
    picture = draw(SPEC, cluster.observe())
    assert foreign.node_id not in picture.owned
    assert not picture.contested


def test_a_single_node_counts_although_it_knows_nobody() -> None:
    """A store of one shard without replicas."""
    spec = spec_of(1, 0)
    cluster = PaperCluster()
    run(cluster, spec)
    cluster.start_node("shard-1-0")
    assert not draw(spec, cluster.observe()).unowned


def test_a_vanished_owner_stands_in_for_its_shard_while_a_replica_follows_it() -> None:
    """Its place came back under another id; at the old address that is proof of its end.

    At another one, too, where the platform proves the end of one before it starts the next.
    """
    for elsewhere, provable in ((True, False), (True, True), (False, False)):
        cluster = formed()
        cluster.can_fence = provable
        old = cluster.nodes["shard-0-0"]
        cluster.end(old.name)
        if elsewhere:
            cluster.move_to_new_address(old.name)
        cluster.begin(old.name, fresh=True)
        cluster.new_controller()
        picture = draw(SPEC, cluster.observe())
        shard = picture.shard("shard-0")
        assert shard is not None
        assert shard.owner is not None
        assert shard.owner.known_id == old.node_id
        assert shard.owner.ended is (provable or not elsewhere)
        assert shard.owner not in picture.observed.nodes
        assert shard.master is None


def test_the_leader_of_a_shard_without_slots_is_whom_its_nodes_follow() -> None:
    """Else the lowest ordinal."""
    cluster = formed()
    for name in ("shard-3-0", "shard-3-1"):
        cluster.start_node(name)
    spec = spec_of(4, 1)
    first = draw(spec, cluster.observe()).shard("shard-3")
    assert first is not None
    assert first.master is first.nodes[0]
    cluster.nodes["shard-3-0"].become_replica(cluster.nodes["shard-3-1"].node_id)
    second = draw(spec, cluster.observe()).shard("shard-3")
    assert second is not None
    assert second.master is second.nodes[1]
    cluster.nodes["shard-3-1"].become_replica("e" * 40)
    third = draw(spec, cluster.observe()).shard("shard-3")
    assert third is not None
    assert third.master is None


def test_of_two_owners_in_a_shard_the_one_with_more_slots_leads() -> None:
    """The other's slots are brought home later."""
    cluster = formed()
    master, other = cluster.nodes["shard-0-0"], cluster.nodes["shard-0-1"]
    few = SlotSet.of(list(master.slots)[:3])
    other.role, other.master_id, other.slots, other.epoch = master.role, None, few, 99
    master.slots -= few
    shard = draw(SPEC, cluster.observe()).shard("shard-0")
    assert shard is not None
    assert shard.master is shard.nodes[0]
    assert len(shard.slots) == len(master.slots) + 3


def test_leaving_is_who_has_no_place_in_the_spec() -> None:
    """A surplus ordinal, or a shard that is not wanted."""
    picture = draw(spec_of(2, 0), formed().observe())
    assert [node.name for node in picture.observed.nodes if picture.leaving(node)] == [
        "shard-0-1", "shard-1-1", "shard-2-0", "shard-2-1",
    ]  # fmt: skip


def test_an_address_reads_as_people_write_it() -> None:
    """For sentences."""
    assert str(Address("10.0.0.1", 7000)) == "10.0.0.1:7000"


def test_of_two_ids_at_one_address_the_owner_of_slots_is_meant() -> None:
    """A node that hung heard late of the one before, and what it says of it looks newer."""
    cluster = formed()
    owner = cluster.nodes["shard-0-0"]
    cluster.end("shard-0-0")
    late = cluster.nodes["shard-1-1"]
    line = late.lines.pop(owner.node_id)
    late.lines["e" * 40] = dataclasses.replace(
        line, node_id="e" * 40, slots=SlotSet(), pong_ms=line.pong_ms + 500
    )
    cluster.new_controller()
    assert draw(SPEC, cluster.observe()).ids["shard-0-0"] == owner.node_id
