"""Engine settings in a spec: which are allowed, and the form they take."""

from __future__ import annotations

import pytest

from shardcluster.engine_settings import SETTINGS, vet


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("maxmemory", "100MB", "104857600"),
        ("maxmemory", "1k", "1000"),
        ("maxmemory", "7b", "7"),
        ("maxmemory", 0, "0"),
        ("maxmemory-policy", " AllKeys-LRU ", "allkeys-lru"),
        ("list-max-listpack-size", -2, "-2"),
        ("hz", "0050", "50"),
        ("appendfsync", False, "no"),
        ("activedefrag", "YES", "yes"),
        ("activedefrag", True, "yes"),
        ("notify-keyspace-events", "", ""),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("notify-keyspace-events", "Exg", "gxE"),
        ("notify-keyspace-events", "ngK", "gnK"),
        ("notify-keyspace-events", "KdtexzhsE$gl", "AKE"),
        ("notify-keyspace-events", "AmKg", "AKm"),
        ("latency-tracking-info-percentiles", "50  99.90 100", "50 99.9 100"),
        ("latency-tracking-info-percentiles", "", ""),
        (
            "client-output-buffer-limit",
            "Replica 1mb 1k 30",
            "normal 0 0 0 slave 1048576 1000 30 pubsub 33554432 8388608 60",
        ),
        (
            "client-output-buffer-limit",
            "slave 0 0 0 pubsub 1 2 3",
            "normal 0 0 0 slave 0 0 0 pubsub 1 2 3",
        ),
    ],
)
def test_a_value_takes_the_form_that_the_engine_gives_back(
    name: str, value: object, expected: str
) -> None:
    """So that the controller sees no difference where there is none; doing it twice is the same."""
    assert vet(name, value) == expected
    assert vet(name, expected) == expected


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("maxmemory", "100Mi", 'must be bytes, or like "100mb", not "100Mi"'),
        ("maxmemory", "-1", "must be bytes"),
        ("maxmemory", "9" * 19 + "gb", "must be from 0"),
        ("maxmemory", True, "must be bytes"),
        ("client-query-buffer-limit", "1k", "must be from 1048576"),
        ("hz", 501, "must be a whole number from 1 to 500"),
        ("hz", 1.5, "must be a short string, a whole number or a bool, not 1.5"),
        ("hz", [1], "not a list"),
        ("hz", 10**100, "not a huge number"),
        ("hz", "1" * 201, "must be a short string"),
        ("hz", "10\nrequirepass x", "must be a whole number"),
        ("hz", "١", "must be a whole number"),
        ("appendfsync", True, "must be one of always, everysec, no"),
        ("notify-keyspace-events", "KX", "must be letters"),
        ("notify-keyspace-events", "AnK", "beside all classes"),
        ("notify-keyspace-events", "g$lshzxetdnK", "beside all classes"),
        ("latency-tracking-info-percentiles", "101", "percentiles"),
        ("latency-tracking-info-percentiles", "1 " * 21, "percentiles"),
        ("client-output-buffer-limit", "", "class, hard, soft, seconds"),
        ("client-output-buffer-limit", "normal 0 0", "class, hard, soft, seconds"),
        ("client-output-buffer-limit", "master 0 0 0", "knows the classes"),
        ("client-output-buffer-limit", "normal 0 0 -1", "whole number"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(
    name: str, value: object, words: str
) -> None:
    """And with what was given."""
    with pytest.raises(ValueError, match=r".+") as raised:
        vet(name, value)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cluster-node-timeout", "spec.failover.nodeTimeoutMs"),
        ("cluster-enabled", "ShardCluster runs the cluster"),
        ("port", "listen"),
        ("bind", "listen"),
        ("replica-announce-ip", "listen"),
        ("unixsocket", "listen"),
        ("tls-port", "spec.tls.secretName"),
        ("requirepass", "spec.auth.secretName"),
        ("masterauth", "spec.auth.secretName"),
        ("primaryuser", "spec.auth.secretName"),
        ("replicaof", "who is a replica of whom"),
        ("slaveof", "who is a replica of whom"),
        ("replica-read-only", "as failover needs them"),
        ("min-replicas-to-write", "spec.gateway.durability"),
        ("appendonly", "spec.storage"),
        ("save", "spec.storage"),
        ("dir", "starts the processes"),
        ("databases", "one database"),
        ("enable-debug-command", "foreign code"),
        ("loadmodule", "foreign code"),
        ("zset-max-ziplist-value", "use zset-max-listpack-value"),
        ("lua-time-limit", "use busy-reply-threshold"),
        ("maxmemroy", "did you mean maxmemory?"),
        ("MAXMEMORY", "did you mean maxmemory?"),
        ("\x00", "docs/spec.md"),
        ("z" * 10**6, "docs/spec.md"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_with_a_reason(name: str, words: str) -> None:
    """Who owns it, what to set instead, or what may have been meant."""
    with pytest.raises(ValueError, match=r".+") as raised:
        vet(name, "1")
    assert words in str(raised.value)


def test_no_setting_is_both_allowed_and_owned() -> None:
    """Nothing on the list touches what ShardCluster keeps true."""
    for name in SETTINGS:
        assert not name.startswith(("cluster-", "replica-", "slave-", "tls-", "min-"))
    assert not {"port", "bind", "dir", "appendonly", "save", "requirepass"} & set(SETTINGS)
