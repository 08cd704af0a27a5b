"""Reading, writing and deleting keys: execution and answer, apart from how a request came in.

Law: `read`, `write` and `delete` return or raise; they know nothing of HTTP's shape beyond status
numbers in errors.  Items of one batch run side by side, but those of the same key in their order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import hiredis

from shardcluster.slots import key_slot
from shardcluster.spec_model import Durability
from shardcluster_api.answers import place_fields, place_headers
from shardcluster_api.codec import ItemKind, bytes_fields, flag_fields
from shardcluster_api.errors import ApiError, DurabilityNotReached, KeyNotFound, TooLarge
from shardcluster_api.limits import BATCH_ANSWER_BYTES_MAX, DURABILITY_WAIT_S

if TYPE_CHECKING:
    from shardcluster_api.codec import BatchItem, WriteRequest
    from shardcluster_api.router import Reply, Router

__all__ = ["batch", "delete", "read", "write"]

_WAIT_MS = int(DURABILITY_WAIT_S * 1000)
_WAITS: dict[Durability, tuple[str | int, ...] | None] = {
    Durability.ASYNC: None,
    Durability.REPLICA: ("WAIT", 1, _WAIT_MS),
    Durability.DISK: ("WAITAOF", 1, 0, _WAIT_MS),
}
_ACKED_FIELD = {Durability.REPLICA: "replicas_acked", Durability.DISK: "disks_acked"}


async def read(router: Router, key: bytes, *, strong: bool) -> tuple[int, Reply]:
    """The slot and the reply whose value is the key's; raises KeyNotFound."""
    router.hot_keys.saw(key)
    slot = key_slot(key)
    reply = await router.read(slot, _packed(b"GET", key), strong=strong)
    if reply.value is None:
        raise _not_found(key, slot, reply)
    if not isinstance(reply.value, bytes):
        raise ApiError(502, "EngineError", f"{reply.node} answered GET with what is no string.")
    return slot, reply


async def write(router: Router, request: WriteRequest) -> tuple[int, Reply, dict[str, Any]]:
    """The slot, the reply, and what is to be said of the expiry and the durability."""
    router.hot_keys.saw(request.key)
    slot = key_slot(request.key)
    command: tuple[bytes | int, ...] = (b"SET", request.key, request.value)
    if request.ttl_ms is not None:
        command = (*command, b"PX", request.ttl_ms)
    durability = request.durability or router.policy.durability
    reply = await router.write(slot, _packed(*command), _WAITS[durability])
    return slot, reply, flag_fields(request.ttl_ms) | _reached(durability, reply, slot)


async def delete(
    router: Router, key: bytes, durability: Durability | None = None
) -> tuple[int, Reply, dict[str, Any]]:
    """Like `write`; raises KeyNotFound when there was nothing to delete."""
    router.hot_keys.saw(key)
    slot = key_slot(key)
    durability = durability or router.policy.durability
    reply = await router.write(slot, _packed(b"UNLINK", key), _WAITS[durability])
    if not reply.value:
        raise _not_found(key, slot, reply)
    return slot, reply, _reached(durability, reply, slot)


def _packed(*command: bytes | str | float) -> bytes:
    packed: bytes = hiredis.pack_command(cast("Any", command))  # its stub knows one-tuples only
    return packed


def _not_found(key: bytes, slot: int, reply: Reply) -> KeyNotFound:
    fields = {**bytes_fields("key", key), "found": False, **place_fields(slot, reply)}
    return KeyNotFound(fields, place_headers(slot, reply))


def _reached(durability: Durability, reply: Reply, slot: int) -> dict[str, Any]:
    """What WAIT said; raises DurabilityNotReached when that is less than asked."""
    said: dict[str, Any] = {"durability": durability.value}
    if durability is Durability.ASYNC:
        return said
    acked = reply.acked
    said[_ACKED_FIELD[durability]] = acked if isinstance(acked, int) else 0
    if acked != 0 and isinstance(acked, int):
        return said
    where = "a replica" if durability is Durability.REPLICA else "the master's disk"
    why = f" ({acked})" if isinstance(acked, str) else ""
    message = (
        f"{reply.node} applied the write, but {where} did not confirm it within "
        f"{DURABILITY_WAIT_S:g} s{why}."
    )
    raise DurabilityNotReached(message, {**said, **place_fields(slot, reply)})


async def batch(router: Router, items: list[BatchItem]) -> list[dict[str, Any]]:
    """One result an item, in the items' order; errors are results, too.

    All commands of one event-loop tick leave as one write for each node, so that the fan-out by
    node needs no code here.
    """
    results: list[dict[str, Any]] = [{}] * len(items)
    room = _Room(BATCH_ANSWER_BYTES_MAX)
    by_key: dict[bytes, list[int]] = {}
    for index, item in enumerate(items):
        by_key.setdefault(item.key, []).append(index)

    async def in_order(indexes: list[int]) -> None:
        written = False
        for index in indexes:
            results[index] = await _result(router, items[index], room, written=written)
            written = written or items[index].kind is not ItemKind.GET

    await asyncio.gather(*map(in_order, by_key.values()))
    return results


class _Room:
    """For the values of one batch: those that come when it is full are let go at once."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, size: int) -> None:
        if size > self._left:
            message = f"The values of this batch are longer than {BATCH_ANSWER_BYTES_MAX} bytes."
            raise TooLarge(message)
        self._left -= size


async def _result(router: Router, item: BatchItem, room: _Room, *, written: bool) -> dict[str, Any]:
    """`written`: this batch wrote the key before, so the read must see that."""
    said: dict[str, Any] = {"op": item.kind.value, **bytes_fields("key", item.key)}
    try:
        if item.write is not None:
            slot, reply, more = await write(router, item.write)
            return {**said, "status": 200, **more, **place_fields(slot, reply)}
        if item.kind is ItemKind.DELETE:
            slot, reply, more = await delete(router, item.key)
            return {**said, "status": 200, **more, **place_fields(slot, reply)}
        slot, reply = await read(router, item.key, strong=item.strong or written)
        room.take(len(reply.value))
    except ApiError as error:
        return {**said, "status": error.status, **error.document()}
    value = bytes_fields("value", reply.value)
    return {**said, "status": 200, **value, "found": True, **place_fields(slot, reply)}
