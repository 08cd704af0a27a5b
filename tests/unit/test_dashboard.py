"""What the dashboard's operations answer, with scripted nodes and a controller on paper."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from shardcluster_api.dashboard.assets import CONTENT_SECURITY_POLICY, FILES
from shardcluster_api.dashboard.numbers import parse_histogram, parse_info
from shardcluster_api.dashboard.once import SharedLook
from shardcluster_api.kubernetes_control_plane import KubernetesControlPlane
from shardcluster_runtime.state import timestamp
from tests.browser.canned import CannedController, canned_state, resource_of, serving
from tests.unit.api_fakes import HANG, ask, document, fake_shard, gateway_on

if TYPE_CHECKING:
    from shardcluster_api.answers import Answer
    from shardcluster_api.gateway import Gateway
    from shardcluster_runtime.kube import Kube
    from tests.unit.api_fakes import FakeNode

INFO = b"# Memory\r\nrole:master\r\nused_memory:123\r\nmaxmemory:0\r\ndb0:keys=7,expires=0\r\n"
HISTOGRAM = [
    b"get", [b"calls", 10, b"histogram_usec", [1, 4, 2, 10]],
    b"set", [b"calls", 3, b"histogram_usec", [2, 3]],
    b"migrate", [b"calls", 9, b"histogram_usec", [1000, 9]],
    b"ping", [b"calls", 99, b"histogram_usec", [1, 99]],
]  # fmt: skip


def test_histograms_are_joined_over_commands() -> None:
    """Reads and writes of clients count, apart; bounds hold what lies up to them alone."""
    found = parse_histogram(HISTOGRAM, frozenset({b"get"}), frozenset({b"set"}))
    assert found == {"reads": 10, "writes": 3, "took_us": [(1, 4), (2, 9)]}
    assert parse_histogram([], frozenset(), frozenset())["took_us"] == []


def test_info_is_read_for_what_is_shown() -> None:
    """Numbers as numbers, the role as a word, no database as no keys."""
    found = parse_info(INFO.decode())
    assert found == {"role": "master", "memory_bytes": 123, "memory_max_bytes": 0, "keys": 7}
    assert parse_info("")["keys"] == 0


async def test_lookers_share_one_look() -> None:
    """However many ask at once or soon after, one look is made; an error reaches each of them."""
    looks = 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        if looks == 2:
            raise OSError
        return looks

    shared = SharedLook(look, 3600.0)
    assert await asyncio.gather(*(shared.get() for _ in range(5))) == [1] * 5
    assert await shared.get() == 1
    shared._fresh_s = 0.0
    with pytest.raises(OSError):  # noqa: PT011 - what it says doesn't matter
        await shared.get()
    assert await shared.get() == 3


def _scripted(node: FakeNode) -> None:
    node.always |= {b"INFO": INFO, b"LATENCY": HISTOGRAM, b"COMMAND": [b"get", b"set"]}


async def test_without_a_controller_the_nodes_are_shown() -> None:
    """Shards from the slot map, each node's numbers, and that there is no controller."""
    async with fake_shard() as shard:
        for node in shard.nodes:
            _scripted(node)
        async with gateway_on(shard.master.address) as gateway:
            found = document(await ask(gateway, "overview"))
            name = str(shard.master.address)
            assert (found["controller"], found["your_role"]) == ("none", "admin")
            assert [one["slot_ranges"] for one in found["shards"]] == ["0-16383"]
            assert {node["role"] for node in found["nodes"]} == {"master", "replica"}
            assert found["numbers"][name]["keys"] == 7
            assert found["numbers"][name]["took_us"] == [[1, 4], [2, 9]]
            assert found["gateway"]["slots_without_owner"] == 0
            assert found["gateway"]["masters_out_of_reach"] == {}


async def test_a_node_that_hangs_is_left_out() -> None:
    """The others' numbers are there."""
    async with fake_shard() as shard, gateway_on(shard.master.address) as gateway:
        _scripted(shard.master)
        shard.replicas[0].always |= {b"INFO": HANG, b"LATENCY": HANG}
        found = document(await ask(gateway, "overview"))
        assert set(found["numbers"]) == {str(shard.master.address)}


async def test_hot_slots_or_why_not() -> None:
    """The engine's rows, or a sentence when it can't tell; hot keys in any case."""
    async with fake_shard(replicas=0) as shard, gateway_on(shard.master.address) as gateway:
        master = shard.master
        assert (await ask(gateway, "put_key", key=b"\xff", body=b"v")).status == 204
        view = master.view(master)
        for reply, note in (
            ("-ERR unknown subcommand 'SLOT-STATS'. Try CLUSTER HELP.", "Valkey 8.0"),
            ("-ERR unrecognized sort metric for ORDERBY.", "cluster-slot-stats-enabled yes"),
        ):
            master.always[b"CLUSTER"] = reply
            gateway.hot_spots._slots["cpu-usec"]._task = None
            told = document(await ask(gateway, "hot", query="by=cpu-usec"))
            assert note in told["slots"]["note"]
        found = document(await ask(gateway, "hot", query="by=cpu-usec"))
        assert found["keys"]["top"][0]["key_base64"] == "/w=="
        assert found["keys"]["top"][0]["share"] == 1.0
        counted = [b"key-count", 3, b"cpu-usec", 4]
        master.always[b"CLUSTER"] = [[5, counted], [6, [b"key-count", 9, b"cpu-usec", 1]]]
        found = document(await ask(gateway, "hot"))
        master.always[b"CLUSTER"] = view.encode()
        assert [row["slot"] for row in found["slots"]["top"]] == [6, 5]
        assert found["slots"]["note"] == ""
        refused = await ask(gateway, "hot", query="by=beauty")
        assert (refused.status, "key-count" in str(document(refused))) == (400, True)


class _PaperKubernetes(KubernetesControlPlane):
    """The resource as it is on paper, and no API server."""

    def __init__(self, resource: dict[str, Any]) -> None:
        super().__init__("default", "paper")
        self.resource = resource

    async def _open(self) -> Kube:
        return cast("Kube", None)

    async def _resource(self) -> dict[str, Any]:
        return self.resource


async def _told(gateway: Gateway, **wish: str) -> Answer:
    return await ask(gateway, "preview", body=json.dumps(wish).encode())


async def _previews_are_right(gateway: Gateway) -> None:
    added = document(await _told(gateway, change="add"))
    assert added["shard"] == "shard-3"
    assert added["plan"]["start_nodes"] == ["shard-3-0", "shard-3-1"]
    assert {move["to"] for move in added["plan"]["moves"]} == {"shard-3"}
    slots, keys = added["plan"]["slots"], added["plan"]["keys"]
    moving = f"{slots:,} slots with about {keys:,} keys would move."
    assert added["message"] == f"shard-3 would be added; {moving}"
    assert 3000 < slots < 5000
    removed = document(await _told(gateway, change="remove", node="shard-1-1"))
    assert removed["shard"] == "shard-1"
    assert {move["from"] for move in removed["plan"]["moves"]} == {"shard-1"}
    assert removed["plan"]["stop_nodes"] == ["shard-1-0", "shard-1-1"]
    balanced = document(await _told(gateway, change="rebalance"))
    assert balanced["message"] == "Every shard is within its share: nothing would move."


async def test_a_preview_tells_and_changes_nothing() -> None:
    """Adding, removing and rebalancing; what could not be done is refused as the wish would be."""
    canned = CannedController(canned_state(3))
    async with serving(canned) as url, gateway_on(controller_url=url) as gateway:
        await _previews_are_right(gateway)
        assert canned.wishes == []
        wrong: tuple[tuple[dict[str, str], int, str], ...] = (
            ({"change": "remove", "node": "nobody"}, 404, "UnknownShard"),
            ({"change": "remove"}, 400, "BadRequest"),
            ({"change": "explode"}, 400, "BadRequest"),
            ({"change": "add", "node": "shard-1"}, 400, "BadRequest"),
        )
        for wish, status, code in wrong:
            refused = await _told(gateway, **wish)
            assert (refused.status, document(refused)["error"]["code"]) == (status, code)
        canned.document["spare_nodes"] = 1
        refused = await _told(gateway, change="add")
        assert (refused.status, document(refused)["error"]["code"]) == (409, "NoSpareNode")


async def test_a_preview_on_kubernetes_needs_the_resource_alone() -> None:
    """The same plans, from its status."""
    resource = resource_of(canned_state(3))
    before = copy.deepcopy(resource)
    async with gateway_on(control=_PaperKubernetes(resource)) as gateway:
        await _previews_are_right(gateway)
    assert resource == before


async def test_the_page_may_run_its_own_files_only() -> None:
    """The policy is on the page; each file has its type and a tag that saves the second sending."""
    async with gateway_on() as gateway:
        page = await ask(gateway, "page")
        headers = dict(page.headers)
        assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert b'<script type="module" src="dashboard/app.js"></script>' in page.body
        assert b"style=" not in page.body
        assert b"<style" not in page.body
        for name in FILES:
            found = await ask(gateway, f"dashboard_{name}")
            headers = dict(found.headers)
            assert (found.status, headers["Cache-Control"]) == (200, "no-cache")
            tag = headers["ETag"].encode()
            for sent in (tag, b'"other", W/' + tag):
                again = await ask(gateway, f"dashboard_{name}", headers={b"if-none-match": sent})
                assert (again.status, again.body) == (304, b"")


def test_stamps_sort_as_times() -> None:
    """The page orders events by their text."""
    assert timestamp(9.5) < timestamp(10.0) < timestamp(2e9)
