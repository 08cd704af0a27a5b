"""What a request's head may look like, beyond what the parser insists on.

Law: a request that two programs could take for different ones is refused, and its connection ends:
a proxy before us that reads it in another way could be made to give one client's answer to
another.  So a body has one length said in one way, a request one host, and nothing comes after a
head that could change it.  The parser (llhttp) already refuses bare line feeds, folded headers,
spaces before colons, control characters, and `Content-Length` beside `Transfer-Encoding`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster_api.errors import ApiError, BadRequest
from shardcluster_api.limits import HEAD_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Framing", "Head", "head_too_large", "read_head"]

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ONCE = frozenset({b"authorization", b"content-length", b"host", b"origin", b"transfer-encoding"})
_FRAMING_FACTOR = 16  # a chunk of one byte has five around it
_HEADER_EXTRA_BYTES = 4  # ": " and the line's end


@dataclass(slots=True)
class Head:
    """What the gateway itself wants to know of a head."""

    body_bytes: int | None = 0  # None for a chunked body
    host: str | None = None
    origin: str | None = None
    refusal: ApiError | None = None


def read_head(version: str, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Look at a whole head; header names are in lower case."""
    head = Head()
    size, count = len(url), 0
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        size += len(name) + len(value) + _HEADER_EXTRA_BYTES
        count += 1
        if name in _ONCE:
            if name in once:
                head.refusal = BadRequest(f"The header {name.decode()} may come once only.")
                return head
            once[name] = value
    head.refusal = (
        _refusal_of_size(size, count, len(url))
        or _refusal_of_target(version, url, once.get(b"host"))
        or _refusal_of_body(version, once)
    )
    if head.refusal is None:
        length, host, origin = map(once.get, (b"content-length", b"host", b"origin"))
        head.body_bytes = None if b"transfer-encoding" in once else int(length or 0)
        head.host = None if host is None else host.decode("latin-1")
        head.origin = None if origin is None else origin.decode("latin-1")
    return head


def _refusal_of_size(size: int, count: int, url_bytes: int) -> ApiError | None:
    if url_bytes > URL_BYTES_MAX:
        return ApiError(414, "TooLarge", f"The request's URL is longer than {URL_BYTES_MAX} bytes.")
    if size > HEAD_BYTES_MAX:
        return head_too_large()
    if count > HEADERS_MAX:
        return ApiError(431, "TooLarge", f"The request has more than {HEADERS_MAX} headers.")
    return None


def _refusal_of_target(version: str, url: bytes, host: bytes | None) -> ApiError | None:
    if version not in {"1.1", "1.0"}:
        return ApiError(505, "BadRequest", "This gateway speaks HTTP/1.1.")
    if url[:1] != b"/" or b"#" in url:
        return BadRequest("The request's target must be a path that begins with / and has no #.")
    if host is None:
        return BadRequest("The header Host is missing.") if version == "1.1" else None
    return None if _HOST.fullmatch(host) else BadRequest("The header Host names no host.")


def _refusal_of_body(version: str, once: dict[bytes, bytes]) -> ApiError | None:
    coding = once.get(b"transfer-encoding")
    if coding is not None:
        if version != "1.1" or b"content-length" in once:
            return BadRequest("Transfer-Encoding is for HTTP/1.1, and not beside Content-Length.")
        if coding.strip(b" \t").lower() != b"chunked":
            return ApiError(501, "BadRequest", "The only Transfer-Encoding here is chunked.")
    length = once.get(b"content-length")
    if length is not None and not length.strip(b" \t").isdigit():
        return BadRequest("The header Content-Length is not a number.")
    return None


class Framing:
    """What of a chunked body is body, and what stands between the chunks.

    The parser takes extensions of chunks of any length; they say nothing to us.
    """

    __slots__ = ("_body_bytes", "_other_bytes", "_piece_bytes")

    def __init__(self) -> None:
        """At the end of the head."""
        self._body_bytes = self._other_bytes = self._piece_bytes = 0

    def took(self, size: int) -> None:
        """So much of the body came."""
        self._body_bytes += size
        self._piece_bytes += size

    def endless(self, size: int) -> bool:
        """Whether it is mostly something else, after a piece of `size` bytes in all."""
        self._other_bytes += size - self._piece_bytes
        self._piece_bytes = 0
        return self._other_bytes > HEAD_BYTES_MAX + _FRAMING_FACTOR * self._body_bytes


def head_too_large() -> ApiError:
    """For a head over the limit, complete or not."""
    return ApiError(431, "TooLarge", f"The request's head is longer than {HEAD_BYTES_MAX} bytes.")
