"""How a byte stream of requests is to be read: a second, dumb and strict reading of HTTP/1.1.

Law: what the gateway carries out and answers is what is read here, in this order, and nothing
else.  The gateway may refuse more than this does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["Ending", "Read", "Reading", "read"]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rb"([A-Z-]+) +(/[!\"$-~]*) +HTTP/1\.([01])\r\n")  # spaces as the parser has it
_HEADER = re.compile(rb"(%b):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n" % _TOKEN)
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_CHUNK_DIGITS_MAX = 16
_LENGTH_MAX = 2**63
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"origin", b"authorization")


class Ending(Enum):
    """What comes after the last request."""

    NOTHING = "nothing"
    PART = "a part of a request"
    WRONG = "something that is no request"
    CLOSE = "whatever comes is not read: the client wanted it so"


class Read(NamedTuple):
    """One request."""

    method: str
    target: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """All requests and what comes after them."""

    requests: list[Read]
    ending: Ending


class _Wrong(Exception):
    pass


class _Part(Exception):
    pass


def read(data: bytes) -> Reading:
    """Read a whole stream."""
    found: list[Read] = []
    at = 0
    while True:
        while data[at : at + 1] in {b"\r", b"\n"}:
            at += 1  # as the parser has it: empty lines between requests mean nothing
        if at >= len(data):
            return Reading(found, Ending.NOTHING)
        try:
            request, at, last = _request(data, at)
        except _Wrong:
            return Reading(found, Ending.WRONG)
        except _Part:
            return Reading(found, Ending.PART)
        found.append(request)
        if last:
            return Reading(found, Ending.CLOSE)


def _request(data: bytes, at: int) -> tuple[Read, int, bool]:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise _Part
    line = _LINE.match(data, at, end + 2)
    if line is None:
        raise _Wrong
    method, target, minor = line.groups()
    headers, at = _headers(data, line.end(), end + 2)
    at += 2
    if minor == b"1" and b"host" not in headers:
        raise _Wrong
    words = [word.strip().lower() for word in headers.get(b"connection", b"").split(b",")]
    if b"upgrade" in headers and b"upgrade" in words:
        raise _Wrong
    body, at = _body(data, at, headers, minor)
    last = minor == b"0" or b"close" in words
    return Read(method.decode(), target, body), at, last


def _headers(data: bytes, at: int, end: int) -> tuple[dict[bytes, bytes], int]:
    found: dict[bytes, bytes] = {}
    while at < end:
        header = _HEADER.match(data, at, end)
        if header is None:
            raise _Wrong
        name = header[1].lower()
        if name in found and name in _ONCE:
            raise _Wrong
        found[name] = b", ".join(filter(None, (found.get(name), header[2])))
        at = header.end()
    return found, at


def _body(data: bytes, at: int, headers: dict[bytes, bytes], minor: bytes) -> tuple[bytes, int]:
    coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None:
        if length is not None or minor == b"0" or coding.lower() != b"chunked":
            raise _Wrong
        return _chunks(data, at)
    if length is None:
        return b"", at
    if not length.isdigit() or int(length) >= _LENGTH_MAX:
        raise _Wrong
    end = at + int(length)
    if end > len(data):
        raise _Part
    return data[at:end], end


def _chunks(data: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            raise _Part
        chunk = _CHUNK.match(data, at, line_end + 2)
        if chunk is None or len(chunk[1].lstrip(b"0")) > _CHUNK_DIGITS_MAX:
            raise _Wrong
        size, at = int(chunk[1], 16), chunk.end()
        if at + size + 2 > len(data):
            raise _Part
        if data[at + size : at + size + 2] != b"\r\n":
            raise _Wrong  # after the last chunk: a header, which is refused
        body += data[at : at + size]
        at += size + 2
        if size == 0:
            return body, at
