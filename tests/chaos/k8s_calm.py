"""Whether a ShardCluster on Kubernetes is what its spec asks for, told in a sentence if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.k8s_ground import aside
from tests.chaos.look import why_not_owned
from tests.chaos.reach import Trouble
from tests.e2e.kube import Api
from tests.e2e.rig import all_machines_ready

if TYPE_CHECKING:
    from tests.chaos.k8s_ground import Ground
    from tests.e2e.kube import Document

__all__ = ["resource_lacks", "why_not_calm"]

CALM_CONDITIONS = {"Available": "True", "Progressing": "False", "Degraded": "False"}


def resource_lacks(resource: Document) -> str:
    """What the status lacks of what the spec asks for; empty when it is reached.  Pure."""
    spec, status = resource["spec"], resource.get("status", {})
    said = f"{status.get('reason')}: {status.get('message')}"
    if status.get("observedGeneration") != resource["metadata"]["generation"]:
        return f"the present spec was not looked at; {said}"
    words = {condition["type"]: condition["status"] for condition in status["conditions"]}
    for kind, wanted in CALM_CONDITIONS.items():
        if words.get(kind) != wanted:
            return f"{kind} is {words.get(kind)}; {said}"
    shards, nodes = status["shards"], status["nodes"]
    if status["reason"] != "Idle":
        return said
    if len(shards) != spec["shards"] or not all(shard["slots"] for shard in shards):
        return f"{len(shards)} shards; {said}"
    if len(nodes) != spec["shards"] * (1 + spec["replicasPerShard"]):
        return f"{len(nodes)} nodes; {said}"
    if not all(node["health"] == "Up" and node["linkUp"] for node in nodes):
        return f"not all nodes are up; {said}"
    return ""


async def why_not_calm(ground: Ground) -> str:
    """The same of the store, its pods and machines; empty when all is well."""
    try:
        resource = await aside(ground.store.read)
        if why := resource_lacks(resource):
            return why
        pods = await ground.pods()
        if len(pods) != len(resource["status"]["nodes"]) or any(pod.ending for pod in pods):
            return f"{len(pods)} pods, some of which may be ending"
        images = {pod.document["spec"]["containers"][0]["image"] for pod in pods}
        if images != {resource["spec"]["image"]}:
            return f"the nodes have the images {sorted(images)}"
        if not await aside(all_machines_ready):
            return "not all machines are ready"
        return await _gateways_lack(ground) or why_not_owned(await ground.look(pods))
    except Trouble as error:
        return str(error)


async def _gateways_lack(ground: Ground) -> str:
    name = f"{ground.store.name}-gateway"
    path = f"/apis/apps/v1/namespaces/{ground.store.namespace}/deployments/{name}"
    found = await aside(Api.read, path)
    wanted, ready = found["spec"]["replicas"], found["status"].get("readyReplicas", 0)
    return "" if wanted == ready else f"{ready} of {wanted} gateways are ready"
