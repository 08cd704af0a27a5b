"""What the protocols of other systems have in common: options in headers, arguments in paths."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from shardcluster.spec_model import Durability
from shardcluster_api.commands.sync_token import parse
from shardcluster_api.commands.wave import How
from shardcluster_api.errors import BadRequest

if TYPE_CHECKING:
    from shardcluster_api.answers import Request
    from shardcluster_api.gateway import Gateway

__all__ = ["SYNC_TOKEN", "how_of", "path_arguments", "query_pairs"]

SYNC_TOKEN = "upstash-sync-token"  # noqa: S105 - a header's name
_DURABILITIES = {one.value.encode(): one for one in Durability}
_CONSISTENCIES = {b"eventual": False, b"strong": True}
_TOKEN = b"_token"  # of the query; whoever lets requests in has looked at it


def how_of(gateway: Gateway, request: Request) -> How:
    """What the headers ask for; raises BadRequest."""
    headers = request.headers
    durability = gateway.router.policy.durability
    asked = headers.get(b"x-shardcluster-durability")
    if asked is not None:
        if asked not in _DURABILITIES:
            message = 'X-ShardCluster-Durability must be "async", "replica" or "disk".'
            raise BadRequest(message)
        durability = _DURABILITIES[asked]
    strong = _CONSISTENCIES.get(headers.get(b"x-shardcluster-consistency", b"eventual"))
    if strong is None:
        message = 'X-ShardCluster-Consistency must be "eventual" or "strong".'
        raise BadRequest(message)
    return How(strong, durability, parse(headers.get(SYNC_TOKEN.encode(), b"")))


def path_arguments(path: bytes) -> list[bytes]:
    """The parts between slashes, decoded; `%2F` is a slash that does not separate."""
    return [unquote_to_bytes(part) for part in path.split(b"/")]


def query_pairs(query: str) -> list[tuple[bytes, bytes | None]]:
    """Names and values in their order, without the token; None where there is no `=`."""
    found: list[tuple[bytes, bytes | None]] = []
    for part in query.split("&") if query else ():
        name_text, equals, value_text = part.partition("=")
        name = unquote_to_bytes(name_text.replace("+", " "))
        if name and name != _TOKEN:
            value = unquote_to_bytes(value_text.replace("+", " ")) if equals else None
            found.append((name, value))
    return found
