"""Blocks of header lines that the real parser has read once, and what they meant.

Clients send the same lines again and again.  A whole `POST` whose block is known byte for byte, but
for the digits of its Content-Length, needs no parser.  The short way of `GET` and `PUT` (fast.py)
learns by the same rules.  Law: what is learnt was a whole plain request, alone in what arrived.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from shardcluster_api.cycle import RequestHead
from shardcluster_api.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster_api.operations import Operation

__all__ = ["END_OF_HEAD", "HEADS_MAX", "VERSION", "Block", "KnownHeads", "plain_block"]

HEADS_MAX = 1024  # different blocks remembered
HEAD_LEARNT_BYTES_MAX = 2048  # longer ones are read anew each time

VERSION = b" HTTP/1.1"
END_OF_HEAD = b"\r\n\r\n"
_OTHERWISE = frozenset({b"origin", b"transfer-encoding", b"expect", b"upgrade"})
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)(?=\r\n)")
_POST = b"POST "
_BY_LINE = {
    b"POST %b HTTP/1.1" % one.path.encode(): one
    for one in OPERATIONS
    if one.hot and one.method == "POST" and "{" not in one.path
}


class Block(NamedTuple):
    """The header lines of a request, from the end of its first line to the empty one."""

    lines: bytes
    headers: Mapping[bytes, bytes]
    body_bytes: int


def plain_block(data: bytes, headers: list[tuple[bytes, bytes]]) -> Block | None:
    """That of `data`, if this is one whole plain request with these headers."""
    first_line, _, rest = data.partition(b"\r\n")
    body_at = rest.find(END_OF_HEAD) + len(END_OF_HEAD)
    lines, known = b"\r\n" + rest[:body_at], dict(headers)
    if (
        not first_line.endswith(VERSION)
        or len(lines) > HEAD_LEARNT_BYTES_MAX
        or not _OTHERWISE.isdisjoint(known)
        or len(known) != len(headers)
    ):
        return None
    body_bytes = int(known.get(b"content-length", b"0"))
    return Block(lines, known, body_bytes) if len(rest) - body_at == body_bytes else None


class KnownHeads:
    """Of requests by `POST`."""

    def __init__(self) -> None:
        """None yet."""
        self._headers: dict[bytes, Mapping[bytes, bytes]] = {}  # by block without its length

    def learn(self, data: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """`data` was one whole request with these headers, as the parser has found."""
        if not data.startswith(_POST):
            return
        block = plain_block(data, headers)
        length = None if block is None else _LENGTH.search(block.lines)
        if block is None or length is None:
            return
        if len(self._headers) >= HEADS_MAX:
            del self._headers[next(iter(self._headers))]
        others = {name: value for name, value in headers if name != b"content-length"}
        self._headers[_without(length, block.lines)] = others

    def request(self, data: bytes) -> tuple[Operation, RequestHead, bytes] | None:
        """What is asked, and the body, if `data` is a whole request whose block is known."""
        if not data.startswith(_POST):
            return None
        line_end = data.find(b"\r\n")
        operation = _BY_LINE.get(data[:line_end])
        body_at = data.find(END_OF_HEAD) + len(END_OF_HEAD)
        lines = data[line_end:body_at]
        length = _LENGTH.search(lines)
        if operation is None or length is None:
            return None
        headers = self._headers.get(_without(length, lines))
        body_bytes = len(data) - body_at
        if (
            headers is None
            or length[1] != b"%d" % body_bytes
            or body_bytes > operation.body_bytes_max
        ):
            return None
        return operation, RequestHead("POST", operation.path.encode(), "", headers), data[body_at:]


def _without(length: re.Match[bytes], lines: bytes) -> bytes:
    return lines[: length.start(1)] + lines[length.end(1) :]
