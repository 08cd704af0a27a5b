"""Commands that concern every shard: each master is asked, and the answers become one.

SCAN goes through the slots in their order.  Its cursor names the next slot (and for a slot too big
for one answer, where in it, and a mark of the node that said so), not a shard: slots that were
gone through stay so, and the others are looked for wherever they are by then.  Law: a key that is
there from the first call to the last is returned, also while slots move, except one that is itself
moved while its own slot is being gone through; some keys may be returned twice, as with any SCAN.
"""

from __future__ import annotations

import asyncio
import binascii
import random
from typing import TYPE_CHECKING, Any

from shardcluster.cluster_nodes import parse_cluster_nodes
from shardcluster.slots import SLOT_COUNT, key_slot
from shardcluster_api.commands.info import joined_info
from shardcluster_api.commands.plans import Plan
from shardcluster_api.commands.table import CommandRefused
from shardcluster_api.commands.wave import How, Part, carry_out
from shardcluster_api.errors import NotServed
from shardcluster_api.limits import REQUEST_DEADLINE_S
from shardcluster_runtime.wire import packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster_api.commands.table import Command
    from shardcluster_api.router import Router

__all__ = ["on_every_shard"]

_SLOT_BITS = 14  # of the engine's own cursor, which names a slot there as well
_MARK_BITS = 10
_SLOT_MASK, _MARK_MASK = (1 << _SLOT_BITS) - 1, (1 << _MARK_BITS) - 1
_CURSOR_MAX = 1 << 64
_CHANGE_WAIT_S = 0.05  # before a node is looked for again
_STRONG = How(strong=True)
_PACKED_NODES = packed((b"CLUSTER", b"NODES"))


async def on_every_shard(router: Router, command: Command, arguments: list[bytes], how: How) -> Any:
    """The command's answer; raises ApiError."""
    if command.name == "scan":
        return await _scan(router, arguments)
    if command.name == "randomkey":
        return await _random_key(router)
    parts = _parts(router, arguments, writing=not command.reads)
    await carry_out(router, parts, How(strong=True, durability=how.durability))
    return Plan(parts, _JOINS.get(command.name, _first)).joined()


def _parts(router: Router, arguments: list[bytes], *, writing: bool) -> list[Part]:
    """One for each shard, by one of its slots."""
    slot_map = router.topology.map
    if slot_map.slots_owned() < SLOT_COUNT:
        message = f"Only {slot_map.slots_owned()} of {SLOT_COUNT} slots have a known owner."
        raise NotServed(message, writing=writing)
    slots = {id(route): slot for slot, route in enumerate(slot_map.owners)}
    whole = packed(arguments)
    return [Part(slot, whole, writing) for slot in sorted(slots.values())]


# -- joining -------------------------------------------------------------------------------


def _first(parts: list[Part]) -> Any:
    return parts[0].value


def _sum(parts: list[Part]) -> int:
    return sum(part.value for part in parts)


def _all_of(parts: list[Part]) -> list[Any]:
    return [one for part in parts for one in part.value]


def _on_all(parts: list[Part]) -> list[int]:
    """SCRIPT EXISTS: a script is there when every shard has it."""
    return [min(each) for each in zip(*(part.value for part in parts), strict=True)]


def _info(parts: list[Part]) -> bytes:
    names = [part.place.shard if part.place is not None else "" for part in parts]
    return joined_info(names, [part.value for part in parts])


_JOINS: dict[str, Callable[[list[Part]], Any]] = {
    "dbsize": _sum,
    "info": _info,
    "keys": _all_of,
    "script|exists": _on_all,
}


async def _random_key(router: Router) -> Any:
    """Of a random shard, those with more keys more often."""
    sizes = _parts(router, [b"DBSIZE"], writing=False)
    await carry_out(router, sizes, _STRONG)
    failure = Plan(sizes, _sum).joined()
    if not isinstance(failure, int) or failure == 0:
        return None if failure == 0 else failure
    (chosen,) = random.choices(sizes, [part.value for part in sizes])  # noqa: S311 - no secret
    asked = Part(chosen.slot, packed((b"RANDOMKEY",)), writing=False)
    await carry_out(router, [asked], _STRONG)
    return asked.value


# -- SCAN ----------------------------------------------------------------------------------


async def _scan(router: Router, arguments: list[bytes]) -> Any:
    slot, mark, inside = _read_cursor(arguments[1])
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + REQUEST_DEADLINE_S
    while True:
        found = await _scan_step(router, (slot, mark, inside), arguments, deadline_s)
        if found is not None:
            return found
        router.topology.refresh_soon()
        if loop.time() >= deadline_s:
            message = f"No node says that it owns slot {slot}."
            raise NotServed(message, writing=False)
        await router.topology.changed(_CHANGE_WAIT_S)


async def _scan_step(
    router: Router, cursor: tuple[int, int, int], arguments: list[bytes], deadline_s: float
) -> Any:
    """One answer; None when the node asked turns out not to own the slot.

    The node is asked before and after which slots it owns: only of those it was the owner all the
    while does its answer tell everything.
    """
    slot, mark, inside = cursor
    route = router.topology.map.owners[slot]
    inside = inside if route is not None and mark == _mark(route.master.node_id) else 0
    engine_cursor = b"%d" % (inside << _SLOT_BITS | slot)
    asked = (_PACKED_NODES, packed((b"SCAN", engine_cursor, *arguments[2:])), _PACKED_NODES)
    before, reply, after = await asyncio.gather(
        *(router.read(slot, one, strong=True, deadline_s=deadline_s) for one in asked)
    )
    if not before.node == reply.node == after.node:
        return None
    node_id, end = _owned_until(slot, before.value)
    end = min(end, _owned_until(slot, after.value)[1])
    if end < slot:
        return None
    following, keys = int(reply.value[0]), reply.value[1]
    at, rest = following & _SLOT_MASK, following >> _SLOT_BITS
    if following == 0 or at > end:
        keys = [key for key in keys if slot <= key_slot(key) <= end]
        at, rest = end + 1, 0
    if at >= SLOT_COUNT:
        return [b"0", keys]
    return [b"%d" % (((rest << _MARK_BITS) | _mark(node_id)) << _SLOT_BITS | at), keys]


def _owned_until(slot: int, view: bytes) -> tuple[str, int]:
    """The node's id, and the last slot of the run from `slot` on that it says it owns."""
    for peer in parse_cluster_nodes(view.decode()).peers:
        if "myself" not in peer.flags:
            continue
        for first, last in peer.slots.ranges():
            if first <= slot <= last:
                return peer.node_id, last
    return "", -1


def _mark(node_id: str) -> int:
    return binascii.crc_hqx(node_id.encode(), 0) & _MARK_MASK


def _read_cursor(text: bytes) -> tuple[int, int, int]:
    """Slot, mark of the node, place in the slot."""
    cursor = int(text) if text.isdigit() else _CURSOR_MAX
    if cursor >= _CURSOR_MAX:
        message = "ERR invalid cursor"
        raise CommandRefused(message)
    rest = cursor >> _SLOT_BITS
    return cursor & _SLOT_MASK, rest & _MARK_MASK, rest >> _MARK_BITS
