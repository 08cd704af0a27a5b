"""Reads requests and writes answers: bytes in, typed values out, and back.  Pure.

Law: keys and values are bytes; every byte goes in and comes out unchanged.  In JSON they are text
when they are valid UTF-8, else base64 under `key_base64` / `value_base64`; requests may use either.
What isn't exactly as described is refused with a sentence: unknown fields and query parameters,
repeated ones, wrong types.  The empty key is refused everywhere, because `/v1/keys/` can't name it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from shardcluster.spec_model import Durability
from shardcluster_api.errors import BadRequest, TooLarge
from shardcluster_api.limits import (
    BATCH_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    TTL_SECONDS_MAX,
    VALUE_BYTES_MAX,
)
from shardcluster_api.plain_json import BATCH_READS, plain_strings
from shardcluster_api.tokens import TOKEN_PARAMETER

__all__ = [
    "BatchItem", "ItemKind", "WriteRequest", "bytes_fields", "checked_key",
    "checked_value", "flag_fields", "json_object", "parse_batch", "parse_change",
    "parse_consistency", "parse_node", "parse_nothing", "parse_query", "parse_read", "parse_write",
    "plain_reads", "write_options",
]  # fmt: skip

_QUOTED_MAX = 60  # of a client's own words in an error message


class ItemKind(enum.Enum):
    """What one item of a batch does."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"


class WriteRequest(NamedTuple):
    """A checked write."""

    key: bytes
    value: bytes
    ttl_ms: int | None = None
    durability: Durability | None = None  # None: as the store's spec says


class BatchItem(NamedTuple):
    """A checked item of a batch; `write` is set for a put."""

    kind: ItemKind
    key: bytes
    write: WriteRequest | None = None
    strong: bool = False


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; raises BadRequest."""
    try:
        found = json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant
        )
    except BadRequest:
        raise
    except (ValueError, RecursionError):
        _refuse("The body must be JSON in UTF-8.")
    if not isinstance(found, dict):
        _refuse("The body must be a JSON object.")
    return found


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("A field is named twice in the same JSON object.")
    return found


def _no_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON.")


def parse_query(query: str, *allowed: str) -> dict[str, bytes]:
    """The query's parameters as bytes; raises BadRequest for unknown or repeated ones."""
    found: dict[str, bytes] = {}
    for part in query.split("&") if query else ():
        name_text, _, value_text = part.partition("=")
        if not part:
            continue
        name = unquote_to_bytes(name_text.replace("+", " ")).decode("utf-8", "replace")
        if name == TOKEN_PARAMETER:
            continue  # it said who asks, not what
        if name not in allowed:
            known = ", ".join(allowed) if allowed else "none"
            _refuse(f"Unknown query parameter {_quoted(name)}; known here: {known}.")
        if name in found:
            _refuse(f'The query names "{name}" twice.')
        found[name] = unquote_to_bytes(value_text.replace("+", " "))
    return found


def parse_consistency(query: dict[str, bytes]) -> bool:
    """Whether `consistency=strong` was asked for."""
    wanted = query.get("consistency", b"eventual")
    return _consistency(wanted.decode("utf-8", "replace"))


def _consistency(wanted: object) -> bool:
    if wanted not in ("eventual", "strong"):
        _refuse('"consistency" must be "eventual" or "strong".')
    return wanted == "strong"


def write_options(query: dict[str, bytes]) -> tuple[int | None, Durability | None]:
    """`ttl_seconds` and `durability` of a query."""
    ttl_ms: int | None = None
    if "ttl_seconds" in query:
        try:
            ttl_ms = _ttl_ms(float(query["ttl_seconds"].decode("ascii")))
        except ValueError:
            _ttl_ms(None)
    if "durability" not in query:
        return ttl_ms, None
    return ttl_ms, _durability(query["durability"].decode("utf-8", "replace"))


def checked_key(key: bytes) -> bytes:
    """The key, if it may be one."""
    if not key:
        _refuse("The key must not be empty.")
    if len(key) > KEY_BYTES_MAX:
        message = f"The key is longer than {KEY_BYTES_MAX} bytes."
        raise TooLarge(message)
    return key


def checked_value(value: bytes) -> bytes:
    """The value, if it may be one."""
    if len(value) > VALUE_BYTES_MAX:
        message = f"The value is longer than {VALUE_BYTES_MAX} bytes."
        raise TooLarge(message)
    return value


def parse_read(body: bytes) -> tuple[bytes, bool]:
    """Body of POST /read: the key, and whether the read is to be strong."""
    fields = json_object(body)
    _known(fields, "key", "key_base64", "consistency")
    return _key(fields), _consistency(fields.get("consistency", "eventual"))


_WRITE_FIELDS = ("key", "key_base64", "value", "value_base64", "ttl_seconds", "durability")


def parse_write(body: bytes) -> WriteRequest:
    """Body of POST /write."""
    fields = json_object(body)
    _known(fields, *_WRITE_FIELDS)
    return _write(fields)


def _write(fields: dict[str, Any]) -> WriteRequest:
    key = _key(fields)
    value = checked_value(_bytes(fields, "value"))
    ttl_ms = _ttl_ms(fields["ttl_seconds"]) if "ttl_seconds" in fields else None
    durability = _durability(fields["durability"]) if "durability" in fields else None
    return WriteRequest(key, value, ttl_ms, durability)


def parse_batch(body: bytes) -> list[BatchItem]:
    """Body of POST /v1/batch; a wrong item refuses the whole batch, nothing is done."""
    fields = json_object(body)
    _known(fields, "operations")
    items = fields.get("operations")
    if not isinstance(items, list):
        _refuse('"operations" must be a list.')
    if len(items) > BATCH_OPERATIONS_MAX:
        message = f"A batch may hold {BATCH_OPERATIONS_MAX} operations; this one has {len(items)}."
        raise TooLarge(message)
    found: list[BatchItem] = []
    for index, item in enumerate(items):
        try:
            found.append(_item(item))
        except (BadRequest, TooLarge) as error:
            message = f"operations[{index}]: {error}"
            raise type(error)(message) from None
    return found


def plain_reads(body: bytes) -> list[bytes]:
    """The keys of a batch that only reads and asks for nothing else; [] when it is not one.

    What this says no to may still be right, and what is wrong is never told here: it only saves
    `parse_batch` for the commonest body.
    """
    if keys := plain_strings(body, BATCH_READS):
        return keys if b"" not in keys else []
    if b"\\" in body:
        return []
    try:
        fields = json.loads(body)
        items = fields["operations"]
        keys = [item["key"].encode() for item in items if item["op"] == "get" and len(item) == 2]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return []
    # Without escapes every string is two quotes, so a field that is named twice would show.
    plain = len(fields) == 1 and len(keys) == len(items) <= BATCH_OPERATIONS_MAX
    if not plain or body.count(b'"') != 2 + 8 * len(keys) or b"" in keys:
        return []
    return keys


def _item(item: object) -> BatchItem:
    if not isinstance(item, dict):
        _refuse("It must be a JSON object.")
    if len(item) == 2 and item.get("op") == "get" and "key" in item:  # the commonest one
        return BatchItem(ItemKind.GET, _key(item))
    try:
        kind = ItemKind(item.get("op"))
    except ValueError:
        _refuse('"op" must be "get", "put" or "delete".')
    if kind is ItemKind.PUT:
        _known(item, "op", *_WRITE_FIELDS)
        write = _write(item)
        return BatchItem(kind, write.key, write)
    if kind is ItemKind.GET:
        _known(item, "op", "key", "key_base64", "consistency")
        return BatchItem(kind, _key(item), None, _consistency(item.get("consistency", "eventual")))
    _known(item, "op", "key", "key_base64")
    return BatchItem(kind, _key(item))


def parse_node(body: bytes) -> str:
    """Body of POST /remove_node."""
    fields = json_object(body)
    _known(fields, "node")
    return _node(fields)


def _node(fields: dict[str, Any]) -> str:
    node = fields.get("node")
    if not isinstance(node, str) or not node:
        _refuse('"node" must be the name of a shard or of one of its nodes.')
    return node


def parse_change(body: bytes) -> tuple[str, str]:
    """Body of POST /v1/preview: `add`, `remove` or `rebalance`, and which shard to remove."""
    fields = json_object(body)
    change = fields.get("change")
    if change == "remove":
        _known(fields, "change", "node")
        return change, _node(fields)
    _known(fields, "change")
    if change not in ("add", "rebalance"):
        _refuse('"change" must be "add", "remove" or "rebalance".')
    return change, ""


def parse_nothing(body: bytes) -> None:
    """A body that says nothing: empty, or `{}`."""
    if body.strip():
        _known(json_object(body))


def bytes_fields(name: str, content: bytes) -> dict[str, str]:
    """`{name: text}`, or `{name_base64: …}` for what is not UTF-8."""
    try:
        return {name: content.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode("ascii")}


def flag_fields(ttl_ms: int | None) -> dict[str, float]:
    """The expiry in an answer."""
    return {} if ttl_ms is None else {"ttl_seconds": ttl_ms / 1000}


def _key(fields: dict[str, Any]) -> bytes:
    return checked_key(_bytes(fields, "key"))


def _bytes(fields: dict[str, Any], name: str) -> bytes:
    encoded = name + "_base64"
    if (name in fields) == (encoded in fields):
        _refuse(f'Give either "{name}" or "{encoded}".')
    given = fields.get(name, fields.get(encoded))
    if not isinstance(given, str):
        _refuse(f'"{name if name in fields else encoded}" must be a string.')
    try:
        if name in fields:
            return given.encode()
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        if name in fields:
            _refuse(f'"{name}" holds half a surrogate pair, which is not text.')
        _refuse(f'"{encoded}" is not base64.')


def _ttl_ms(given: object) -> int:
    number = given if isinstance(given, int | float) and not isinstance(given, bool) else math.nan
    if not 0 < number <= TTL_SECONDS_MAX:  # false for NaN as well
        _refuse(f'"ttl_seconds" must be a number over 0 and at most {TTL_SECONDS_MAX}.')
    return max(1, round(number * 1000))


def _durability(given: object) -> Durability:
    try:
        return Durability(str(given))
    except ValueError:
        _refuse('"durability" must be "async", "replica" or "disk".')


def _known(fields: dict[str, Any], *names: str) -> None:
    for name in fields:
        if name not in names:
            known = ", ".join(names) if names else "none"
            _refuse(f"Unknown field {_quoted(name)}; known here: {known}.")


def _quoted(words: str) -> str:
    return json.dumps(words[:_QUOTED_MAX])


def _refuse(message: str) -> NoReturn:
    raise BadRequest(message)
