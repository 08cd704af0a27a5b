"""A real server takes every setting that a spec may name while it runs, and gives it back."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import redis

from shardcluster.engine_settings import SETTINGS, vet
from tests.cluster.mini_cluster import server_binary
from tests.cluster.ports import free_block

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 30.0
POLL_S = 0.01


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """One server of its own on a Unix socket."""
    folder = tmp_path_factory.mktemp("engine")
    bus_port = str(free_block())  # without it all servers of tests side by side take port 10000
    arguments = ["--port", "0", "--unixsocket", "s", "--save", ""]
    arguments += ["--cluster-enabled", "yes", "--cluster-port", bus_port]
    process = subprocess.Popen([server_binary(), *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    with redis.Redis(unix_socket_path=os.path.relpath(folder / "s")) as client:
        deadline = time.monotonic() + START_S
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(POLL_S)
        try:
            yield client
        finally:
            process.kill()
            process.wait()


SAMPLES: dict[str, tuple[object, ...]] = {
    "maxmemory-policy": ("allkeys-lfu", "volatile-ttl", "noeviction"),
    "appendfsync": ("always", "no", "everysec"),
    "loglevel": ("warning", "nothing", "notice"),
    "notify-keyspace-events": ("KEA", "ngE", "Exg", "mK", "KdtexzhsE$gl", ""),
    "latency-tracking-info-percentiles": ("50 99.90 100", "", "50 99 99.9"),
    "client-output-buffer-limit": ("replica 512mb 1k 30", "normal 1 2 3 pubsub 0 0 0"),
    "maxclients": (32, 1000),
    "maxmemory": ("1gb", "100MB", 0),
    "active-defrag-threshold-lower": (5, 10),
    "active-defrag-cycle-min": (2, 1),
    "list-max-listpack-size": (-1, 64),
    "slowlog-log-slower-than": (-1, 0, 5000),
}
NUMBERS: tuple[object, ...] = (1, 7, 64, "2mb")


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "activedefrag"])
def test_the_engine_gives_back_what_it_was_told(engine: redis.Redis, name: str) -> None:
    """Each sample in its vetted form, so that the controller finds nothing to set again."""
    told = 0
    for sample in SAMPLES.get(name, (*NUMBERS, True, False)):
        try:
            value = vet(name, sample)
        except ValueError:
            continue
        engine.config_set(name, value)
        assert engine.config_get(name) == {name: value}
        told += 1
    assert told


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_engine_knows_every_setting(engine: redis.Redis, name: str) -> None:
    """Under this very name (active defragmentation can only be turned on in some builds)."""
    assert engine.config_get(name)
