"""What the protocols of other systems have in common: options in headers, arguments in paths."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from shardcluster.spec_model import Durability
from shardcluster_api.access import Role
from shardcluster_api.commands.sync_token import parse
from shardcluster_api.commands.wave import How
from shardcluster_api.errors import BadRequest
from shardcluster_api.guards import refusal_of_origin

if TYPE_CHECKING:
    from shardcluster_api.answers import Request
    from shardcluster_api.gateway import Gateway

__all__ = [
    "OTHER_SITES", "SYNC_TOKEN", "how_of", "path_arguments", "query_pairs", "role_here",
]  # fmt: skip

SYNC_TOKEN = "upstash-sync-token"  # noqa: S105 - a header's name
_DURABILITIES = {one.value.encode(): one for one in Durability}
_CONSISTENCIES = {b"eventual": False, b"strong": True}
OTHER_SITES = frozenset({b"cross-site", b"same-site"})  # what browsers say in Sec-Fetch-Site
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


def role_here(gateway: Gateway, request: Request) -> Role:
    """The request's role; but a page of another site that makes a browser GET may only read.

    For other methods the front ends have refused such pages already (see guards.py).
    """
    headers = request.headers
    origin = headers.get(b"origin")
    if origin is None:
        other_site = headers.get(b"sec-fetch-site") in OTHER_SITES
    else:
        host, cors = headers.get(b"host", b"").decode("latin-1"), gateway.settings.cors
        other_site = refusal_of_origin("POST", origin.decode("latin-1"), host, cors) is not None
    return min(request.role, Role.READ) if other_site else request.role


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
