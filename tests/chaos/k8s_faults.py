"""What the kinds of faults do to nodes on Kubernetes: processes, pods, volumes, objects.

Pods that end in good order hand over before, so nothing excuses a loss then, unless the node had
nobody to hand over to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from tests.chaos.history import Cause
from tests.chaos.reach import now_ms
from tests.chaos.taken import AOF_MS, Taken

if TYPE_CHECKING:
    from tests.chaos.k8s_befaller import K8sBefaller, Kind, Scene
    from tests.chaos.look import Seen
    from tests.chaos.nemesis import Fault

__all__ = ["NODE_KINDS", "OBJECTS"]

MAY_FAIL_OVER_MS = 1_000  # a master that hangs shorter than this keeps its shard
WAKES_MS = 1_500  # so long after it goes on, a deposed master may still say yes
FORCE_ENDS_MS = 3_000  # a pod that was deleted by force has ended by then
SEVERAL = 3  # pods that are deleted at once
SHORT_GRACE_S = 1
SLOWLY_MS = 20_000  # a pod that was deleted hands over, lingers, ends and is back in this time
GRACE_MS = 30_000  # it tries to hand over for 20 s; then the engine may wait for replicas

OBJECTS = (
    "svc/{}", "svc/{}-nodes", "svc/{}-gateway", "cm/{}-config", "netpol/{}-nodes",
    "pdb/{}-nodes", "role/{}-gateway", "rolebinding/{}-gateway", "deploy/{}-gateway",
)  # fmt: skip


# -- processes ------------------------------------------------------------------------------


async def _kill(befaller: K8sBefaller, fault: Fault, *, master: bool) -> str:
    scene = await befaller.see()
    node = befaller.pick(fault, befaller.may_end(scene, master=master))
    if node is None:
        return ""
    taken = befaller.hit(scene, node)
    await befaller.ground.signal(scene.pods[node.name], "KILL")
    befaller.was_hit(taken)
    befaller.await_write(fault, befaller.masters_of(scene.nodes, node))
    return f"{node.name}{befaller.only_copy(scene, node)}"


async def _kill_master(befaller: K8sBefaller, fault: Fault) -> str:
    return await _kill(befaller, fault, master=True)


async def _kill_replica(befaller: K8sBefaller, fault: Fault) -> str:
    return await _kill(befaller, fault, master=False)


def _whole_shards(befaller: K8sBefaller, scene: Scene) -> dict[str, list[Seen]]:
    """Shards all of whose nodes answer and have their data on disk."""
    found: dict[str, list[Seen]] = {}
    for node in scene.nodes:
        found.setdefault(node.shard, []).append(node)
    targets = befaller.targets(scene)
    counts = Counter(name.rpartition("-")[0] for name in scene.pods)
    return {
        shard: nodes
        for shard, nodes in sorted(found.items())
        if len(nodes) == counts[shard] and all(node.on_disk and node in targets for node in nodes)
    }


def _all_end(befaller: K8sBefaller, scene: Scene, nodes: list[Seen]) -> list[Taken]:
    """What is lost when all copies end at once: what the disks did not keep up with."""
    return [
        befaller.take(
            node,
            AOF_MS if befaller.in_step(scene.nodes, node) else befaller.behind_ms(node.shard),
            Cause.LAST_COPY,
        )
        for node in nodes
        if node.is_master
    ]


async def _kill_shard(befaller: K8sBefaller, fault: Fault) -> str:
    scene = await befaller.see()
    nodes = befaller.pick(fault, list(_whole_shards(befaller, scene).values()))
    if nodes is None:
        return ""
    taken = _all_end(befaller, scene, nodes)
    await asyncio.gather(*(befaller.ground.signal(scene.pods[node.name], "KILL") for node in nodes))
    befaller.was_hit(taken)
    befaller.await_write(fault, nodes)
    return nodes[0].shard


async def _hang_master(befaller: K8sBefaller, fault: Fault) -> str:
    scene = await befaller.see()
    node = befaller.pick(fault, [node for node in befaller.targets(scene) if node.is_master])
    if node is None:
        return ""
    long = fault.lasts >= MAY_FAIL_OVER_MS
    taken = befaller.hit(scene, node) if long else []
    since_ms = await _hang(befaller, scene, node, fault)
    befaller.was_hit(taken)
    if long:
        wakes_ms = now_ms() + fault.lasts + WAKES_MS
        keys = befaller.all_keys_in([node])
        befaller.taken.append(Taken(Cause.FORCED, keys, wakes_ms, since_ms + fault.lasts))
    befaller.await_write(fault, [node])
    return f"{node.name}{befaller.only_copy(scene, node)}"


async def _hang_replica(befaller: K8sBefaller, fault: Fault) -> str:
    scene = await befaller.see()
    node = befaller.pick(fault, [node for node in befaller.targets(scene) if not node.is_master])
    if node is None:
        return ""
    since_ms = await _hang(befaller, scene, node, fault)
    befaller.apart_since_ms.setdefault(node.shard, since_ms)
    befaller.await_write(fault, befaller.masters_of(scene.nodes, node))
    return node.name


async def _hang(befaller: K8sBefaller, scene: Scene, node: Seen, fault: Fault) -> int:
    """Stop it; it goes on by itself.  The moment before."""
    since_ms, lasts_s = now_ms(), fault.lasts / 1000
    await befaller.ground.signal(scene.pods[node.name], "STOP", f"{lasts_s:.3f}", "CONT")

    async def lasts() -> None:
        await asyncio.sleep(lasts_s)

    befaller.meanwhile(lasts())
    return since_ms


# -- pods -----------------------------------------------------------------------------------


async def _delete_pod(befaller: K8sBefaller, fault: Fault) -> str:
    scene = await befaller.see()
    return await _delete_in_order(befaller, fault, scene, befaller.may_end(scene), 1)


async def _delete_pods(befaller: K8sBefaller, fault: Fault) -> str:
    """Several: of shards of their own, unless all is on disk."""
    scene = await befaller.see()
    candidates = befaller.may_end(scene)
    if not befaller.ground.storage:
        first_of = {node.shard: node for node in candidates}
        candidates = list(first_of.values())
    return await _delete_in_order(befaller, fault, scene, candidates, SEVERAL)


async def _delete_in_order(
    befaller: K8sBefaller, fault: Fault, scene: Scene, candidates: list[Seen], most: int
) -> str:
    if not candidates:
        return ""
    first = int(fault.pick * len(candidates))
    nodes = [*candidates[first:], *candidates[:first]][:most]
    for node in nodes:
        if node.is_master and befaller.copied(scene.nodes, node):
            continue
        for taken in befaller.hit(scene, node):  # a master with nobody to hand over to
            taken.asked_until_ms += GRACE_MS
    await befaller.ground.delete_pods(*(scene.pods[node.name] for node in nodes))
    for node in nodes:
        befaller.await_write(fault, befaller.masters_of(scene.nodes, node), SLOWLY_MS)
    return ", ".join(node.name for node in nodes)


async def _delete_all_pods(befaller: K8sBefaller, fault: Fault) -> str:
    """With so little time that there is no hand-over; only where all is on disk."""
    scene = await befaller.see()
    shards = _whole_shards(befaller, scene)
    nodes = [node for found in shards.values() for node in found]
    if not nodes or len(nodes) < len(scene.pods):
        return ""
    taken = _all_end(befaller, scene, nodes)
    await befaller.ground.delete_pods(*scene.pods.values(), grace_s=SHORT_GRACE_S)
    for one in taken:
        one.asked_until_ms = now_ms() + FORCE_ENDS_MS
    befaller.await_write(fault, nodes, SLOWLY_MS)
    return f"{len(nodes)} nodes"


async def _force_delete_pod(befaller: K8sBefaller, fault: Fault) -> str:
    scene = await befaller.see()
    node = befaller.pick(fault, befaller.may_end(scene))
    if node is None:
        return ""
    taken = befaller.hit(scene, node)
    await befaller.ground.force_delete_pod(scene.pods[node.name])
    for one in taken:
        one.asked_until_ms = max(one.asked_until_ms, now_ms() + FORCE_ENDS_MS)
    befaller.await_write(fault, befaller.masters_of(scene.nodes, node), SLOWLY_MS)
    return f"{node.name}{befaller.only_copy(scene, node)}"


# -- objects and volumes --------------------------------------------------------------------


async def _delete_stateful_set(befaller: K8sBefaller, fault: Fault) -> str:
    """All pods of a shard end; the volumes stay."""
    scene = await befaller.see()
    nodes = befaller.pick(fault, list(_whole_shards(befaller, scene).values()))
    if nodes is None:
        return ""
    ground = befaller.ground
    ground.asked_to_end(*(scene.pods[node.name] for node in nodes))
    name = f"{ground.store.name}-{nodes[0].shard}"
    await ground.kubectl("delete", "sts", name, "--wait=false")
    befaller.await_write(fault, nodes, SLOWLY_MS)
    return nodes[0].shard


async def _delete_object(befaller: K8sBefaller, fault: Fault) -> str:
    name = OBJECTS[int(fault.pick * len(OBJECTS))].format(befaller.ground.store.name)
    await befaller.ground.kubectl("delete", name, "--wait=false")
    if name.startswith(("svc", "deploy")):
        befaller.await_gateway(fault)
    return name


async def _lose_volume(befaller: K8sBefaller, fault: Fault) -> str:
    """The claim and the pod: it comes back empty.  Its shard has another copy, to be spared now."""
    scene = await befaller.see()
    node = befaller.pick(fault, befaller.may_end(scene, copied=True))
    if node is None or not befaller.ground.storage:
        return ""
    if not node.is_master:
        befaller.hit(scene, node)
    ground = befaller.ground
    claim = f"data-{ground.store.name}-{node.name}"
    befaller.doomed[node.name] = scene.pods[node.name].uid
    await ground.kubectl("delete", "pvc", claim, "--wait=false")
    await ground.delete_pods(scene.pods[node.name])
    befaller.await_write(fault, befaller.masters_of(scene.nodes, node), SLOWLY_MS)
    return node.name


NODE_KINDS: dict[str, Kind] = {
    "kill master": _kill_master,
    "kill replica": _kill_replica,
    "kill shard": _kill_shard,
    "hang master": _hang_master,
    "hang replica": _hang_replica,
    "delete pod": _delete_pod,
    "delete pods": _delete_pods,
    "delete all pods": _delete_all_pods,
    "force-delete pod": _force_delete_pod,
    "delete StatefulSet": _delete_stateful_set,
    "delete object": _delete_object,
    "lose volume": _lose_volume,
}
