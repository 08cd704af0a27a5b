"""Machines that lose power or are cut off, a drain, and an API server that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.kube import Document, Refused, Store, kubectl, kubectl_json, until
from tests.e2e.traffic import traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.rig import Rig

pytestmark = pytest.mark.serial

AWAY_S = 30


def _machine_of(store: Store) -> dict[str, str]:
    """Node → the machine it runs on."""
    return {store.node_of(pod): pod["spec"]["nodeName"] for pod in store.pods()}


def _a_master_away_from_the_gateway(store: Store) -> tuple[str, str]:
    """A machine that runs a master and no gateway; and a third that runs neither of them."""
    machines = _machine_of(store)
    gateways = {pod["spec"]["nodeName"] for pod in store.pods("gateway")}
    all_machines = {item["metadata"]["name"] for item in kubectl_json("get", "nodes")["items"]}
    for master in store.masters().values():
        if machines[master] not in gateways:
            victim = machines[master]
            return victim, min(all_machines - {victim})
    raise AssertionError(machines, gateways)


def _led_elsewhere(store: Store, lost: list[str]) -> Callable[[], bool]:
    def holds() -> bool:
        masters = set(store.masters().values())
        return "" not in masters and not masters & set(lost)

    return holds


def _until_told(store: Store, lost: list[str]) -> Document:
    """Wait until the status says that these nodes are away, and that it is served nevertheless."""

    def told(status: Document) -> bool:
        health = {node["name"]: node["health"] for node in status["nodes"]}
        words = {c["type"]: c["status"] for c in status["conditions"]}
        return (
            all(health[name] != "Up" for name in lost)
            and words["Available"] == "True"
            and words["Degraded"] == "True"
        )

    return store.until_status(told, f"told that {lost} are away while all slots are served")


def _ready(machine: str) -> bool:
    found = kubectl_json("get", "node", machine)["status"]["conditions"]
    words: dict[str, str] = {c["type"]: c["status"] for c in found}
    return words["Ready"] == "True"


@pytest.mark.rig
def test_a_machine_loses_power_and_comes_back(store: Store, rig: Rig) -> None:
    """Its masters are replaced; back again, its nodes are replicas."""
    store.apply()
    store.until_calm()
    victim, other = _a_master_away_from_the_gateway(store)
    lost = [name for name, machine in _machine_of(store).items() if machine == victim]
    with traffic(store, on=other) as clients:
        rig("kill", victim)
        until(_led_elsewhere(store, lost), f"masters away from {victim}")
        status = _until_told(store, lost)
        assert any(name in status["message"] for name in lost), status["message"]
        clients.goes_on()
        rig("start", victim)
        until(lambda: _ready(victim), f"{victim} is back")
        store.until_calm()
        clients.goes_on()


@pytest.mark.rig
def test_a_machine_is_gone_for_good(store: Store, rig: Rig) -> None:
    """When its Node is deleted, its nodes are made anew elsewhere and copy."""
    store.apply(storage=None)
    store.until_calm()
    victim, other = _a_master_away_from_the_gateway(store)
    lost = [name for name, machine in _machine_of(store).items() if machine == victim]
    with traffic(store, on=other) as clients:
        rig("kill", victim)
        until(_led_elsewhere(store, lost), f"masters away from {victim}")
        _until_told(store, lost)
        kubectl("delete", "node", victim)
        store.until_calm()
        assert victim not in _machine_of(store).values()
        clients.goes_on()
        rig("start", victim)
        until(lambda: _ready(victim), f"{victim} is a machine again")
    store.until_calm()


@pytest.mark.rig
def test_a_machine_is_cut_off(store: Store, rig: Rig) -> None:
    """A client on each side: what the gateway acknowledged with a replica is never lost."""
    store.apply(gateway={"durability": "replica"})
    store.until_calm()
    victim, other = _a_master_away_from_the_gateway(store)
    lost = [name for name, machine in _machine_of(store).items() if machine == victim]
    with (
        # A master that is cut off takes writes for a node timeout more: those without WAIT are
        # lost with it, in the engine's own way.
        traffic(store, on=other, may_lose=("direct",)) as outside,
        traffic(store, on=victim, may_lose=("direct",)),
    ):
        rig("partition", victim)
        until(_led_elsewhere(store, lost), f"masters away from {victim}")
        status = _until_told(store, lost)
        assert status["reason"] in {"NodeSilent", "MasterUnknown"}, status["reason"]
        outside.goes_on("direct")  # with its replica away a shard can't give what the gateway asks
        rig("heal", victim)
        until(lambda: _ready(victim), f"{victim} is back")
        store.until_calm()
        outside.goes_on()


def test_a_machine_is_drained(store: Store) -> None:
    """`kubectl drain` goes on one node of the store at a time, and no request fails."""
    store.apply(storage=None, gateway={"replicas": 2})
    store.until_calm()
    store.kubectl("rollout", "status", "deploy/demo-gateway", "--timeout=90s")
    machines = _machine_of(store)
    victim = machines[store.masters()["shard-0"]]
    other = next(machine for machine in sorted(set(machines.values())) if machine != victim)
    try:
        with traffic(store, on=other) as clients:
            kubectl("drain", victim, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                    f"--pod-selector=app.kubernetes.io/instance={store.name}",
                    "--timeout=140s")  # fmt: skip
            store.until_calm()
            assert victim not in _machine_of(store).values()
            clients.harmless()
    finally:
        kubectl("uncordon", victim)


@pytest.mark.rig
def test_the_api_server_is_away(store: Store, rig: Rig) -> None:
    """Clients do not notice; a master that ends meanwhile is replaced by the engine's own vote."""
    store.apply()
    store.until_calm()
    with traffic(store) as clients:
        store.patch(replicasPerShard=2)
        rig("restart-apiserver", AWAY_S)
        until(_answers, "an API server")
        store.until_calm(replicas=2)
        clients.harmless()
        store.patch(replicasPerShard=1)
        store.until_calm()
        clients.harmless()


def _answers() -> bool:
    try:
        return bool(kubectl("get", "--raw", "/readyz"))
    except Refused:
        return False
