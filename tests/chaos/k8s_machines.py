"""What the kinds of faults do beside nodes: operators, gateways, machines and the API server.

Machines and the API server need a rig; without one such a fault befalls nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.chaos.history import Cause
from tests.chaos.k8s_ground import aside
from tests.chaos.reach import now_ms
from tests.chaos.taken import AOF_MS, TAIL_MS
from tests.e2e.hand import signal_container
from tests.e2e.installed import SYSTEM, active_operator
from tests.e2e.kube import NODE_TIMEOUT_MS, Api, kubectl

if TYPE_CHECKING:
    from tests.chaos.k8s_befaller import K8sBefaller, Kind, Scene
    from tests.chaos.look import Seen
    from tests.chaos.nemesis import Fault
    from tests.chaos.taken import Taken

__all__ = ["OTHER_KINDS"]

# A master that is cut off takes writes until it has missed a majority for a node timeout.
NOTICES_MS = 2 * NODE_TIMEOUT_MS + 1_000
ARMED_S = 2.0  # from the order to kill a process until it is carried out
ARMED_SLACK_MS = 300
GONE_S = 0.3  # until an API server that was told to go is away
PYTHON = "python"


# -- operators and gateways -----------------------------------------------------------------


async def _delete_operator(befaller: K8sBefaller, fault: Fault) -> str:
    """In good order; the other one takes over."""
    del befaller, fault
    if not (name := await aside(active_operator)):
        return ""
    await aside(kubectl, "-n", SYSTEM, "delete", "pod", name, "--wait=false")
    return name


async def _kill_operator(befaller: K8sBefaller, fault: Fault) -> str:
    """Its process alone; it may well be the next one, too."""
    del befaller, fault
    if not (name := await aside(active_operator)):
        return ""
    pod = await aside(Api.read, f"/api/v1/namespaces/{SYSTEM}/pods/{name}")
    return name if await aside(signal_container, pod, PYTHON, "KILL") else ""


async def _delete_gateways(befaller: K8sBefaller, fault: Fault) -> str:
    """All at once."""
    pods = [pod for pod in await befaller.ground.pods("gateway") if not pod.ending]
    if not pods:
        return ""
    await befaller.ground.kubectl(
        "delete", "pod", "--wait=false", *(pod.document["metadata"]["name"] for pod in pods)
    )
    befaller.await_gateway(fault)
    return f"{len(pods)} gateways"


async def _kill_gateway(befaller: K8sBefaller, fault: Fault) -> str:
    pods = [pod for pod in await befaller.ground.pods("gateway") if not pod.ending and pod.host]
    pod = befaller.pick(fault, pods)
    if pod is None:
        return ""
    await befaller.ground.signal(pod, "KILL", process=PYTHON)
    befaller.await_gateway(fault)
    return pod.name


# -- machines -------------------------------------------------------------------------------


def _free_machines(befaller: K8sBefaller, *, home: bool) -> list[str]:
    """Those that may be hit: our clients' (or that alone), and one at a time."""
    ground = befaller.ground
    if ground.rig is None or befaller.machine_hit:
        return []
    return [machine for machine in ground.machines if (machine == ground.home) == home]


async def _machine_dies(befaller: K8sBefaller, fault: Fault) -> str:
    """Without power for a while; not that of our clients, whose history would be lost."""
    scene = await befaller.see()
    machines = [
        machine
        for machine in _free_machines(befaller, home=False)
        if befaller.ground.storage or _copied_elsewhere(befaller, scene, machine)
        if not any(
            pod.machine == machine and name.rpartition("-")[0] in befaller.spared
            for name, pod in scene.pods.items()
        )
    ]
    machine, rig = befaller.pick(fault, machines), befaller.ground.rig
    if machine is None or rig is None:
        return ""
    there = [node for node in scene.nodes if scene.machine_of(node) == machine]
    taken = _machine_takes(befaller, scene, machine, there)
    befaller.machine_hit = machine
    await aside(rig, "kill", machine)
    befaller.was_hit(taken)
    for node in there:
        befaller.await_write(fault, befaller.masters_of(scene.nodes, node))

    async def power() -> None:
        await asyncio.sleep(fault.lasts / 1000)
        await aside(rig, "start", machine)
        befaller.machine_hit = ""

    befaller.meanwhile(power())
    return f"{machine} with {', '.join(node.name for node in there) or 'no node'}"


def _elsewhere(scene: Scene, machine: str) -> list[Seen]:
    return [node for node in scene.nodes if scene.machine_of(node) != machine]


def _copied_elsewhere(befaller: K8sBefaller, scene: Scene, machine: str) -> bool:
    """Whether all data that is in memory there is in that of another machine, too."""
    answering = {node.name: node for node in scene.nodes}
    here = [name for name, pod in scene.pods.items() if pod.machine == machine]
    if any(name not in answering or name in befaller.ending for name in here):
        return False
    others = _elsewhere(scene, machine)
    return all(befaller.copied(others, answering[name]) for name in here)


def _machine_takes(
    befaller: K8sBefaller, scene: Scene, machine: str, there: list[Seen]
) -> list[Taken]:
    others, taken = _elsewhere(scene, machine), []
    for node in there:
        if node.is_master and not befaller.in_step(others, node):
            # Its replica may be there, too: then the disks count.
            behind_ms = befaller.behind_ms(node.shard)
            in_step = befaller.in_step(scene.nodes, node)
            taken.append(befaller.take(node, AOF_MS if in_step else behind_ms, Cause.LAST_COPY))
        else:
            taken += befaller.hit(scene, node)
    return taken


async def _partition(befaller: K8sBefaller, fault: Fault) -> str:
    """A machine without our clients."""
    return await _cut(befaller, fault, home=False)


async def _partition_home(befaller: K8sBefaller, fault: Fault) -> str:
    """That with our clients, who reach the nodes on it and nobody else."""
    return await _cut(befaller, fault, home=True)


async def _cut(befaller: K8sBefaller, fault: Fault, *, home: bool) -> str:
    scene = await befaller.see()
    machine = befaller.pick(fault, _free_machines(befaller, home=home))
    rig = befaller.ground.rig
    if machine is None or rig is None:
        return ""
    befaller.machine_hit = machine
    since_ms = now_ms()
    await aside(rig, "partition", machine)
    until_ms = now_ms() + NOTICES_MS
    for master in scene.nodes:
        if master.is_master and _split(scene, master, machine):
            befaller.parted(scene, master, since_ms, until_ms)
    there = [node for node in scene.nodes if scene.machine_of(node) == machine]
    beyond = _elsewhere(scene, machine) if home else there
    befaller.await_write(fault, [node for node in beyond if node.is_master])

    async def heal() -> None:
        await asyncio.sleep(fault.lasts / 1000)
        await aside(rig, "heal", machine)
        befaller.machine_hit = ""

    befaller.meanwhile(heal())
    return f"{machine} with {', '.join(node.name for node in there) or 'no node'}"


def _split(scene: Scene, master: Seen, machine: str) -> bool:
    """Whether the master's shard has nodes on both sides."""
    sides = {
        pod.machine == machine
        for name, pod in scene.pods.items()
        if name.rpartition("-")[0] == master.shard
    }
    return len(sides) > 1


# -- the API server -------------------------------------------------------------------------


async def _api_away(befaller: K8sBefaller, fault: Fault) -> str:
    rig = befaller.ground.rig
    if rig is None:
        return ""
    seconds = max(1, fault.lasts // 1000)

    async def away() -> None:
        await aside(rig, "restart-apiserver", seconds)

    befaller.meanwhile(away())
    await asyncio.sleep(GONE_S)
    return f"the API server for {seconds} s"


async def _kill_master_without_api(befaller: K8sBefaller, fault: Fault) -> str:
    """The order is given before, and carried out while the API server is away."""
    scene = await befaller.see()
    node = befaller.pick(fault, befaller.may_end(scene, master=True))
    if node is None or befaller.ground.rig is None:
        return ""
    before_ms = now_ms()
    in_step = befaller.in_step(scene.nodes, node)
    taken = befaller.take(node, TAIL_MS if in_step else befaller.behind_ms(node.shard))
    await befaller.ground.signal(scene.pods[node.name], "0", str(ARMED_S), "KILL")
    armed_ms = int(ARMED_S * 1000)
    taken.asked_until_ms = now_ms() + armed_ms + ARMED_SLACK_MS
    if in_step:
        taken.answered_since_ms = before_ms + armed_ms - TAIL_MS
    await _api_away(befaller, fault)
    await asyncio.sleep(ARMED_S)
    befaller.await_write(fault, [node])
    return f"{node.name}{befaller.only_copy(scene, node)}"


OTHER_KINDS: dict[str, Kind] = {
    "kill master, no API": _kill_master_without_api,
    "delete operator": _delete_operator,
    "kill operator": _kill_operator,
    "delete gateways": _delete_gateways,
    "kill gateway": _kill_gateway,
    "machine dies": _machine_dies,
    "partition": _partition,
    "partition, clients inside": _partition_home,
    "API away": _api_away,
}
