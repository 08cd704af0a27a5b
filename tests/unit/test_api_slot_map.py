"""Which source of news wins in the slot map."""

from __future__ import annotations

from typing import Any, cast

from shardcluster.observed import Address, PeerView
from shardcluster.slots import SlotSet
from shardcluster_api.slot_map import ASK_MEMORY_S, SETTLE_S, TRUST_S, SlotMap

NODES = {name: Address("127.0.0.1", port) for port, name in enumerate("abcd", start=7000)}


class _Link:
    """What the map needs of a link."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.node_id = ""
        self.shard = ""


class _Map:
    """A map with a clock, fed by short notes."""

    def __init__(self) -> None:
        self.links: dict[Address, _Link] = {}
        self.map = SlotMap(cast("Any", self._link))

    def _link(self, address: Address) -> _Link:
        return self.links.setdefault(address, _Link(address))

    def view(self, now_s: float, *lines: str) -> bool:
        """Lines: `name epoch slots`, or `name follows master`, with `!` for a failed node."""
        return self.map.apply([_peer(line) for line in lines], lambda peer: peer.address, now_s)

    def owner(self, slot: int) -> str:
        route = self.map.owners[slot]
        assert route is not None
        return next(name for name, address in NODES.items() if address == route.master.address)

    def replicas(self, slot: int) -> list[Address]:
        route = self.map.owners[slot]
        assert route is not None
        return [link.address for link in route.replicas]


def _peer(line: str) -> PeerView:
    name, second, *rest = line.split()
    failed = name.endswith("!")
    name = name.rstrip("!")
    follows = rest[0] if second == "follows" else None
    return PeerView(
        node_id=name,
        address=NODES[name],
        flags=frozenset({"slave" if follows else "master", *(["fail"] if failed else [])}),
        master_id=follows,
        pong_ms=0,
        config_epoch=0 if follows else int(second),
        link_up=True,
        slots=SlotSet() if follows else SlotSet.parse(" ".join(rest)),
    )


def test_a_view_fills_the_map() -> None:
    """Owners, replicas that have not failed, and the version."""
    known = _Map()
    assert known.view(0, "a 1 0-99", "b 2 100-16383", "c follows a", "d! follows a")
    assert (known.owner(0), known.owner(16383)) == ("a", "b")
    assert known.replicas(0) == [NODES["c"]]
    assert known.map.slots_owned() == 16384
    assert not known.view(1, "a 1 0-99", "b 2 100-16383", "c follows a", "d! follows a")
    assert known.map.version == 1


def test_a_stale_view_does_not_undo_a_failover() -> None:
    """The lower epoch loses while the new master is fresh."""
    known = _Map()
    known.view(0, "a 1 0-16383", "c follows a")
    known.view(10, "a! 1", "c 5 0-16383")
    assert not known.view(11, "a 1 0-16383", "c follows a")
    assert known.owner(0) == "c"


def test_a_view_seen_before_counts_again_once_a_slot_has_changed_hands() -> None:
    """It is looked through only when the map is another, or refused a part of it."""
    known = _Map()
    for now_s in range(3):
        known.view(now_s, "a 1 0-99", "b 2 100-16383")
    known.map.moved(5, NODES["b"], 3)
    assert known.view(TRUST_S + 4, "a 1 0-99", "b 2 100-16383")
    assert known.owner(5) == "a"


def test_a_view_that_was_refused_is_taken_in_later() -> None:
    """The same one, when the knowledge that stood against it has aged."""
    known = _Map()
    known.view(0, "b 9 0-16383")
    for now_s in (1, 2):
        assert not known.view(now_s, "a 1 0-16383")
    assert known.view(TRUST_S + 1, "a 1 0-16383")
    assert known.owner(0) == "a"


def test_a_store_formed_anew_is_followed_in_time() -> None:
    """Its epochs are lower, but the old knowledge has aged."""
    known = _Map()
    known.view(0, "a 9 0-16383")
    known.view(TRUST_S + 1, "b 1 0-16383")
    assert known.owner(0) == "b"


def test_moved_wins_over_everything_and_settles() -> None:
    """One slot goes to the new owner; its reads prefer the master for a while."""
    known = _Map()
    known.view(0, "a 9 0-99", "b 1 100-16383")
    assert known.map.moved(5, NODES["b"], 1)
    assert not known.map.moved(5, NODES["b"], 1)
    assert (known.owner(4), known.owner(5)) == ("a", "b")
    assert known.map.is_settling(5, 1 + SETTLE_S / 2)
    assert not known.map.is_settling(5, 1 + SETTLE_S + 1)
    assert not known.map.is_settling(4, 1)


def test_moved_to_a_stranger_makes_a_route_that_a_view_completes() -> None:
    """Until then it has no replicas and no name."""
    known = _Map()
    known.view(0, "a 1 0-16383")
    known.map.moved(5, NODES["d"], 1)
    assert known.replicas(5) == []
    known.view(2, "a 1 0-4 6-16383", "d 3 5", "c follows d")
    assert known.replicas(5) == [NODES["c"]]
    assert len(known.map.routes()) == 2


def test_slots_are_moving_by_word_of_the_controller_or_of_a_node() -> None:
    """A node's ASK is forgotten after a while."""
    known = _Map()
    known.map.set_moving([7])
    known.map.asked(8, 0)
    assert [known.map.is_moving(slot, 1) for slot in (7, 8, 9)] == [True, True, False]
    known.map.set_moving([])
    assert [known.map.is_moving(slot, ASK_MEMORY_S + 1) for slot in (7, 8)] == [False, False]
