"""Writes the gateway's table of commands from what a real engine tells of itself.

`python tools/command_table.py HOST:PORT` asks that node (COMMAND, COMMAND DOCS); a test asks a real
Valkey and compares.  What people may do with a command is decided in
api/shardcluster_api/commands/table.py, not here.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardcluster.observed import Address
from shardcluster_runtime.wire import NodeConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).resolve().parent.parent / "api/shardcluster_api/commands/engine.txt"
KEPT_FLAGS = ("readonly", "write", "admin", "blocking")
HEAD = """\
# Made by tools/command_table.py from {version}; don't edit.
# name|subcommand, arity (negative: at least), group, flags, then where its keys are:
#   i1/r-1,1,0        from index 1 on: last key (negative: from the end), step, limit
#   i2/n0,1,1         from index 2 on: index of the number of keys, first key, step
#   kSTREAMS,1/r…     the same, behind a keyword that is looked for from an index on
#   ?                 keys that only the engine finds
"""
TIMEOUT_S = 5.0


async def table(connection: NodeConnection) -> str:
    """The whole file, as this node tells it."""
    info = await connection.call("INFO", "server", timeout_s=TIMEOUT_S)
    found = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    version = (
        f"Valkey {found['valkey_version']}"
        if "valkey_version" in found
        else f"Redis {found['redis_version']}"
    )
    docs = await connection.call("COMMAND", "DOCS", timeout_s=TIMEOUT_S)
    groups = {}
    for name, about in _pairs(docs):
        group = dict(_pairs(about))[b"group"].decode()
        groups[name.decode()] = group
    commands = await connection.call("COMMAND", timeout_s=TIMEOUT_S)
    lines = sorted(_line(command, groups) for command in _with_subcommands(commands))
    return HEAD.format(version=version) + "".join(lines)


def _pairs(reply: Any) -> Iterator[tuple[bytes, Any]]:
    """A map, which an older protocol tells as a flat list."""
    return zip(reply[::2], reply[1::2], strict=True)


def _with_subcommands(commands: list[Any]) -> Iterator[list[Any]]:
    for command in commands:
        if command[9]:
            yield from _with_subcommands(command[9])
        else:
            yield command


def _line(command: list[Any], groups: dict[str, str]) -> str:
    name = command[0].decode()
    told = {flag.decode() for flag in command[2]}
    flags = ",".join(flag for flag in KEPT_FLAGS if flag in told) or "-"
    keys = " ".join(dict.fromkeys(_where(dict(_pairs(spec))) for spec in command[8]))
    group = groups[name.partition("|")[0]]
    return f"{name} {command[1]} {group} {flags} {keys}".rstrip() + "\n"


def _where(spec: dict[bytes, Any]) -> str:
    begin, find = (dict(_pairs(spec[part])) for part in (b"begin_search", b"find_keys"))
    start, keys = (dict(_pairs(part[b"spec"])) for part in (begin, find))
    if b"unknown" in {begin[b"type"], find[b"type"]}:
        return "?"
    where = (
        f"i{start[b'index']}"
        if begin[b"type"] == b"index"
        else f"k{start[b'keyword'].decode()},{start[b'startfrom']}"
    )
    if find[b"type"] == b"range":
        return f"{where}/r{keys[b'lastkey']},{keys[b'keystep']},{keys[b'limit']}"
    return f"{where}/n{keys[b'keynumidx']},{keys[b'firstkey']},{keys[b'keystep']}"


async def _main(where: str) -> None:
    host, _, port = where.rpartition(":")
    connection = await NodeConnection.open(Address(host, int(port)), timeout_s=TIMEOUT_S)
    try:
        TABLE.write_text(await table(connection), encoding="utf-8")
    finally:
        connection.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
