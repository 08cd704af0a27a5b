"""Settings: what is wanted, and when two ways to write one mean the same."""

from __future__ import annotations

import pytest

from shardcluster.actions import Configure
from shardcluster.decide.settings import same_value, settings, wanted_settings
from shardcluster.picture import draw
from tests.unit.deciding import formed, spec_of


def test_the_spec_names_timeout_memory_and_its_own_settings() -> None:
    """What the user set himself wins."""
    spec = spec_of(resources={"limits": {"memory": "1Gi"}}, config={"maxmemory": 1000, "hz": 20})
    assert wanted_settings(spec) == {
        "cluster-node-timeout": "2000", "loglevel": "notice", "maxmemory": "1000", "hz": "20"
    }  # fmt: skip
    assert wanted_settings(spec_of(config={"loglevel": "debug"}))["loglevel"] == "debug"


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("100mb", "104857600", True), ("1k", "1000", True), ("1GB", "1073741824", True),
        ("yes", "YES", True), ("yes", "no", False), ("0", "0", True), ("10", "100", False),
        ("replica 256mb 64mb 60", "replica 268435456 67108864 60", True), ("mb", "m", False),
        ("3600 1 300 100", "3600 1  300 100", True), ("bgkm", "", False),
    ],
)  # fmt: skip
def test_values_are_compared_by_meaning(left: str, right: str, *, same: bool) -> None:
    """The engine answers in its own words."""
    assert same_value(left, right) is same


def test_only_settings_that_could_be_read_are_compared() -> None:
    """A node that says nothing of one is left alone."""
    cluster = formed()
    spec = spec_of(3, 1, failover={"nodeTimeoutMs": 4000})
    for node in cluster.nodes.values():
        node.config.clear()
    assert settings(draw(spec, cluster.observe())) is None
    cluster.nodes["shard-1-0"].config["cluster-node-timeout"] = "2000"
    decision = settings(draw(spec, cluster.observe()))
    assert decision is not None
    assert decision.action == Configure("shard-1-0", (("cluster-node-timeout", "4000"),))
