"""What a node's `valkey.conf` says.

Law: a setting stands here with a reason, or it is the engine's default.  Three layers, the later
wins: our tunables, the spec's vetted settings, what must be true for ShardCluster to work.
Passwords stand in this file only (mode 0600), never on a command line that others can read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from shardcluster_runtime.server_binary import Server
from shardcluster_runtime.wire import Credentials

__all__ = ["BUS_PORT_OFFSET", "NodePaths", "NodeSettings", "container_config", "server_config"]

CONTAINER_PORT = 6379
BUS_PORT_OFFSET = 10_000  # the engine's own distance from a node's port to its cluster bus port
# A replica that lost its master longer ago than this many node timeouts doesn't stand for election
# by itself.  10 is the engine's default and is kept: it bounds how stale a copy may be that gossip
# promotes while the controller is away (0 would promote any).  Our own failovers (FORCE, TAKEOVER)
# skip it and check freshness by the replication offset instead.
REPLICA_VALIDITY_FACTOR = 10
_PLAIN = re.compile(rb"[A-Za-z0-9_./:@%+,=-]+")
_ESCAPED = re.compile(rb"[^ !#-\[\]-~]")  # all but printable ASCII, and the quote and the backslash


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the spec says about every node's engine."""

    node_timeout_ms: int
    memory_only: bool
    max_memory_bytes: int | None
    config: tuple[tuple[str, str], ...] = ()  # vetted names and values
    credentials: Credentials = field(default_factory=Credentials)


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Where one node keeps its files."""

    folder: Path

    @property
    def record(self) -> Path:
        """Our own notes of the node."""
        return self.folder / "node.json"

    @property
    def config(self) -> Path:
        """The engine's settings."""
        return self.folder / "valkey.conf"

    @property
    def log(self) -> Path:
        """The engine's log."""
        return self.folder / "valkey.log"

    @property
    def data(self) -> Path:
        """The engine's working folder: its id, and its data when there is storage."""
        return self.folder / "data"


def server_config(
    server: Server, settings: NodeSettings, paths: NodePaths, host: str, port: int
) -> bytes:
    """The whole file for a node that listens on `host`:`port`."""
    lines = {**_tunables(settings), **dict(settings.config), **_fixed(server, host, port)}
    lines |= _persistence(settings)
    text = b"".join(
        _line(name, *(word.encode() for word in value.split() or [""]))
        for name, value in lines.items()
    )
    # One argument each, whatever is in it.
    single: list[tuple[str, bytes]] = [("dir", bytes(paths.data)), ("logfile", bytes(paths.log))]
    if settings.credentials.password is not None:
        password = settings.credentials.password.encode()
        single += [("requirepass", password), ("masterauth", password)]
    text += b"".join(_line(name, value) for name, value in single)
    return b"# Written by ShardCluster at each start of the node; changes here are lost.\n" + text


def container_config(settings: NodeSettings) -> bytes:
    """The same for a node alone in a container, whose start script gives the folder and address.

    Any engine that ShardCluster works with understands it.
    """
    oldest = Server(Path("valkey-server"), "Valkey", (7, 2, 0))
    lines = {
        **_tunables(settings),
        **dict(settings.config),
        **_fixed(oldest, "0.0.0.0", CONTAINER_PORT),  # noqa: S104 - the container's own network
        # Its clients are other containers, and no published port leads here.
        "protected-mode": "no",
    }
    lines |= _persistence(settings)
    return b"".join(_line(name, *(word.encode() for word in value.split() or [""]))
                    for name, value in lines.items())  # fmt: skip


def _tunables(settings: NodeSettings) -> dict[str, str]:
    """What the spec's own settings may change."""
    found = {
        "cluster-node-timeout": str(settings.node_timeout_ms),
        "appendfsync": "everysec",
        "repl-diskless-sync": "yes",
        # A replica that joins is waited for by people; others that join at once are rare.
        "repl-diskless-sync-delay": "0",
        # 1 MB, the default, is a hiccup's worth of writes; then a full copy would be needed.
        "repl-backlog-size": "16mb",
        "tcp-keepalive": "60",
        "loglevel": "notice",
    }
    if settings.max_memory_bytes is not None:
        found["maxmemory"] = str(settings.max_memory_bytes)
    return found


def _fixed(server: Server, host: str, port: int) -> dict[str, str]:
    """What must be so; no spec can change it."""
    wildcard = host in {"0.0.0.0", "::", "*"}  # noqa: S104 - a comparison, nothing is bound here
    found = {
        "port": str(port),
        "bind": host,
        # Without a password only this machine's own clients are served, whatever `bind` says.
        "protected-mode": "yes",
        "daemonize": "no",  # its process id is the one we started
        "always-show-logo": "no",
        "cluster-enabled": "yes",
        "cluster-config-file": "nodes.conf",
        # Slots are moved by us: a master that lost its last slot must not turn into somebody's
        # replica, nor a replica wander off to a shard that has none.
        "cluster-allow-replica-migration": "no",
        # One lost shard must not take the others down with it.
        "cluster-require-full-coverage": "no",
        "cluster-allow-reads-when-down": "yes",
        "cluster-allow-pubsubshard-when-down": "yes",
        # Gossip's failover is the safety net for when the controller is away.
        "cluster-replica-no-failover": "no",
        "cluster-replica-validity-factor": str(REPLICA_VALIDITY_FACTOR),
        # Replication offsets are compared at a failover: heard of each second instead of each ten.
        "repl-ping-replica-period": "1",
    }
    if not wildcard:
        # Known from the first moment on, not only after somebody met it.
        found["cluster-announce-ip"] = host
    if server.knows(valkey=(8, 0), redis=(8, 2)):
        found["cluster-slot-stats-enabled"] = "yes"  # the cost of a slot, for placing by load
    return found


def _persistence(settings: NodeSettings) -> dict[str, str]:
    # No snapshots beside the append-only file: they would fork once more and hold up a stop.
    if not settings.memory_only:
        return {"save": "", "appendonly": "yes", "aof-use-rdb-preamble": "yes"}
    return {
        "save": "",
        "appendonly": "no",
        # A full copy arrives as a file; left behind, it would rise as old data at a restart.
        "rdb-del-sync-files": "yes",
    }


def _line(name: str, *words: bytes) -> bytes:
    return b" ".join((name.encode(), *map(_quoted, words))) + b"\n"


def _quoted(word: bytes) -> bytes:
    """One argument as the engine's parser reads it back, any byte included."""
    if _PLAIN.fullmatch(word):
        return word
    return b'"' + _ESCAPED.sub(lambda found: b"\\x%02x" % found[0][0], word) + b'"'
