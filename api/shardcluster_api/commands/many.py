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
from collections import defaultdict
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
_HEADS = tuple(b"*2\r\n$3\r\nGET\r\n$%d\r\n" % length for length in range(KEY_BYTES_MAX + 1))
_PLAIN = frozenset({bytes, type(None)})
_MISSING = object()  # in place of a reply


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
    routes = list(map(router.topology.map.owners.__getitem__, found.slots))
    sent = _send(keys, routes)
    if sent:
        await _all_done([volley.last for _, volley in sent.values()], HEDGE_AFTER_S)
    replies = {route: _replies(path, volley) for route, (path, volley) in sent.items()}
    if len(keys) == sum(map(len, replies.values())):
        each = {route: iter(values) for route, values in replies.items()}
        found.values = list(map(next, map(each.__getitem__, routes)))
        found.places = [sent[route][0].place for route in routes]
        return found
    left = []
    each = {route: iter(values) for route, values in replies.items()}
    for index, route in enumerate(routes):
        value = next(each[route], _MISSING) if route in each else _MISSING
        if value is _MISSING:
            left.append(index)
        else:
            found.values[index], found.places[index] = value, sent[route][0].place
    await _finish(router, keys, found, left)
    return found


def _slots(keys: list[bytes]) -> list[int]:
    if b"{" in b"".join(keys):
        return list(map(key_slot, keys))
    crc = binascii.crc_hqx  # `key_slot` without the look for a hash tag
    return [crc(key, 0) % SLOT_COUNT for key in keys]


def _send(
    keys: list[bytes], routes: list[ShardRoute | None]
) -> dict[ShardRoute | None, tuple[Path, Volley]]:
    """Where they went, but for those that could not be sent."""
    now_s = asyncio.get_running_loop().time()
    by_route: defaultdict[ShardRoute | None, list[bytes]] = defaultdict(list)
    for key, route in zip(keys, routes, strict=True):
        by_route[route].append(key)
    choice = Paths()
    sent: dict[ShardRoute | None, tuple[Path, Volley]] = {}
    for route, wanted in by_route.items():
        path = None if route is None else choice.reader(route, now_s)
        if path is None:
            continue
        packed = b"".join([b"%b%b\r\n" % (_HEADS[len(key)], key) for key in wanted])
        try:
            sent[route] = path, path.connection.send_many(packed, len(wanted))
        except (ConnectionLost, Overloaded):
            continue
    return sent


def _replies(path: Path, volley: Volley) -> list[Any]:
    """Those to be used; none when some are errors, which another way must tell."""
    replies = volley.replies()
    if not _PLAIN.issuperset(map(type, replies)):
        return []
    if not volley.last.done() and path.place.role == "replica":
        path.link.leave_out(asyncio.get_running_loop().time())
    return replies


async def _all_done(futures: list[asyncio.Future[Any]], timeout_s: float) -> None:
    """As `asyncio.wait`, which takes three times as long."""
    loop = asyncio.get_running_loop()
    gate: asyncio.Future[None] = loop.create_future()
    left = len(futures)

    def open_gate() -> None:
        if not gate.done():
            gate.set_result(None)

    def one_done(_: asyncio.Future[Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            open_gate()

    timer = loop.call_later(timeout_s, open_gate)
    for future in futures:
        future.add_done_callback(one_done)
    try:
        await gate
    finally:
        timer.cancel()


async def _finish(router: Router, keys: list[bytes], found: Found, left: list[int]) -> None:
    parts = [
        Part(found.slots[index], b"%b%b\r\n" % (_HEADS[len(keys[index])], keys[index]), False)
        for index in left
    ]
    await carry_out(router, parts, PLAIN)
    for index, part in zip(left, parts, strict=True):
        found.values[index], found.places[index] = part.value, part.place
