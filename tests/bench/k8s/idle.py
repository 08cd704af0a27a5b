"""What 200 ShardClusters at rest cost the operator.

The resources and their objects are real; their nodes are the same six real processes on this
machine for all of them, given by a platform of the benchmark's own (`idle_operator`).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.k8s.cluster import NAMESPACE, document, kubectl, until
from tests.bench.k8s.idle_operator import NODES_VARIABLE
from tests.bench.local_store import local_store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

CLUSTERS = 200
BASE_PORT = 22_000
HEALTH_PORT = 22_900
MEASURED_S = 60.0
SETTLE_S = 20.0
CPU_LIMIT, MEMORY_LIMIT_MIB = 0.05, 200
OPERATOR = ("-n", "shardcluster-system", "scale", "deployment/shardcluster-operator")


def run() -> list[dict[str, Any]]:
    """The rows of the table."""
    spec = document("shared")["spec"]
    local = {**document("shared"), "metadata": {"name": "shared"}}
    names = [f"idle-{number}" for number in range(CLUSTERS)]
    with local_store(local, BASE_PORT) as shared, _no_other_operator():
        state = shared.calm(spec["shards"])
        nodes = {node["name"]: [node["host"], node["port"]] for node in state["nodes"]}
        items = [document(name, gateway={"replicas": 0}) for name in names]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        kubectl("apply", "-f", "-", text=text)
        try:
            with _operator(nodes) as process:
                return _measure(process)
        finally:
            kubectl("-n", NAMESPACE, "delete", "shc", *names)


def _measure(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    began_s = time.monotonic()
    until(lambda: _ready() == CLUSTERS, "all are ready", poll_s=1.0)
    ready_s = time.monotonic() - began_s
    time.sleep(SETTLE_S)
    about = psutil.Process(process.pid)
    requests = _requests()  # before: a scrape of 200 stores is no rest
    cpu_s = sum(about.cpu_times()[:2])
    time.sleep(MEASURED_S)
    share = (sum(about.cpu_times()[:2]) - cpu_s) / MEASURED_S
    a_minute = (_requests() - requests) * 60 / MEASURED_S
    memory_mib = about.memory_info().rss / 2**20
    return [
        {
            "measure": f"{CLUSTERS} idle ShardClusters of 3 × (1+1): the operator's CPU",
            "value": f"{share:.1%} of a core",
            "limit": f"≤ {CPU_LIMIT:.0%}",
            "ok": share <= CPU_LIMIT,
            "detail": f"all ready {ready_s:.0f} s after the operator's start",
        },
        {
            "measure": "  its memory",
            "value": f"{memory_mib:.0f} MiB",
            "limit": f"≤ {MEMORY_LIMIT_MIB} MiB",
            "ok": memory_mib <= MEMORY_LIMIT_MIB,
            "detail": "resident",
        },
        {
            "measure": "  its requests to the API server",
            "value": f"{a_minute:.0f}/min",
            "limit": "reported",
            "ok": True,
            "detail": f"{a_minute / CLUSTERS:.1f} for each ShardCluster",
        },
    ]


def _ready() -> int:
    found = json.loads(kubectl("-n", NAMESPACE, "get", "shc", "-o", "json"))
    return sum(item.get("status", {}).get("reason") == "Idle" for item in found["items"])


def _requests() -> int:
    """So far."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/metrics").read().decode()
    families = text_string_to_metric_families(text)
    return sum(
        round(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "shardcluster_kube_requests_total"
    )


@contextlib.contextmanager
def _operator(nodes: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.k8s.idle_operator", f"--health-port={HEALTH_PORT}"],
        # Another namespace's ShardCluster, of other shards maybe, would be given these nodes, too.
        env={**os.environ, NODES_VARIABLE: json.dumps(nodes), "WATCH_NAMESPACE": NAMESPACE},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _no_other_operator() -> Iterator[None]:
    kubectl(*OPERATOR, "--replicas=0")
    try:
        yield
    finally:
        kubectl(*OPERATOR, "--replicas=2")
