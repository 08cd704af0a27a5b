"""The endpoints about the store's shape, against the controller's own HTTP API."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from shardcluster.edits import EditError
from shardcluster.spec_model import Spec
from shardcluster_api.openapi import openapi_document
from shardcluster_api.operations import OPERATIONS
from shardcluster_runtime.control import Accepted, control_app
from tests.unit.api_fakes import ask, document, fake_shard, gateway_on, header, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.api_fakes import FakeShard


class _Controller:
    """A controller that has no nodes, only a state document."""

    def __init__(self, shard: FakeShard | None = None) -> None:
        self.document: dict[str, Any] = {
            "cluster": "demo", "version": 1, "phase": "Ready", "shards": [], "nodes": [],
            "spec": Spec().document(),
        }  # fmt: skip
        self.wishes: list[str] = []
        self.changed = asyncio.Event()
        if shard is not None:
            self._describe(shard)

    def _describe(self, shard: FakeShard) -> None:
        self.document["nodes"] = [
            {
                "name": f"shard-0-{index}", "shard": "shard-0", "host": "127.0.0.1",
                "role": "master" if node is shard.master else "replica", "port": node.port,
                "node_id": node.node_id, "link_up": True, "lag_bytes": 0,
            }
            for index, node in enumerate(shard.nodes)
        ]  # fmt: skip
        self.document["shards"] = [
            {
                "name": "shard-0", "master": "shard-0-0", "moving_out": [],
                "replicas": [f"shard-0-{index + 1}" for index in range(len(shard.replicas))],
                "slot_ranges": "0-16383",
            }
        ]  # fmt: skip

    def publish(self) -> None:
        self.document["version"] += 1
        self.changed.set()

    def state(self) -> dict[str, Any]:
        return self.document

    def metrics(self) -> bytes:
        raise NotImplementedError

    async def wait_state(self, since: int, wait_s: float) -> dict[str, Any]:
        while self.document["version"] == since:
            self.changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self.changed.wait()
            except TimeoutError:
                break
        return self.document

    async def add_shard(self) -> Accepted:
        self.wishes.append("add")
        return Accepted("shard-1 will be added.", "shard-1", {"slots": 8192})

    async def remove_shard(self, node: str) -> Accepted:
        if node == "shard-0":
            code = "LastShard"
            raise EditError(code, "shard-0 is the last shard.")
        if node != "shard-1":
            code = "UnknownShard"
            raise EditError(code, f"There is no {node}.")
        self.wishes.append(f"remove {node}")
        return Accepted("shard-1 will be drained.", node, {})

    async def rebalance(self) -> Accepted:
        self.wishes.append("rebalance")
        return Accepted("Nothing to move.", None, {})

    async def put_spec(self, document: dict[str, Any]) -> Accepted:
        raise NotImplementedError

    async def preview(self, document: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def kill(self, node: str, signal_name: str) -> None:
        raise NotImplementedError


@asynccontextmanager
async def _serving(controller: _Controller, port: int = 0) -> AsyncIterator[str]:
    runner = web.AppRunner(control_app(controller), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_wishes_reach_the_controller_and_its_answers_the_client() -> None:
    """Status and document are the controller's."""
    controller = _Controller()
    async with _serving(controller) as url, gateway_on(controller_url=url) as gateway:
        added = await ask(gateway, "add_node")
        assert added.status == 202
        assert document(added)["plan"] == {"slots": 8192}
        removed = await ask(gateway, "remove_node", body=b'{"node":"shard-1"}')
        assert (removed.status, document(removed)["shard"]) == (202, "shard-1")
        assert (await ask(gateway, "rebalance", body=b"{}")).status == 202
        assert controller.wishes == ["add", "remove shard-1", "rebalance"]


@pytest.mark.parametrize(
    ("node", "status", "code"),
    [("shard-0", 409, "LastShard"), ("nobody", 404, "UnknownShard")],
)
async def test_refusals_of_the_controller_are_passed_on(node: str, status: int, code: str) -> None:
    """With its code and sentence."""
    async with _serving(_Controller()) as url, gateway_on(controller_url=url) as gateway:
        answer = await ask(gateway, "remove_node", body=f'{{"node":"{node}"}}'.encode())
        assert (answer.status, document(answer)["error"]["code"]) == (status, code)
        assert node in document(answer)["error"]["message"]


async def test_names_and_moves_come_from_the_state() -> None:
    """Answers name shard and node; a slot that moves is read at its master."""
    async with fake_shard() as shard:
        controller = _Controller(shard)
        async with _serving(controller) as url, gateway_on(controller_url=url) as gateway:
            await until(lambda: not gateway.unready(), "nodes are found through the controller")
            shard.replicas[0].data[b"k"] = shard.master.data[b"k"] = b"v"
            link = gateway.topology.link(shard.replicas[0].address)
            await until(lambda: link.connected, "the replica is connected")
            answer = await ask(gateway, "read", query="key=k")
            found = document(answer)
            assert (found["shard"], found["node"]) == ("shard-0", "shard-0-1")
            controller.document["shards"][0]["moving_out"] = [[str(found["slot"]), "shard-1"]]
            controller.publish()
            slot = found["slot"]
            await until(lambda: gateway.topology.map.is_moving(slot, 0), "the move is known")
            assert header(await ask(gateway, "read", query="key=k"), "Node") == "shard-0-0"


async def test_the_spec_says_where_reads_go_and_how_safe_writes_are() -> None:
    """For requests that don't say it themselves."""
    async with fake_shard() as shard:
        controller = _Controller(shard)
        policy = {"gateway": {"readFrom": "master", "durability": "replica"}}
        controller.document["spec"]["spec"] |= policy
        async with _serving(controller) as url, gateway_on(controller_url=url) as gateway:
            await until(lambda: not gateway.unready(), "nodes are found through the controller")
            shard.master.data[b"k"] = b"v"
            assert header(await ask(gateway, "get_key", key=b"k"), "Role") == "master"
            answer = await ask(gateway, "write", body=b'{"key":"k","value":"w"}')
            assert document(answer)["durability"] == "replica"


async def test_status_shows_the_controllers_state_and_the_gateways_view() -> None:
    """One document."""
    async with _serving(_Controller()) as url, gateway_on(controller_url=url) as gateway:
        found = document(await ask(gateway, "status"))
        assert (found["cluster"], found["controller"]) == ("demo", "reachable")
        assert found["gateway"]["slots_owned"] == 0


async def test_without_a_controller_keys_are_served_and_status_answers() -> None:
    """Changes of shape are refused; the last known state is shown."""
    async with fake_shard() as shard:
        controller = _Controller(shard)
        async with (
            _serving(controller) as url,
            gateway_on(shard.master.address, controller_url=url) as gateway,
        ):
            await until(lambda: gateway.state is not None, "the state is known")
            async with asyncio.timeout(20):
                await _away(gateway)


async def _away(gateway: Any) -> None:
    """Point the gateway at an address where nobody listens."""
    gateway.control.url = "http://127.0.0.1:1"
    answer = await ask(gateway, "add_node")
    assert (answer.status, document(answer)["error"]["code"]) == (503, "ControllerUnavailable")
    assert document(answer)["outcome"] == "not_applied"
    found = document(await ask(gateway, "status"))
    assert (found["controller"], found["cluster"]) == ("unreachable", "demo")
    assert (await ask(gateway, "put_key", key=b"k", body=b"v")).status == 204


async def test_a_gateway_without_any_controller_says_so() -> None:
    """It serves keys on its seeds alone."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        answer = await ask(gateway, "rebalance")
        assert (answer.status, document(answer)["error"]["code"]) == (503, "ControllerUnavailable")
        assert document(await ask(gateway, "status"))["controller"] == "unreachable"
        assert (await ask(gateway, "put_key", key=b"k", body=b"v")).status == 204


async def test_a_controller_that_talks_nonsense_is_no_controller() -> None:
    """Whatever listens at its address."""
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", _nonsense)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with gateway_on(
            controller_url=f"http://127.0.0.1:{runner.addresses[0][1]}"
        ) as gateway:
            answer = await ask(gateway, "add_node")
            assert (answer.status, document(answer)["outcome"]) == (503, "unknown")
            assert document(await ask(gateway, "status"))["controller"] == "unreachable"
    finally:
        await runner.cleanup()


async def _nonsense(_request: web.Request) -> web.Response:
    return web.Response(text="<html>")


async def test_readiness_needs_a_whole_map_and_ends_with_draining() -> None:
    """A gateway that knows nothing is not ready; one that shuts down no longer."""
    async with gateway_on(controller_url="http://127.0.0.1:1") as gateway:
        assert (await ask(gateway, "readyz")).status == 503
        assert (await ask(gateway, "healthz")).status == 200
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        assert (await ask(gateway, "readyz")).status == 200
        gateway.draining = True
        assert document(await ask(gateway, "readyz"))["error"]["code"] == "NotReady"


async def test_metrics_count_requests() -> None:
    """By operation and code."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        await ask(gateway, "put_key", key=b"k", body=b"v")
        await ask(gateway, "put_key", key=b"", body=b"v")
        text = (await ask(gateway, "metrics")).body.decode()
        for code in (204, 400):
            line = f'shardcluster_gateway_requests_total{{code="{code}",operation="put_key"}} 1.0'
            assert line in text
        assert "shardcluster_gateway_ready 1.0" in text


def test_openapi_describes_every_operation() -> None:
    """Each path, method, query parameter and schema that is referred to."""
    found = openapi_document(OPERATIONS)
    for operation in OPERATIONS:
        described = found["paths"][operation.path][operation.method.lower()]
        names = {parameter["name"] for parameter in described["parameters"]}
        assert set(operation.query) <= names
        assert str(operation.statuses[0]) in described["responses"]
        assert (
            ("security" in described) == ("401" in described["responses"]) == (operation.role > 0)
        )
    text = str(found)
    for name in found["components"]["schemas"]:
        assert f"#/components/schemas/{name}'" in text
