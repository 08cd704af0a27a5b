"""The page and its files, as answers.

Law: the page runs nothing that is not one of these files.  Its Content-Security-Policy allows no
inline script or style and no other host, so text from the store can't become code; and it asks
nothing but this gateway.  Files are small and change only with the program, so they are read once
and browsers ask with If-None-Match whether theirs is still right.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from shardcluster_api.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardcluster_api.answers import Headers, Request
    from shardcluster_api.gateway import Gateway

__all__ = ["CONTENT_SECURITY_POLICY", "FILES", "asset_handler", "page"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
NOT_MODIFIED = 304
_PAGE = "index.html"
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_GUARDS: Headers = (
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
_PAGE_GUARDS: Headers = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)


@dataclass(frozen=True, slots=True)
class _File:
    """One file, ready to be sent."""

    body: bytes
    content_type: str
    headers: Headers


def _names() -> tuple[str, ...]:
    found = resources.files(__package__).joinpath("static").iterdir()
    return tuple(sorted(file.name for file in found if file.name.rpartition(".")[2] in _TYPES))


FILES = tuple(name for name in _names() if name != _PAGE)


@functools.cache
def _file(name: str) -> _File:
    body = resources.files(__package__).joinpath("static", name).read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = (("ETag", etag), ("Cache-Control", "no-cache"), *_GUARDS)
    guards = _PAGE_GUARDS if name == _PAGE else ()
    return _File(body, _TYPES[name.rpartition(".")[2]], (*headers, *guards))


def _answer(name: str, request: Request) -> Answer:
    file = _file(name)
    known = request.headers.get(b"if-none-match", b"").decode("latin-1")
    etag = dict(file.headers)["ETag"]
    # Proxies that compress weaken the tag (W/"…"); the content is the same.
    if any(part.strip().removeprefix("W/") in {etag, "*"} for part in known.split(",")):
        return Answer(NOT_MODIFIED, b"", file.content_type, file.headers)
    return Answer(200, file.body, file.content_type, file.headers)


async def page(_gateway: Gateway, request: Request) -> Answer:
    """The page itself."""
    return _answer(_PAGE, request)


def asset_handler(name: str) -> Callable[[Gateway, Request], Awaitable[Answer]]:
    """What answers for one of `FILES`."""

    async def asset(_gateway: Gateway, request: Request) -> Answer:
        return _answer(name, request)

    return asset
