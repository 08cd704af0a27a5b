"""Which engine settings a spec may name, and what each may be.

Law: only settings on the list reach a node.  Every one can be changed while the engine runs, none
touches what ShardCluster itself keeps true (addresses, cluster, replication roles, what is
written to disk), and each value comes out in the very form in which `CONFIG GET` gives it back:
the controller compares the two, and a value that the engine rewrites (`KEA` becomes `AKE`) would
be set again in every pass for ever.  `tests/cluster/test_vetted_settings.py` holds a real server
to that.

Old names of a setting (`hash-max-ziplist-entries`) are refused with the present one, because two
names for one setting can contradict each other.  Ranges are the engine's own (its `config.c`),
narrowed where it would clamp silently.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from shardcluster.spec_fields import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SETTINGS", "vet"]

_INT_MAX = 2**31 - 1
_LONG_MAX = 2**63 - 1
_DIGITS_MAX = 19
_TEXT_CHARS_MAX = 200
_PERCENTILES_MAX = 20
_UNITS = {
    "": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3,
}  # fmt: skip
_INTEGER = re.compile(rf"-?[0-9]{{1,{_DIGITS_MAX}}}")
_MEMORY = re.compile(rf"([0-9]{{1,{_DIGITS_MAX}}})([a-z]{{0,2}})")
_PERCENTILE = re.compile(r"(?:100|[0-9]{1,2}(?:\.[0-9]{1,6})?)")


def _integer(low: int, high: int = _INT_MAX) -> Callable[[str], str]:
    def normal(text: str) -> str:
        if _INTEGER.fullmatch(text) is None or not low <= int(text) <= high:
            message = f"must be a whole number from {low} to {high}"
            raise ValueError(message)
        return str(int(text))

    return normal


def _memory(low: int = 0, high: int = _LONG_MAX) -> Callable[[str], str]:
    def normal(text: str) -> str:
        match = _MEMORY.fullmatch(text.lower())
        if match is None or match[2] not in _UNITS:
            message = 'must be bytes, or like "100mb"'
            raise ValueError(message)
        amount = int(match[1]) * _UNITS[match[2]]
        if not low <= amount <= high:
            message = f"must be from {low} to {high} bytes"
            raise ValueError(message)
        return str(amount)

    return normal


def _word(*words: str) -> Callable[[str], str]:
    def normal(text: str) -> str:
        if text.lower() not in words:
            message = f"must be one of {', '.join(words)}"
            raise ValueError(message)
        return text.lower()

    return normal


_EVENT_CLASSES = "g$lshzxetd"  # in the engine's order; A stands for all of them


def _keyspace_events(text: str) -> str:
    if set(text) - set(_EVENT_CLASSES) - set("AKEmn"):
        message = f'must be letters of "{_EVENT_CLASSES}AKEmn"'
        raise ValueError(message)
    every = "A" in text or set(_EVENT_CLASSES) <= set(text)
    if every and "n" in text:
        # The engine reads such a setting back without the n.
        message = 'can\'t have "n" beside all classes: name those you need instead of A'
        raise ValueError(message)
    classes = "A" if every else "".join(c for c in f"{_EVENT_CLASSES}n" if c in text)
    return classes + "".join(c for c in "KEm" if c in text)


def _percentiles(text: str) -> str:
    words = text.split()
    if len(words) > _PERCENTILES_MAX or not all(_PERCENTILE.fullmatch(word) for word in words):
        message = f'must be at most {_PERCENTILES_MAX} percentiles like "50 99 99.9"'
        raise ValueError(message)
    return " ".join(f"{float(word):.10g}" for word in words)


_BUFFER_WORDS = 4  # class, hard limit, soft limit, seconds


def _client_buffers(text: str) -> str:
    limits = {
        "normal": ["0", "0", "0"],
        "slave": ["268435456", "67108864", "60"],  # the engine's own word for replicas
        "pubsub": ["33554432", "8388608", "60"],
    }  # of the classes that are not named: the engine's defaults
    words = text.lower().split()
    if not words or len(words) % _BUFFER_WORDS:
        message = 'must be like "replica 256mb 64mb 60": class, hard, soft, seconds'
        raise ValueError(message)
    size, seconds = _memory(), _integer(0)
    for start in range(0, len(words), _BUFFER_WORDS):
        name, hard, soft, soft_s = words[start : start + _BUFFER_WORDS]
        name = "slave" if name == "replica" else name
        if name not in limits:
            message = f"knows the classes normal, replica and pubsub, not {shown(name)}"
            raise ValueError(message)
        limits[name] = [size(hard), size(soft), seconds(soft_s)]
    return " ".join(word for name, values in limits.items() for word in (name, *values))


_yes_no = _word("yes", "no")

SETTINGS: dict[str, Callable[[str], str]] = {
    # memory
    "maxmemory": _memory(),
    "maxmemory-policy": _word(
        "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random",
        "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
    ),
    "maxmemory-samples": _integer(1, 64),
    "maxmemory-eviction-tenacity": _integer(0, 100),
    "lfu-log-factor": _integer(0),
    "lfu-decay-time": _integer(0),
    "lazyfree-lazy-eviction": _yes_no,
    "lazyfree-lazy-expire": _yes_no,
    "lazyfree-lazy-server-del": _yes_no,
    "lazyfree-lazy-user-del": _yes_no,
    "lazyfree-lazy-user-flush": _yes_no,
    "activedefrag": _yes_no,
    "active-defrag-ignore-bytes": _memory(1),
    "active-defrag-threshold-lower": _integer(0, 1000),
    "active-defrag-threshold-upper": _integer(0, 1000),
    "active-defrag-cycle-min": _integer(1, 99),
    "active-defrag-cycle-max": _integer(1, 99),
    "active-defrag-max-scan-fields": _integer(1),
    "active-expire-effort": _integer(1, 10),
    "activerehashing": _yes_no,
    # what goes to disk, when there is storage
    "appendfsync": _word("always", "everysec", "no"),
    "no-appendfsync-on-rewrite": _yes_no,
    "auto-aof-rewrite-percentage": _integer(0),
    "auto-aof-rewrite-min-size": _memory(),
    # encodings of small values
    "hash-max-listpack-entries": _integer(0),
    "hash-max-listpack-value": _integer(0),
    "list-max-listpack-size": _integer(-5),
    "list-compress-depth": _integer(0),
    "set-max-intset-entries": _integer(0),
    "set-max-listpack-entries": _integer(0),
    "set-max-listpack-value": _integer(0),
    "zset-max-listpack-entries": _integer(0),
    "zset-max-listpack-value": _integer(0),
    "hll-sparse-max-bytes": _integer(0),
    "stream-node-max-bytes": _memory(),
    "stream-node-max-entries": _integer(0),
    # clients
    "timeout": _integer(0),
    "tcp-keepalive": _integer(0),
    "maxclients": _integer(32, 1_000_000),  # below that, our own connections would be refused
    "client-query-buffer-limit": _memory(1024**2),
    "client-output-buffer-limit": _client_buffers,
    "proto-max-bulk-len": _memory(1024**2),
    "tracking-table-max-keys": _integer(0),
    "notify-keyspace-events": _keyspace_events,
    "busy-reply-threshold": _integer(0),
    # replication
    "repl-backlog-size": _memory(16 * 1024),
    "repl-backlog-ttl": _integer(0),
    "repl-diskless-sync": _yes_no,
    "repl-diskless-sync-delay": _integer(0, 3600),
    "repl-diskless-sync-max-replicas": _integer(0),
    "repl-disable-tcp-nodelay": _yes_no,
    # looking inside
    "hz": _integer(1, 500),
    "loglevel": _word("debug", "verbose", "notice", "warning", "nothing"),
    "slowlog-log-slower-than": _integer(-1),
    "slowlog-max-len": _integer(0),
    "latency-monitor-threshold": _integer(0),
    "latency-tracking": _yes_no,
    "latency-tracking-info-percentiles": _percentiles,
}  # fmt: skip

_PRESENT_NAMES = {
    "hash-max-ziplist-entries": "hash-max-listpack-entries",
    "hash-max-ziplist-value": "hash-max-listpack-value",
    "list-max-ziplist-size": "list-max-listpack-size",
    "zset-max-ziplist-entries": "zset-max-listpack-entries",
    "zset-max-ziplist-value": "zset-max-listpack-value",
    "lua-time-limit": "busy-reply-threshold",
    "commandlog-execution-slower-than": "slowlog-log-slower-than",
    "commandlog-slow-execution-max-len": "slowlog-max-len",
}

# The first pattern that matches says why; more special ones stand first.
_OWNED = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"cluster-node-timeout", "set spec.failover.nodeTimeoutMs instead"),
        (r"cluster-.*", "ShardCluster runs the cluster"),
        (
            r"port|bind|bind-source-addr|unixsocket.*|protected-mode|(?:primary|replica|slave)-announce.*",
            "ShardCluster decides where nodes listen",
        ),
        (r"tls-.*", "set spec.tls.secretName instead"),
        (
            r"requirepass|(?:master|primary)(?:auth|user)|aclfile|user|rename-command",
            "set spec.auth.secretName instead",
        ),
        (r"(?:replica|slave)of", "ShardCluster decides who is a replica of whom"),
        (
            r"(?:replica|slave)-.*|min-(?:replicas|slaves)-.*",
            (
                "ShardCluster keeps replicas as failover needs them; for safer writes set "
                "spec.gateway.durability"
            ),
        ),
        (
            r"appendonly|appendfilename|appenddirname|aof-.*|save|dbfilename|rdb.*",
            "ShardCluster decides what is written to disk; set spec.storage instead",
        ),
        (r"dir|logfile|pidfile|daemonize|supervised", "ShardCluster starts the processes"),
        (r"databases", "a cluster has one database"),
        (r"loadmodule|enable-.*-(?:command|configs)", "it would let clients run foreign code"),
    )
)


def vet(name: str, value: object) -> str:
    """The value as the engine itself writes it; raises ValueError with a sentence."""
    normal = SETTINGS.get(name)
    if normal is None:
        raise ValueError(_why_not(name))
    if isinstance(value, bool):
        text = "yes" if value else "no"  # YAML reads a bare yes or no as a bool
    elif isinstance(value, int) and value.bit_length() <= _LONG_MAX.bit_length():
        text = str(value)
    elif isinstance(value, str) and len(value) <= _TEXT_CHARS_MAX:
        text = value.strip()
    else:
        message = f"must be a short string, a whole number or a bool, not {shown(value)}"
        raise ValueError(message)
    try:
        return normal(text)
    except ValueError as error:
        message = f"{error}, not {shown(text)}"
        raise ValueError(message) from None


def _why_not(name: str) -> str:
    if name in _PRESENT_NAMES:
        return f"is an old name; use {_PRESENT_NAMES[name]}"
    for pattern, reason in _OWNED:
        if pattern.fullmatch(name):
            return f"can't be set here: {reason}"
    alike = difflib.get_close_matches(name.lower()[:_TEXT_CHARS_MAX], SETTINGS, n=1)
    hint = f"; did you mean {alike[0]}?" if alike else " (docs/spec.md lists them)"
    return f"is not one of the engine settings that a spec may change{hint}"
