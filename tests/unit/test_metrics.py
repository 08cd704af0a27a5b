"""What is counted, how, and what becomes of it when its subject is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from shardcluster.actions import Decision, Failover, FailoverMode, Reason, Wait
from shardcluster.buckets import Buckets
from shardcluster.observed import Address
from shardcluster_api.metrics import Metrics
from shardcluster_operator.handlers import Operator, Settings
from shardcluster_operator.metrics import OperatorMetrics
from shardcluster_runtime.metrics import LoopCounts, StoreView, store_families
from shardcluster_runtime.wire import TIMED_EVERY, NodeConnection
from tests.unit.api_fakes import ask, fake_shard, gateway_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

PREFIX = "shardcluster_gateway_"


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found: float | None = metrics.registry.get_sample_value(f"{PREFIX}{name}", labels)
    return found


def test_a_value_belongs_below_its_bound() -> None:
    """As Prometheus' `le` says; the last bucket takes the rest."""
    buckets = Buckets((1.0, 2.5))
    for value in (0.0, 1.0, 1.1, 2.5, 9.0):
        buckets.observe(value)
    assert buckets.counts == [2, 2, 1]
    assert buckets.cumulative() == [("1.0", 2.0), ("2.5", 4.0), ("+Inf", 5.0)]
    other = Buckets((1.0, 2.5))
    other.observe(2.0)
    buckets.add(other)
    assert buckets.counts == [2, 3, 1]
    assert buckets.total == pytest.approx(15.6)


def test_requests_are_told_by_operation_and_status() -> None:
    """The histogram is one an operation; the sum of all is at hand."""
    metrics = Metrics()
    metrics.answered("read", 200, 0.0002)
    metrics.answered("read", 200, 0.2)
    metrics.answered("read", 503, 99.0)
    assert _value(metrics, "requests_total", operation="read", code="200") == 2
    assert _value(metrics, "requests_total", operation="read", code="503") == 1
    bucket = "request_duration_seconds_bucket"
    counts = [
        _value(metrics, bucket, operation="read", le=le) for le in ("0.00025", "0.25", "+Inf")
    ]
    assert counts == [1, 2, 3]
    assert _value(metrics, "request_duration_seconds_count", operation="read") == 3
    assert metrics.total == 3


def test_words_of_others_become_no_labels() -> None:
    """A script can answer with any error; what is not known counts as one."""
    metrics = Metrics()
    metrics.nodes_known = lambda: frozenset({"shard-0-0"})
    for word in ("WRONGTYPE", "BANANA-1", "BANANA-2"):
        metrics.node_error("shard-0-0", word)
        metrics.retried(word)
    for name, label in (("node_errors_total", {"node": "shard-0-0"}), ("retries_total", {})):
        key = "kind" if label else "reason"
        assert _value(metrics, name, **label, **{key: "WRONGTYPE"}) == 1
        assert _value(metrics, name, **label, **{key: "other"}) == 2
        assert _value(metrics, name, **label, **{key: "BANANA-1"}) is None


def test_a_node_that_is_gone_is_told_no_more() -> None:
    """Its errors are forgotten at the next scrape."""
    metrics = Metrics()
    known = {"shard-0-0", "shard-1-0"}
    metrics.nodes_known = lambda: frozenset(known)
    for node in ("shard-0-0", "shard-1-0"):
        metrics.node_error(node, "ConnectionLost")
    known.remove("shard-1-0")
    assert _value(metrics, "node_errors_total", node="shard-1-0", kind="ConnectionLost") is None
    known.add("shard-1-0")
    assert _value(metrics, "node_errors_total", node="shard-1-0", kind="ConnectionLost") is None
    assert _value(metrics, "node_errors_total", node="shard-0-0", kind="ConnectionLost") == 1


async def test_two_links_of_one_name_are_one_series() -> None:
    """A node that came back elsewhere; a scrape with a series twice would be refused."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        for link in gateway.topology.links.values():
            link.name, link.shard = "shard-0-0", "shard-0"
        text = (await ask(gateway, "metrics")).body.decode()
        assert text.count(f"{PREFIX}node_queue{{") == 1
        lines = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
        assert len(lines) == len(set(lines))


async def test_errors_are_told_by_their_code() -> None:
    """Of the operation that was asked for."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        await ask(gateway, "get_key", key=b"nothing")
        await ask(gateway, "put_key", key=b"", body=b"v")
        found = [
            _value(gateway.metrics, "errors_total", operation=operation, error=error)
            for operation, error in (("get_key", "KeyNotFound"), ("put_key", "BadRequest"))
        ]
        assert found == [1, 1]
        gateway.in_flight = gateway.limits.in_flight_max
        assert (await ask(gateway, "get_key", key=b"k")).status == 503
        gateway.in_flight = 0
        assert _value(gateway.metrics, "errors_total", operation="get_key", error="TooBusy") == 1


# -- the round trips ------------------------------------------------------------------------


class _Wire:
    """In the place of a transport."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        pass


def _connected(told: list[float]) -> NodeConnection:
    connection = NodeConnection(Address("node", 1), None)
    connection.connection_made(_Wire())  # type: ignore[arg-type]
    connection.on_round_trip = told.append
    return connection


async def _write(connection: NodeConnection, commands: int) -> None:
    for _ in range(commands):
        connection.send("PING")
    await asyncio.sleep(0)  # the turn of the event loop in which they leave as one write


async def test_the_first_command_of_some_writes_is_timed() -> None:
    """At its own reply, not at an earlier or a later one; one at a time."""
    told: list[float] = []
    connection = _connected(told)
    for _ in range(TIMED_EVERY - 1):
        await _write(connection, 1)
    await _write(connection, 2)  # this one is timed
    connection.data_received(b"+PONG\r\n" * (TIMED_EVERY - 1))
    assert not told
    for _ in range(2 * TIMED_EVERY):
        await _write(connection, 1)  # no second timing while the first one runs
    connection.data_received(b"+PONG\r\n")
    assert len(told) == 1
    connection.data_received(b"+PONG\r\n" * (1 + 2 * TIMED_EVERY))
    assert len(told) == 1
    assert 0 <= told[0] < 60
    connection.close()


class _SendsMore:
    """A receiver that sends the next command in the moment it gets its reply."""

    def __init__(self, connection: NodeConnection) -> None:
        self._connection = connection

    def done(self) -> bool:
        return False

    def set_result(self, _result: Any, /) -> None:
        self._connection.send("PING")

    def set_exception(self, _exception: BaseException, /) -> None:
        pass

    def exception(self) -> BaseException | None:
        return None


async def test_a_receiver_that_sends_more_puts_off_no_timing() -> None:
    """Replies are counted, not what is left to be waited for."""
    told: list[float] = []
    connection = _connected(told)
    for _ in range(TIMED_EVERY):
        connection.send_packed_to(b"*1\r\n$4\r\nPING\r\n", _SendsMore(connection))
        await asyncio.sleep(0)
    connection.data_received(b"+PONG\r\n" * TIMED_EVERY)
    assert len(told) == 1
    connection.close()


# -- stores ---------------------------------------------------------------------------------


def _state(**changed: Any) -> dict[str, Any]:
    node = {
        "name": "shard-0-0", "shard": "shard-0", "role": "master", "health": "Up",
        "memory_bytes": 5, "ops_per_second": 6, "lag_bytes": 0, "link_up": True,
    }  # fmt: skip
    replica = {**node, "name": "shard-0-1", "role": "replica", "lag_bytes": 7}
    shard = {
        "name": "shard-0", "state": "Ready", "slots": 16384, "keys": 3, "memory_bytes": 5,
        "master": "shard-0-0",
    }  # fmt: skip
    return {
        "phase": "Ready", "healthy": True, "spec": {"spec": {"replicasPerShard": 1}},
        "progress": None, "shards": [shard], "nodes": [node, replica], **changed,
    }  # fmt: skip


def _told(families: Iterable[Metric], name: str, **labels: str) -> float | None:
    for family in families:
        for sample in family.samples:
            if sample.name == f"shardcluster_{name}" and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_stores_are_told_apart() -> None:
    """By namespace and name; one that nobody cares for is told as that, and no more."""
    counts = LoopCounts()
    counts.passed("ok", 0.3, 1000.0)
    moving = _state(phase="Rebalancing", progress={"total_slots": 90, "moved_slots": 40})
    lost = _state(healthy=False)
    lost["shards"][0] |= {"state": "Lost", "master": None}
    lost["nodes"][0] |= {"health": "Down", "role": "unknown"}
    lost["nodes"][1]["link_up"] = False
    families = list(
        store_families(
            [
                StoreView("shop", "a", counts, moving),
                StoreView("shop", "b", LoopCounts(), lost),
                StoreView("shop", "c", None, None, refused=True),
            ]
        )
    )
    expected = {
        "cluster_loop_running": (1, 1, 0),
        "cluster_spec_refused": (0, 0, 1),
        "cluster_healthy": (1, 0, None),
        "cluster_slots_served": (16384, 0, None),
        "cluster_slots_to_move": (50, 0, None),
        "shard_master_up": (1, 0, None),
        "shard_replicas_ready": (1, 0, None),
        "replica_lag_bytes": (7, 7, None),
        "node_up": (1, 0, None),
        "last_pass_timestamp_seconds": (1000, 0, None),
    }
    for name, values in expected.items():
        assert tuple(_told(families, name, cluster=one) for one in "abc") == values, name
    phases = {phase: _told(families, "cluster_phase", cluster="a", phase=phase)
              for phase in ("Rebalancing", "Ready")}  # fmt: skip
    assert phases == {"Rebalancing": 1, "Ready": 0}


def test_what_a_loop_did_is_counted() -> None:
    """Actions with their reasons, failovers with their way, masters that changed by any cause."""
    counts = LoopCounts()
    failover = Failover("shard-0-1", FailoverMode.FORCE)
    counts.acted(Decision(failover, Reason.MASTER_LOST, "Lost."))
    counts.failed(Decision(Wait(1), Reason.IDLE, "Idle."))
    for master in ("shard-0-0", None, "shard-0-0", "shard-0-1", "shard-0-1"):
        state = _state()
        state["shards"][0]["master"] = master
        counts.saw(state)
    counts.saw(_state(shards=[]))
    counts.saw(_state())  # a shard of that name that was made anew has changed nothing
    families = list(store_families([StoreView("", "demo", counts, None)]))
    assert _told(families, "master_changes_total") == 1
    assert _told(families, "actions_total", action="Failover", reason="MasterLost") == 1
    assert _told(families, "action_failures_total", action="Wait", reason="Idle") == 1
    assert _told(families, "failovers_total", reason="MasterLost", mode="force") == 1


def test_an_operator_says_whether_it_leads() -> None:
    """One that stands by has no stores."""
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    assert registry.get_sample_value("shardcluster_operator_leader") == 0
    metrics.leader, metrics.operator = True, Operator(Settings("image", "system"))
    assert registry.get_sample_value("shardcluster_operator_leader") == 1
