"""What holds for all requests of the short way that arrive in one turn of the event loop.

In one turn nothing that counts for the choice of a node changes, except that a connection may end:
that `send` tells.  So each shard's node is chosen once a turn, and all its requests of that turn
leave as one write.  Where no replicas take turns the choice holds for `CHOICE_S`: a node that is to
be left out gets requests so much longer, and whoever is not in charge any more says so.
"""

from __future__ import annotations

import functools
from time import perf_counter
from typing import TYPE_CHECKING

from shardcluster_api.answers import ascii_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster_api.fast import FastCycle
    from shardcluster_api.links import NodeLink
    from shardcluster_api.router import Router
    from shardcluster_api.slot_map import ShardRoute
    from shardcluster_runtime.wire import NodeConnection

    _Find = Callable[[ShardRoute], tuple[NodeLink, NodeConnection] | None]

__all__ = ["Turn", "Way"]

CHOICE_S = 0.005
TAILS_MAX = 4096  # of answers, one for each node and role


class Way:
    """The node that a shard's requests are sent to."""

    __slots__ = ("link", "role", "send", "tail")

    def __init__(self, route: ShardRoute, link: NodeLink, connection: NodeConnection) -> None:
        """`link` is the shard's master or one of its replicas."""
        self.link = link
        self.role = "master" if link is route.master else "replica"
        self.send = connection.send_packed_to
        self.tail = _tail(route.name, link.name, self.role)


class _Ways(dict["ShardRoute | None", "Way | None"]):
    """By shard, found when first asked for; None where no request can be sent this instant."""

    __slots__ = ("_find",)

    def __init__(self, find: _Find) -> None:
        super().__init__({None: None})
        self._find = find

    def __missing__(self, route: ShardRoute) -> Way | None:
        found = self._find(route)
        way = self[route] = None if found is None else Way(route, *found)
        return way


class Turn:
    """One turn; make it when its first request comes."""

    __slots__ = (
        "began_s", "chosen_until_s", "cycles", "now_s", "quiet", "readers", "under_way_max",
        "writers",
    )  # fmt: skip
    chosen_until_s: float  # so long may the next turns use the same ways
    readers: _Ways
    writers: _Ways

    def __init__(
        self, router: Router, now_s: float, under_way_max: int, before: Turn | None
    ) -> None:
        """`now_s` is of the loop's clock, which moves in milliseconds (uvloop)."""
        self.now_s = now_s
        self.began_s = perf_counter()
        self.under_way_max = under_way_max
        self.quiet = now_s >= router.topology.map.quiet_from_s  # no slot is on its way
        self.cycles: list[FastCycle] = []  # sent
        if before is not None and now_s < before.chosen_until_s:
            self.readers, self.writers = before.readers, before.writers
            self.chosen_until_s = before.chosen_until_s
        else:
            self.readers = _Ways(lambda route: router.reader_at_once(route, now_s))
            self.writers = _Ways(router.writer_at_once)
            self.chosen_until_s = now_s if router.takes_turns() else now_s + CHOICE_S


@functools.lru_cache(maxsize=TAILS_MAX)
def _tail(shard: str, node: str, role: str) -> bytes:
    """The headers that say where the key is, from the slot's number on, and the head's end."""
    lines = ("", f"x-shardcluster-shard: {ascii_name(shard)}",
             f"x-shardcluster-node: {ascii_name(node)}",
             f"x-shardcluster-role: {role}", "", "")  # fmt: skip
    return "\r\n".join(lines).encode("latin-1")
