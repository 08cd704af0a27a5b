"""The dashboard's files and operations through both front ends, on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardcluster.slots import key_slot
from shardcluster_api.dashboard.assets import CONTENT_SECURITY_POLICY, FILES
from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@pytest.fixture
def client(front: GatewayProcess) -> Iterator[httpx.Client]:
    """Keeps one connection."""
    with httpx.Client(base_url=front.url, timeout=30) as one:
        yield one


def test_the_page_and_its_files_are_served(client: httpx.Client) -> None:
    """With their types and guards; unchanged ones are not sent twice; HEAD has no body."""
    page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert page.headers["Referrer-Policy"] == "no-referrer"
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert {"app.js", "style.css", "icon.svg"} <= set(FILES)
    for path in ("/", *(f"/dashboard/{name}" for name in FILES)):
        first = client.get(path)
        assert first.status_code == 200
        assert first.headers["X-Content-Type-Options"] == "nosniff"
        assert first.headers["Cache-Control"] == "no-cache"
        kind = TYPES.get(path.rpartition(".")[2], "text/html")
        assert first.headers["Content-Type"].startswith(kind)
        again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
    assert client.get("/dashboard/nothing.js").status_code in {400, 404}


def test_the_overview_has_each_nodes_numbers(client: httpx.Client) -> None:
    """Keys, memory, and how many reads and writes took how long; counters grow with the traffic."""
    before = client.get("/v1/overview").json()
    assert before["controller"] == "none"
    assert len(before["shards"]) == 3
    assert {node["name"] for node in before["nodes"]} == set(before["numbers"])
    assert sum(shard["slots"] for shard in before["shards"]) == 16384

    def masters(found: Any) -> list[Any]:
        return [found["numbers"][shard["master"]] for shard in found["shards"]]

    def written(found: Any) -> int:
        return sum(master["writes"] for master in masters(found))

    for number in range(50):
        client.put(f"/v1/keys/dashboard:{number}", content=b"v")
    after = before
    for _ in range(2000):  # looks are shared for a second, so news may be that late
        after = client.get("/v1/overview").json()
        if written(after) >= written(before) + 50:
            break
    assert written(after) >= written(before) + 50
    for master in masters(after):
        assert master["memory_bytes"] > 0
        assert sum(count for _, count in master["took_us"]) == master["reads"] + master["writes"]


def test_hot_keys_and_slots_are_told(client: httpx.Client) -> None:
    """The key asked for most is first; slots by what was asked for; bad asks are refused."""
    for _ in range(300):
        client.put("/v1/keys/sun", content=b"v")
    found = client.get("/v1/hot?by=key-count").json()
    hottest = found["keys"]["top"][0]
    assert (hottest["key"], hottest["slot"]) == ("sun", key_slot(b"sun"))
    assert hottest["share"] > 0.3
    assert found["slots"]["top"][0]["key-count"] >= 1
    assert client.get("/v1/hot?by=beauty").status_code == 400
    assert client.get("/v1/overview?x=1").status_code == 400


def test_without_a_controller_a_preview_is_refused(client: httpx.Client) -> None:
    """503 with a sentence; what is no wish is 400."""
    refused = client.post("/v1/preview", json={"change": "add"})
    assert refused.status_code == 503
    assert "without a controller" in refused.json()["error"]["message"]
    assert client.post("/v1/preview", json={"change": "grow"}).status_code == 400
