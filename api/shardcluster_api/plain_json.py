"""Lists of JSON strings in the very bytes that encoders write, without a parser or an encoder.

A body of a hundred reads costs its parser more than all else the gateway does for it.  Encoders
write the same list the same way (compact, or with a space after each comma and colon), so such a
body is cut at what stands between its strings.  Law: this says only yes to what is surely read or
written as a parser or encoder would; what it says no to may still be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shardcluster_api.limits import BATCH_OPERATIONS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BATCH_READS", "PIPELINED_READS", "Written", "are_plain", "plain_strings"]

# Not what ends a string, stands for other characters, or may be no valid UTF-8.
_PLAIN = bytes(byte for byte in range(0x20, 0x80) if byte not in b'"\\')


class Written(NamedTuple):
    """A way to write a list of strings."""

    start: bytes
    between: bytes
    end: bytes


BATCH_READS = (
    Written(b'{"operations":[{"op":"get","key":"', b'"},{"op":"get","key":"', b'"}]}'),
    Written(b'{"operations": [{"op": "get", "key": "', b'"}, {"op": "get", "key": "', b'"}]}'),
)
PIPELINED_READS = tuple(
    Written(b'[["%b",%b"' % (name, space), b'"],%b["%b",%b"' % (space, name, space), b'"]]')
    for name in (b"GET", b"get")
    for space in (b"", b" ")
)


def plain_strings(body: bytes, ways: Iterable[Written]) -> list[bytes]:
    """The strings when `body` is written in one of `ways`; [] when it isn't, or has too many."""
    for start, between, end in ways:
        if body.startswith(start) and body.endswith(end) and len(body) >= len(start) + len(end):
            found = body[len(start) : -len(end)].split(between)
            if len(found) <= BATCH_OPERATIONS_MAX and are_plain(found):
                return found
    return []


def are_plain(strings: Iterable[bytes]) -> bool:
    """Whether each is in JSON as it is, between quotes."""
    return not b"".join(strings).translate(None, _PLAIN)
