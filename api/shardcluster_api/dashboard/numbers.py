"""What each node counts, asked of it now: keys, memory, commands, how long they took.

Law: nothing is kept here from one look to the next.  Counters are handed on as they are; whoever
draws a rate takes the difference of two looks.  Only connections that are open anyway are used,
and a node that doesn't answer in time is left out: it is never waited for.

Times are those inside the node (`LATENCY HISTOGRAM`), for the commands of every client and not
only of this gateway's.  The cluster's own housekeeping is no client's command, so only the engine's
categories `read` and `write` count, without what moves slots.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster_api.links import Lane
from shardcluster_runtime.wire import ConnectionLost, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster_api.links import NodeLink
    from shardcluster_runtime.wire import NodeConnection

__all__ = ["NodeNumbers", "parse_histogram", "parse_info"]

NODE_TIMEOUT_S = 0.5
_HOUSEKEEPING = frozenset({b"dbsize", b"migrate", b"restore", b"restore-asking"})
_WANTED = {
    "role": "role",
    "used_memory": "memory_bytes",
    "maxmemory": "memory_max_bytes",
    "connected_clients": "clients",
    "evicted_keys": "evicted_keys",
    "uptime_in_seconds": "uptime_s",
}
_FIELD = re.compile(rf"^({'|'.join(_WANTED)}):(\S+)\r?$", re.MULTILINE)
_KEYS = re.compile(r"^db0:keys=(\d+)", re.MULTILINE)
_TROUBLE = (ConnectionLost, NodeReplyError, OSError, Overloaded)

Document = dict[str, Any]


class NodeNumbers:
    """Asks the nodes; knows which commands of an engine read and which write."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._kinds: dict[NodeConnection, tuple[frozenset[bytes], frozenset[bytes]]] = {}

    async def look(self, links: Iterable[NodeLink]) -> dict[str, Document]:
        """By node name; a node without an answer is missing."""
        asked = [link for link in links if _connection(link) is not None]
        answers = await asyncio.gather(*map(self._of_node, asked))
        self._kinds = {at: kinds for at, kinds in self._kinds.items() if not at.closed}
        return {
            link.name: found
            for link, found in zip(asked, answers, strict=True)
            if found is not None
        }

    async def _of_node(self, link: NodeLink) -> Document | None:
        connection = _connection(link)
        if connection is None or link.suspect:
            return None
        try:
            async with asyncio.timeout(NODE_TIMEOUT_S):
                reads, writes = await self._commands(connection)
                info, histogram = await connection.calls(
                    (("INFO",), ("LATENCY", "HISTOGRAM")), timeout_s=NODE_TIMEOUT_S
                )
        except _TROUBLE:
            return None
        if not isinstance(info, bytes):
            return None
        found = parse_info(info.decode("utf-8", "replace"))
        found["at_s"] = asyncio.get_running_loop().time()
        if isinstance(histogram, list) and reads:  # an engine before 7.0 knows neither
            found |= parse_histogram(histogram, reads, writes)
        return found

    async def _commands(
        self, connection: NodeConnection
    ) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """Names of reading and of writing commands, asked once a connection."""
        known = self._kinds.get(connection)
        if known is None:
            lists = await connection.calls(
                ("COMMAND", "LIST", "FILTERBY", "ACLCAT", kind) for kind in ("read", "write")
            )
            reads, writes = (
                frozenset(names if isinstance(names, list) else ()) - _HOUSEKEEPING
                for names in lists
            )
            known = self._kinds[connection] = (reads, writes)
        return known


def _connection(link: NodeLink) -> NodeConnection | None:
    return link.connection(Lane.MAIN) or link.connection(Lane.READONLY)


def parse_info(text: str) -> Document:
    """The few fields of INFO that are shown."""
    found: Document = {
        _WANTED[name]: int(value) if value.isdecimal() else value
        for name, value in _FIELD.findall(text)
    }
    keys = _KEYS.search(text)
    found["keys"] = int(keys[1]) if keys else 0
    return found


def parse_histogram(
    reply: list[Any], reads: frozenset[bytes], writes: frozenset[bytes]
) -> Document:
    """How many reads and writes since the node's start, and how long both took.

    The reply is `[command, ["calls", n, "histogram_usec", [bound, so many up to it, …]], …]`;
    `took` maps each bound in µs to the number of commands between it and the one before.
    """
    said = {"reads": 0, "writes": 0}
    took: dict[int, int] = {}
    for command, described in zip(reply[::2], reply[1::2], strict=False):
        if isinstance(described, hiredis.ReplyError) or command not in reads | writes:
            continue
        fields = dict(zip(described[::2], described[1::2], strict=False))
        said["reads" if command in reads else "writes"] += fields.get(b"calls", 0)
        before = 0
        bounds = fields.get(b"histogram_usec", [])
        for bound, so_far in zip(bounds[::2], bounds[1::2], strict=False):
            took[bound] = took.get(bound, 0) + so_far - before
            before = so_far
    return {**said, "took_us": sorted(took.items())}
