"""The connections that one request with many commands uses: at most two a shard.

Whichever of a shard's replicas is chosen serves all of the request's reads there, so that they
leave as one write and their replies come in order.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from shardcluster_api.links import Lane
from shardcluster_api.router import Reply

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from typing import Any

    from shardcluster_api.commands.wave import Part
    from shardcluster_api.links import NodeLink
    from shardcluster_api.slot_map import ShardRoute
    from shardcluster_runtime.wire import NodeConnection, Volley

__all__ = ["Path", "Paths"]


class Path:
    """The connection to one node, and what is sent there."""

    __slots__ = ("connection", "link", "parts", "place", "volley", "waited", "writing")

    def __init__(
        self, link: NodeLink, connection: NodeConnection, route: ShardRoute, role: str
    ) -> None:
        """`role` is the node's in its shard."""
        self.link = link
        self.connection = connection
        self.place = Reply(None, link, route.name, role)
        self.place.stale = role != "master" and route.master.out_of_reach
        self.parts: list[Part] = []
        self.writing = False
        self.volley: Volley | None = None  # once they are sent
        self.waited: asyncio.Future[Any] | None = None  # of WAIT or WAITAOF


class Paths:
    """Chosen as they are asked for; None stands for a shard where no connection is open."""

    def __init__(self) -> None:
        """None yet."""
        self._at_master: dict[ShardRoute, Path | None] = {}
        self._at_reader: dict[ShardRoute, Path | None] = {}

    def set_master(self, route: ShardRoute, path: Path | None) -> None:
        """Use this one for the shard's master."""
        self._at_master[route] = path

    def master(self, route: ShardRoute) -> Path | None:
        """To the shard's master."""
        if route in self._at_master:
            return self._at_master[route]
        link = route.master
        connection = None if link.suspect else link.connection(Lane.MAIN)
        path = None if connection is None else Path(link, connection, route, "master")
        self._at_master[route] = path
        return path

    def reader(self, route: ShardRoute, now_s: float) -> Path | None:
        """To the replica that the fewest commands wait for; without one to the master."""
        if route in self._at_reader:
            return self._at_reader[route]
        usable = [
            (link.waiting, random.random(), link, connection)  # noqa: S311 - spreads equal ones
            for link in route.replicas
            if link.readable(now_s) and (connection := link.connection(Lane.READONLY)) is not None
        ]
        if usable:
            _, _, link, connection = min(usable)
            path: Path | None = Path(link, connection, route, "replica")
        else:
            path = self.master(route)
        self._at_reader[route] = path
        return path

    def all(self) -> Iterable[Path]:
        """Each once."""
        found = (*self._at_master.values(), *self._at_reader.values())
        return {id(path): path for path in found if path is not None}.values()
