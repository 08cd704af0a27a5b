"""Which pods the operator lets be made anew because their volume can't come."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from shardcluster.spec import parse
from shardcluster_operator import platform as module
from shardcluster_operator.manifests import CLUSTER_LABEL, SHARD_LABEL, Place
from shardcluster_operator.platform import KubernetesPlatform

SPEC = parse(
    {
        "apiVersion": "shardcluster.io/v1alpha1",
        "kind": "ShardCluster",
        "metadata": {"name": "demo"},
        "spec": {"shards": 1, "storage": {"size": "1Gi"}},
    }
)
NODE, CLAIM = "demo-shard-0-0", "data-demo-shard-0-0"


def _pod(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": NODE, "namespace": "shop", "uid": "1",
            "labels": {CLUSTER_LABEL: "demo", SHARD_LABEL: "shard-0"},
        },
        "spec": {
            "nodeName": "node1",
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
        "status": {"phase": "Pending"},
        **changes,
    }  # fmt: skip


class _World:
    """The API server and both informers, as far as `nodes` asks them."""

    def __init__(self, pod: dict[str, Any], phase: str) -> None:
        self.pod = pod
        self.claims = [{"status": {"phase": phase}}] if phase else []
        self.deleted: list[str] = []

    def objects(self, _namespace: str, _name: str) -> list[dict[str, Any]]:
        return [self.pod]

    async def list(self, _kind: Any, _namespace: str, *, fields: str) -> dict[str, Any]:
        return {"items": self.claims if fields == f"metadata.name={CLAIM}" else []}

    async def get(self, _kind: Any, _namespace: str, _name: str) -> dict[str, Any]:
        return self.pod

    async def delete(self, _kind: Any, _namespace: str, name: str, _options: Any) -> None:
        self.deleted.append(name)


class _NoSets:
    def objects(self, _namespace: str, _name: str) -> list[dict[str, Any]]:
        return []


async def _deleted(monkeypatch: pytest.MonkeyPatch, pod: dict[str, Any], phase: str) -> list[str]:
    monkeypatch.setattr(module, "WHY_EVERY_S", 0.0)
    world = _World(pod, phase)
    place = Place("shop", "uid", "gateway", "system")
    given = cast("Any", (world, place, world, _NoSets(), lambda: SPEC))
    platform = KubernetesPlatform(*given)
    before = asyncio.all_tasks()
    await platform.nodes()
    started = asyncio.all_tasks() - before
    if started:
        await asyncio.wait(started)
    await platform.close(stop_nodes=False)
    return world.deleted


@pytest.mark.parametrize("phase", ["", "Pending"])
async def test_a_placed_pod_whose_claim_is_gone_or_waits_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """No claim, or another one, which waits for a pod to be placed."""
    assert await _deleted(monkeypatch, _pod(), phase) == [NODE]


async def test_a_pod_with_a_volume_only_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its image is pulled, or the volume mounted."""
    assert await _deleted(monkeypatch, _pod(), "Bound") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"status": {"phase": "Running"}},
        {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": CLAIM}}]}},
        {"spec": {"nodeName": "node1", "volumes": [{"name": "conf"}]}},
    ],
    ids=["it runs", "it has no place yet", "it has no claim, as a gateway's"],
)
async def test_other_pods_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Whatever claims there are."""
    assert await _deleted(monkeypatch, _pod(**changes), "") == []
