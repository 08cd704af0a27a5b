"""Writes replies in the engine's own protocol (RESP2).

The parser that reads nodes' replies gives status lines and strings alike, so which commands answer
with a status is written down here.  Scripts may do either; their answers are written as strings.
"""

from __future__ import annotations

from typing import Any

import hiredis

__all__ = ["is_status", "resp2", "resp2_error"]

_ALWAYS = frozenset({
    "flushall", "flushdb", "function|delete", "function|flush", "hmset", "lset", "ltrim", "mset",
    "pfmerge", "psetex", "rename", "script|flush", "setex", "type", "xgroup|create", "xgroup|setid",
    "xsetid",
})  # fmt: skip


def is_status(name: str, arguments: list[bytes]) -> bool:
    """Whether a string in this command's answer is a status."""
    if name == "set":
        return not any(argument.upper() == b"GET" for argument in arguments[3:])
    return name in _ALWAYS or (name == "ping" and len(arguments) == 1)


def resp2(value: Any, *, status: bool = False) -> bytes:
    """A reply as a client of the engine would get it."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        if status:
            return b"+%b\r\n" % value
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, hiredis.ReplyError):
        return resp2_error(str(value))
    return b"*%d\r\n" % len(value) + b"".join(map(resp2, value))


def resp2_error(message: str) -> bytes:
    """An error; its words stay on one line."""
    return b"-" + message.replace("\r", " ").replace("\n", " ").encode() + b"\r\n"
