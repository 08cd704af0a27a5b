"""A request and an answer as both front ends (Flask, the fast protocol) hand them over.

Law: everything a client sees of an answer is in `Answer`; a front end adds only what HTTP itself
needs (Content-Length, Connection).  So both answer alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SLOT_COUNT
from shardcluster_api.access import Role

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from shardcluster_api.errors import ApiError
    from shardcluster_api.router import Reply

__all__ = [
    "DIGITS",
    "Answer",
    "Headers",
    "Request",
    "ascii_name",
    "error_answer",
    "json_answer",
    "json_string",
    "json_text",
    "place_fields",
    "place_headers",
]

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"

# Numbers as they are written, of slots and of short lengths: to look one up takes a third of the
# time, and there may be hundreds in an answer.
DIGITS = tuple(b"%d" % number for number in range(SLOT_COUNT))

Headers = tuple[tuple[str, str], ...]

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
json_string = encode_basestring  # a string in the same way


@dataclass(frozen=True, slots=True)
class Request:
    """What an operation may look at."""

    body: bytes = b""
    query: str = ""
    key: bytes = b""  # of /v1/keys/…, decoded
    method: str = "GET"
    path: bytes = b""  # as it was sent: still %-encoded, without the query
    headers: Mapping[bytes, bytes] = field(default_factory=dict)  # names in lower case
    role: Role = Role.ADMIN


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Headers = ()
    stream: AsyncGenerator[bytes, None] | None = None  # in place of a body, for as long as it lasts


def json_text(document: dict[str, Any]) -> str:
    """How every JSON document of ours is written."""
    return _JSON.encode(document)


def json_answer(document: dict[str, Any], status: int = 200, headers: Headers = ()) -> Answer:
    """A JSON document."""
    return Answer(status, json_text(document).encode() + b"\n", JSON_TYPE, headers)


def error_answer(error: ApiError) -> Answer:
    """An error."""
    return json_answer(error.document(), error.status, error.headers)


def place_fields(slot: int, reply: Reply) -> dict[str, Any]:
    """Where a key was read or written, for JSON."""
    return {"slot": slot, "shard": reply.shard, "node": reply.node, "role": reply.role}


def place_headers(slot: int, reply: Reply) -> Headers:
    """The same, as headers."""
    headers = (
        ("X-ShardCluster-Slot", str(slot)),
        ("X-ShardCluster-Shard", ascii_name(reply.shard)),
        ("X-ShardCluster-Node", ascii_name(reply.node)),
        ("X-ShardCluster-Role", reply.role),
    )
    return (*headers, ("X-ShardCluster-Stale", "master-down")) if reply.stale else headers


def ascii_name(name: str) -> str:
    """A name as a header may carry it."""
    return name if name.isascii() and name.isprintable() else ascii(name)
