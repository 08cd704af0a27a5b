"""Reads many single keys with as little as possible for each.

What wave.py does for any commands costs some microseconds of Python for each of them.  Where all
are plain reads and no slot is out of the ordinary, a key needs its slot, its place in what is sent,
and its place among the answers: here no object is made for it.  Law: what did not go smoothly (a
silent node, an error of any kind) is asked for anew in the ways of wave.py; it is a read, so that
is always allowed.
"""

from __future__ import annotations

import asyncio
import binascii
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SLOT_COUNT, key_slot
from shardcluster.spec_model import Durability, ReadFrom
from shardcluster_api.commands.paths import Paths
from shardcluster_api.commands.wave import How, Part, carry_out
from shardcluster_api.limits import HEDGE_AFTER_S
from shardcluster_runtime.wire import ConnectionLost, Overloaded

if TYPE_CHECKING:
    from shardcluster_api.commands.paths import Path
    from shardcluster_api.router import Reply, Router
    from shardcluster_api.slot_map import ShardRoute
    from shardcluster_runtime.wire import Volley

__all__ = ["PLAIN", "Found", "is_plain", "read_many"]

PLAIN = How(durability=Durability.ASYNC)

KEY_BYTES_MAX = 255  # longer keys go the other way; there the copying costs more than the planning
_HEADS = tuple(b"*2\r\n$3\r\nGET\r\n$%d" % length for length in range(KEY_BYTES_MAX + 1))
_PLAIN = frozenset({bytes, type(None)})


class Found:
    """The answers, in the keys' order; a value is bytes, None or an `ApiError`."""

    __slots__ = ("places", "slots", "values")

    def __init__(self, slots: list[int]) -> None:
        """None yet."""
        self.slots = slots
        self.values: list[Any] = [None] * len(slots)
        self.places: list[Reply | None] = [None] * len(slots)  # None where nobody answered


def is_plain(router: Router, keys: list[bytes], how: How) -> bool:
    """Whether `read_many` may be used: nothing is asked of these reads that it doesn't do."""
    return not (
        how.strong
        or how.seen
        or router.policy.read_from is ReadFrom.MASTER
        or asyncio.get_running_loop().time() < router.topology.map.quiet_from_s
        or max(map(len, keys), default=0) > KEY_BYTES_MAX
    )


async def read_many(router: Router, keys: list[bytes]) -> Found:
    """GET each of the keys, for which `is_plain` holds."""
    found = Found(_slots(keys))
    values, places = found.values, found.places
    paths, left = _send(router, keys, found.slots)
    if paths:
        await asyncio.wait([volley.last for _, volley in paths], timeout=HEDGE_AFTER_S)
    for path, volley in paths:
        replies, place = volley.replies(), path.place
        if not _PLAIN.issuperset(map(type, replies)):
            replies = []  # some are errors: all are asked for anew, in the way that can tell
        elif not volley.last.done() and place.role == "replica":
            path.link.leave_out(asyncio.get_running_loop().time())
        for index, value in zip(path.indexes, replies, strict=False):
            values[index] = value
            places[index] = place
        left += path.indexes[len(replies) :]
    if left:
        await _finish(router, keys, found, left)
    return found


def _slots(keys: list[bytes]) -> list[int]:
    if b"{" in b"".join(keys):
        return list(map(key_slot, keys))
    crc = binascii.crc_hqx  # `key_slot` without the look for a hash tag
    return [crc(key, 0) % SLOT_COUNT for key in keys]


def _send(
    router: Router, keys: list[bytes], slots: list[int]
) -> tuple[list[tuple[Path, Volley]], list[int]]:
    """Where they went, and the indexes of those that could not be sent."""
    owners = router.topology.map.owners
    now_s = asyncio.get_running_loop().time()
    by_route: dict[ShardRoute | None, list[int]] = {}
    for index, slot in enumerate(slots):
        route = owners[slot]
        if route in by_route:
            by_route[route].append(index)
        else:
            by_route[route] = [index]
    choice, sent = Paths(), []
    left: list[int] = []
    for route, indexes in by_route.items():
        path = None if route is None else choice.reader(route, now_s)
        if path is None:
            left += indexes
            continue
        lines: list[bytes] = []
        for index in indexes:
            key = keys[index]
            lines += (_HEADS[len(key)], key)
        lines.append(b"")
        path.indexes = indexes
        try:
            sent.append((path, path.connection.send_many(b"\r\n".join(lines), len(indexes))))
        except (ConnectionLost, Overloaded):
            left += indexes
    return sent, left


async def _finish(router: Router, keys: list[bytes], found: Found, left: list[int]) -> None:
    parts = [
        Part(found.slots[index], b"%b\r\n%b\r\n" % (_HEADS[len(keys[index])], keys[index]), False)
        for index in left
    ]
    await carry_out(router, parts, PLAIN)
    for index, part in zip(left, parts, strict=True):
        found.values[index], found.places[index] = part.value, part.place
