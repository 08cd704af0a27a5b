"""Reading, writing and deleting keys: execution and answer, apart from how a request came in.

Law: `read`, `write` and `delete` return or raise; they know nothing of HTTP's shape beyond status
numbers in errors.  Items of one batch run side by side, but those of the same key in their order.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from shardcluster.slots import key_slot
from shardcluster_api.answers import DIGITS, json_string, json_text, place_fields, place_headers
from shardcluster_api.codec import BatchItem, ItemKind, bytes_fields, flag_fields
from shardcluster_api.commands.many import read_many
from shardcluster_api.commands.wave import How, Part, carry_out
from shardcluster_api.durability import WAITS, reached
from shardcluster_api.errors import ApiError, KeyNotFound, OutcomeUnknown, TooLarge
from shardcluster_api.limits import BATCH_ANSWER_BYTES_MAX
from shardcluster_api.plain_json import are_plain
from shardcluster_runtime.wire import packed

if TYPE_CHECKING:
    from shardcluster.spec_model import Durability
    from shardcluster_api.codec import WriteRequest
    from shardcluster_api.commands.many import Found
    from shardcluster_api.router import Reply, Router

_NEXT = b',{"op":"get","key":"'
_FIRST = b'{"results":[' + _NEXT[1:]

__all__ = ["batch", "batch_read", "delete", "read", "write"]


async def read(router: Router, key: bytes, *, strong: bool) -> tuple[int, Reply]:
    """The slot and the reply whose value is the key's; raises KeyNotFound."""
    router.hot_keys.saw(key)
    slot = key_slot(key)
    reply = await router.read(slot, packed((b"GET", key)), strong=strong)
    if reply.value is None:
        raise _not_found(key, slot, reply)
    if not isinstance(reply.value, bytes):
        raise ApiError(502, "EngineError", f"{reply.node} answered GET with what is no string.")
    return slot, reply


async def write(router: Router, request: WriteRequest) -> tuple[int, Reply, dict[str, Any]]:
    """The slot, the reply, and what is to be said of the expiry and the durability."""
    router.hot_keys.saw(request.key)
    slot = key_slot(request.key)
    durability = request.durability or router.policy.durability
    reply = await router.write(slot, packed(_set(request)), WAITS[durability])
    if reply.value != b"OK":
        reply.link.give_up()  # it may be another command's: what comes after is no better
        raise OutcomeUnknown(reply.node, "its reply made no sense")
    return slot, reply, flag_fields(request.ttl_ms) | reached(durability, reply, slot)


def _set(request: WriteRequest) -> tuple[bytes, ...]:
    command = (b"SET", request.key, request.value)
    return command if request.ttl_ms is None else (*command, b"PX", b"%d" % request.ttl_ms)


async def delete(
    router: Router, key: bytes, durability: Durability | None = None
) -> tuple[int, Reply, dict[str, Any]]:
    """Like `write`; raises KeyNotFound when there was nothing to delete."""
    router.hot_keys.saw(key)
    slot = key_slot(key)
    durability = durability or router.policy.durability
    reply = await router.write(slot, packed((b"UNLINK", key)), WAITS[durability])
    if not reply.value:
        raise _not_found(key, slot, reply)
    return slot, reply, reached(durability, reply, slot)


def _not_found(key: bytes, slot: int, reply: Reply) -> KeyNotFound:
    fields = {**bytes_fields("key", key), "found": False, **place_fields(slot, reply)}
    return KeyNotFound(fields, place_headers(slot, reply))


async def batch(router: Router, items: list[BatchItem]) -> dict[str, Any]:
    """One result an item, in the items' order; errors are results, too.

    All items go out at once (see wave.py).  Only where writes of the same slot want different
    durability, they go one after the other.
    """
    default = router.policy.durability
    parts = [_part(item) for item in items]
    for item in items:
        router.hot_keys.saw(item.key)
    wanted = {_durability(item, default) for item in items if item.kind is not ItemKind.GET}
    if len(wanted) <= 1:
        await carry_out(router, parts, How(durability=wanted.pop() if wanted else default))
    else:
        await _by_durability(router, items, parts)
    room = _Room(BATCH_ANSWER_BYTES_MAX)
    results = [_result(*each, default, room) for each in zip(items, parts, strict=True)]
    return {"results": results, "failed": sum(map(_is_failure, results))}


async def batch_read(router: Router, keys: list[bytes]) -> bytes:
    """A batch of nothing but plain reads, and its answer in the JSON that `batch` gives."""
    router.hot_keys.saw_all(keys)
    found = await read_many(router, keys)
    return _written_plainly(keys, found) or _written(keys, found, router.policy.durability)


def _written_plainly(keys: list[bytes], found: Found) -> bytes:
    """The answer, where every key was found and is text that stands in JSON as it is."""
    if set(map(type, found.values)) != {bytes}:
        return b""
    values = b"".join(found.values)
    if len(values) > BATCH_ANSWER_BYTES_MAX or not are_plain([values, *keys]):
        return b""
    tails = {
        place: _tail(place).encode() + _NEXT for place in set(found.places) if place is not None
    }
    pieces = [_FIRST]
    for key, value, slot, place in zip(keys, found.values, found.slots, found.places, strict=True):
        assert place is not None  # for it has a value
        pieces += (
            key, b'","status":200,"value":"', value, b'","found":true,"slot":', DIGITS[slot],
            tails[place],
        )  # fmt: skip
    return b'%b],"failed":0}\n' % b"".join(pieces)[: -len(_NEXT)]


def _written(keys: list[bytes], found: Found, default: Durability) -> bytes:
    """The answer, whatever was found."""
    room = _Room(BATCH_ANSWER_BYTES_MAX)
    roomy = sum(map(_size, found.values)) <= BATCH_ANSWER_BYTES_MAX
    tails = {place: _tail(place) for place in set(found.places) if place is not None}
    written: list[str] = []
    failed = 0
    each = zip(keys, found.values, found.slots, found.places, strict=True)
    for key, value, slot, place in each:
        if roomy and type(value) is bytes and place is not None:
            try:
                # To make a dict of it and write that down takes three times as long.
                written.append(
                    f'{{"op":"get","key":{json_string(key.decode())},"status":200,"value":'
                    f'{json_string(value.decode())},"found":true,"slot":{slot}{tails[place]}'
                )
            except UnicodeDecodeError:
                pass
            else:
                continue
        part = Part(slot, b"", False)
        part.value, part.place = value, place
        result = _result(BatchItem(ItemKind.GET, key), part, default, room)
        failed += _is_failure(result)
        written.append(json_text(result))
    return f'{{"results":[{",".join(written)}],"failed":{failed}}}\n'.encode()


def _tail(place: Reply) -> str:
    """What follows the slot's number in the JSON of a result."""
    return _tail_of(place.shard, place.node, place.role)


@functools.lru_cache(maxsize=1024)
def _tail_of(shard: str, node: str, role: str) -> str:
    fields = {"shard": shard, "node": node, "role": role}  # as `place_fields` has them
    return f",{json_text(fields)[1:]}"


def _size(value: Any) -> int:
    return len(value) if type(value) is bytes else 0


def _is_failure(result: dict[str, Any]) -> bool:
    return bool(result["status"] >= 400 and result["status"] != 404)


async def _by_durability(router: Router, items: list[BatchItem], parts: list[Part]) -> None:
    """Those of each durability together."""
    default = router.policy.durability
    by_slot: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        by_slot.setdefault(part.slot, []).append(index)
    together: dict[Durability, list[int]] = {}
    waves = []
    for indexes in by_slot.values():
        wanted = {_durability(items[i], default) for i in indexes if parts[i].writing}
        if len(wanted) <= 1:
            together.setdefault(wanted.pop() if wanted else default, []).extend(indexes)
        else:
            waves.append(_one_by_one(router, [(items[i], parts[i]) for i in indexes]))
    for durability, indexes in together.items():
        how = How(durability=durability)
        waves.append(carry_out(router, [parts[i] for i in sorted(indexes)], how))
    await asyncio.gather(*waves)


async def _one_by_one(router: Router, each: list[tuple[BatchItem, Part]]) -> None:
    written = False
    for item, part in each:
        part.strong = part.strong or written
        written = written or part.writing
        how = How(durability=_durability(item, router.policy.durability))
        await carry_out(router, [part], how)


def _durability(item: BatchItem, default: Durability) -> Durability:
    asked = item.write.durability if item.write is not None else None
    return asked or default


def _part(item: BatchItem) -> Part:
    slot = key_slot(item.key)
    if item.kind is ItemKind.GET:
        return Part(slot, packed((b"GET", item.key)), False, item.strong)
    command = (b"UNLINK", item.key) if item.write is None else _set(item.write)
    return Part(slot, packed(command), True)


class _Room:
    """For the values of one batch: those that come when it is full are let go at once."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, size: int) -> None:
        if size > self._left:
            message = f"The values of this batch are longer than {BATCH_ANSWER_BYTES_MAX} bytes."
            raise TooLarge(message)
        self._left -= size


def _result(item: BatchItem, part: Part, default: Durability, room: _Room) -> dict[str, Any]:
    said: dict[str, Any] = {"op": item.kind.value, **bytes_fields("key", item.key)}
    reply, value = part.place, part.value
    try:
        if isinstance(value, ApiError):
            raise value
        assert reply is not None
        if item.kind is ItemKind.GET:
            if value is None:
                raise _not_found(item.key, part.slot, reply)
            room.take(len(value))
            said["status"] = 200
            said |= bytes_fields("value", value)
            said["found"] = True
            return said | place_fields(part.slot, reply)
        if item.kind is ItemKind.DELETE and not value:
            raise _not_found(item.key, part.slot, reply)
        more = reached(_durability(item, default), reply, part.slot)
    except ApiError as error:
        return {**said, "status": error.status, **error.document()}
    flags = flag_fields(item.write.ttl_ms) if item.write is not None else {}
    return {**said, "status": 200, **flags, **more, **place_fields(part.slot, reply)}
