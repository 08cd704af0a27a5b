"""One table of requests, good and bad, against both front ends on a real cluster."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

import httpx
import pytest

from shardcluster.slots import key_slot
from shardcluster_api.limits import (
    BATCH_OPERATIONS_MAX,
    BODY_BYTES_MAX,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
)
from shardcluster_api.operations import OPERATIONS
from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]

LONG_KEY = "k" * (KEY_BYTES_MAX + 1)
KEYS = {
    "plain": b"plain",
    "slash": b"a/b//c/",
    "leading slash": b"//a",
    "dots": b"a/../b",
    "space and plus": b"a b+c",
    "query-like": b"a?b=c&d#e",
    "percent": b"100%25",
    "newline": b"a\nb\r\n",
    "zero": b"\x00",
    "all bytes": bytes(range(256)),
    "not UTF-8": b"\xff\xfe",
    "half UTF-8": "é".encode()[:1],
    "tagged": b"{tag}one",
    "empty tag": b"{}two",
    "snow": "☃ 雪".encode(),
    "longest": b"k" * KEY_BYTES_MAX,
}
VALUES = [b"", b"text", "é".encode(), bytes(range(256)), b"\r\n\r\n\x00", b"v" * VALUE_BYTES_MAX]


@pytest.fixture
def client(front: GatewayProcess) -> Iterator[httpx.Client]:
    """Keeps one connection."""
    with httpx.Client(base_url=front.url, timeout=30) as one:
        yield one


def _path(key: bytes) -> str:
    return f"/v1/keys/{quote_from_bytes(key, safe='')}"


def _unique() -> str:
    return uuid.uuid4().hex


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_any_key_can_be_stored_read_and_deleted(client: httpx.Client, key: bytes) -> None:
    """Byte by byte as given, also over JSON."""
    put = client.put(_path(key), content=b"1")
    assert put.status_code == 204, put.text
    assert put.headers["X-ShardCluster-Slot"] == str(key_slot(key))
    strong = {"consistency": "strong"}
    found = client.get(f"{_path(key)}?consistency=strong")
    assert (found.status_code, found.content) == (200, b"1")
    quoted = quote_from_bytes(key, safe="")
    read = client.get(f"/read?key={quoted}&consistency=strong").json()
    name = {"key": key.decode()} if _is_text(key) else {"key_base64": read["key_base64"]}
    assert read["value"] == "1"
    assert client.post("/read", json={**name, **strong}).json() == read
    assert client.delete(_path(key)).status_code == 204
    assert client.delete(_path(key)).status_code == 404
    assert client.get(f"{_path(key)}?consistency=strong").status_code == 404


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{len(value)} bytes")
def test_any_value_comes_back_as_it_went_in(client: httpx.Client, value: bytes) -> None:
    """From nothing to the largest."""
    path = _path(_unique().encode())
    assert client.put(path, content=value).status_code == 204
    found = client.get(f"{path}?consistency=strong")
    assert found.content == value
    assert found.headers["Content-Type"] == "application/octet-stream"
    head = client.head(f"{path}?consistency=strong")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(value))


def test_write_and_read_in_json(client: httpx.Client) -> None:
    """The answers name key, slot, shard, node and role."""
    key = _unique()
    written = client.post("/write", json={"key": key, "value": "hé", "ttl_seconds": 100})
    assert written.status_code == 200
    said = written.json()
    assert said["key"] == key
    assert said["written"] is True
    assert (said["slot"], said["role"]) == (key_slot(key.encode()), "master")
    assert said["ttl_seconds"] == 100
    read = client.get("/read", params={"key": key, "consistency": "strong"}).json()
    assert (read["value"], read["found"]) == ("hé", True)
    assert (read["shard"], read["node"]) == (said["shard"], said["node"])


def test_a_missing_key_is_a_404_that_says_where_it_was_looked_for(client: httpx.Client) -> None:
    """In JSON and in headers."""
    key = _unique()
    for answer in (
        client.get("/read", params={"key": key}),
        client.post("/read", json={"key": key}),
        client.get(f"/v1/keys/{key}"),
    ):
        said = answer.json()
        assert (answer.status_code, said["error"]["code"]) == (404, "KeyNotFound")
        assert (said["found"], said["slot"]) == (False, key_slot(key.encode()))
        assert {"key", "shard", "node", "role"} <= said.keys()
        assert answer.headers["X-ShardCluster-Slot"] == str(said["slot"])
    assert client.head(f"/v1/keys/{key}").status_code == 404


def test_a_value_expires(client: httpx.Client) -> None:
    """TTL is set by both ways of writing, in milliseconds."""
    key = _unique()
    assert client.put(f"/v1/keys/{key}?ttl_seconds=0.001", content=b"v").status_code == 204
    for _ in range(1000):
        if client.get(f"/v1/keys/{key}?consistency=strong").status_code == 404:
            break
    else:
        pytest.fail("the key is still there")


def test_a_write_can_wait_for_a_replica_and_for_the_disk(client: httpx.Client) -> None:
    """And the answer says what was reached."""
    key = _unique()
    body = {"key": key, "value": "v"}
    replica = client.post("/write", json={**body, "durability": "replica"})
    assert (replica.status_code, replica.json()["replicas_acked"]) == (200, 1)
    disk = client.post("/write", json={**body, "durability": "disk"})
    assert (disk.status_code, disk.json()["disks_acked"]) == (200, 1)
    put = client.put(f"/v1/keys/{key}?durability=replica", content=b"v")
    assert put.headers["X-ShardCluster-Replicas-Acked"] == "1"
    assert client.get(f"/v1/keys/{key}").headers["X-ShardCluster-Role"] == "replica"


def test_a_batch_goes_to_all_shards(client: httpx.Client) -> None:
    """Per-item results in the order of the items."""
    keys = [_unique() for _ in range(300)]
    puts = [{"op": "put", "key": key, "value": key} for key in keys]
    written = client.post("/v1/batch", json={"operations": puts}).json()
    assert written["failed"] == 0
    assert len({result["shard"] for result in written["results"]}) == 3
    gets = [{"op": "get", "key": key, "consistency": "strong"} for key in [*keys, "nobody"]]
    read = client.post("/v1/batch", json={"operations": gets}).json()
    assert [result.get("value") for result in read["results"]] == [*keys, None]
    assert read["results"][-1]["status"] == 404
    deletes = [{"op": "delete", "key": key} for key in keys]
    assert client.post("/v1/batch", json={"operations": deletes}).json()["failed"] == 0
    assert client.post("/v1/batch", json={"operations": []}).json()["results"] == []


def test_every_operation_of_the_list_is_there(client: httpx.Client) -> None:
    """What openapi.json tells is what can be asked; nothing else can."""
    described = client.get("/openapi.json").json()["paths"]
    assert {(path, method.upper()) for path in described for method in described[path]} == {
        (operation.path, operation.method) for operation in OPERATIONS
    }
    for operation in OPERATIONS:
        if "subscribe" in operation.path:
            continue  # its answer has no end; tests/cluster/test_upstash_events.py asks for it
        path = operation.path.replace("{key}", "nobody").replace("{command}", "get/nobody")
        answer = client.request(operation.method, path)
        missing = answer.status_code == 404 and "{key}" in operation.path
        assert missing or answer.status_code not in {404, 405, 500}, operation.name
    assert client.get("/").headers["Content-Type"].startswith("text/html")
    assert b"requests_total" in client.get("/metrics").content
    assert client.get("/status").json()["gateway"]["slots_owned"] == 16384


def _write(**fields: Any) -> dict[str, Any]:
    return {"json": fields}


# What is wrong -> method, path, how it is sent, expected status.
BAD: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "no body": ("POST", "/write", {}, 400),
    "no JSON": ("POST", "/write", {"content": b"key=a"}, 400),
    "not UTF-8": ("POST", "/write", {"content": b'{"key":"\xff","value":""}'}, 400),
    "a list": ("POST", "/write", {"json": []}, 400),
    "no value": ("POST", "/write", _write(key="k"), 400),
    "no key": ("POST", "/write", _write(value="v"), 400),
    "empty key": ("POST", "/write", _write(key="", value="v"), 400),
    "number value": ("POST", "/write", _write(key="k", value=5), 400),
    "unknown field": ("POST", "/write", _write(key="k", value="v", nx=True), 400),
    "bad ttl": ("POST", "/write", _write(key="k", value="v", ttl_seconds=-1), 400),
    "bad durability": ("POST", "/write", _write(key="k", value="v", durability="x"), 400),
    "query on write": ("POST", "/write?x=1", _write(key="k", value="v"), 400),
    "key too long": ("POST", "/write", _write(key=LONG_KEY, value="v"), 413),
    "value too long": ("POST", "/write", _write(key="k", value="v" * (VALUE_BYTES_MAX + 1)), 413),
    "body too long": ("POST", "/write", {"content": b" " * (BODY_BYTES_MAX + 1)}, 413),
    "read without key": ("GET", "/read", {}, 400),
    "read of the empty key": ("GET", "/read?key=", {}, 400),
    "two keys": ("GET", "/read?key=a&key=b", {}, 400),
    "bad consistency": ("GET", "/read?key=a&consistency=x", {}, 400),
    "read by number": ("POST", "/read", _write(key=1), 400),
    "long read": ("GET", f"/read?key={LONG_KEY}", {}, 413),
    "PUT of the empty key": ("PUT", "/v1/keys/", {"content": b"v"}, 400),
    "PUT of a long key": ("PUT", f"/v1/keys/{LONG_KEY}", {"content": b"v"}, 413),
    "PUT too long": ("PUT", "/v1/keys/k", {"content": b"v" * (VALUE_BYTES_MAX + 1)}, 413),
    "PUT bad ttl": ("PUT", "/v1/keys/k?ttl_seconds=x", {"content": b"v"}, 400),
    "PUT unknown option": ("PUT", "/v1/keys/k?nx=1", {"content": b"v"}, 400),
    "GET bad option": ("GET", "/v1/keys/k?consistency=1", {}, 400),
    "batch no list": ("POST", "/v1/batch", _write(operations=1), 400),
    "batch bad item": ("POST", "/v1/batch", _write(operations=[{"op": "get"}]), 400),
    "batch too long": (
        "POST", "/v1/batch",
        _write(operations=[{"op": "get", "key": "k"}] * (BATCH_OPERATIONS_MAX + 1)), 413,
    ),
    "remove nothing": ("POST", "/remove_node", _write(), 400),
    "remove a number": ("POST", "/remove_node", _write(node=1), 400),
    "add something": ("POST", "/add_node", _write(shards=3), 400),
    "no controller": ("POST", "/rebalance", {}, 503),
    "wrong path": ("GET", "/nowhere", {}, 404),
    "key path without key": ("GET", "/v1/keys", {}, 404),
    "GET write": ("GET", "/write", {}, 405),
    "PUT read": ("PUT", "/read", {"content": b"x"}, 405),
    "POST key": ("POST", "/v1/keys/k", {"content": b"x"}, 405),
    "OPTIONS key": ("OPTIONS", "/v1/keys/k", {}, 405),
    "DELETE status": ("DELETE", "/status", {}, 405),
    "other site": (
        "PUT", "/v1/keys/k", {"content": b"x", "headers": {"Origin": "http://evil.test"}}, 403,
    ),
    "other site's shape": (
        "POST", "/add_node", {"headers": {"Origin": "null"}}, 403,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "sent", "status"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_answered_with_an_error_and_changes_nothing(
    client: httpx.Client, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    """A fitting status, and JSON with a code and a sentence."""
    client.delete("/v1/keys/k")
    answer = client.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"]
    assert error["code"].isalnum()
    assert error["message"].endswith(".")
    assert answer.headers["Content-Type"] == "application/json"
    if status == 405:
        assert answer.headers["Allow"]
        assert method not in answer.headers["Allow"].split(", ")
    assert client.get("/v1/keys/k?consistency=strong").status_code == 404


def test_a_key_that_holds_no_string_is_a_conflict(client: httpx.Client, small_cluster: Any) -> None:
    """Another client of the store may keep hashes in it."""
    key = f"{{b}}{_unique()}"  # `b` hashes to the first master's slots
    import redis  # noqa: PLC0415 - only here

    node = small_cluster.masters[0]
    with redis.Redis(port=node.port) as direct:
        direct.hset(key, "field", "value")
    answer = client.get(f"/v1/keys/{key}?consistency=strong")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "WrongType")


def test_a_page_of_this_gateway_may_write(client: httpx.Client) -> None:
    """Its origin is the host it asks."""
    origin = str(client.base_url).rstrip("/")
    answer = client.post(
        "/write", content=json.dumps({"key": _unique(), "value": "v"}), headers={"Origin": origin}
    )
    assert answer.status_code == 200


def test_a_body_without_a_length_is_read_to_its_end(client: httpx.Client) -> None:
    """Chunked transfer, also when it is over the limit."""

    def pieces(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"v" * 65_536

    path = _path(_unique().encode())
    assert client.put(path, content=pieces(3)).status_code == 204
    assert len(client.get(f"{path}?consistency=strong").content) == 3 * 65_536
    try:
        refused = client.put(path, content=pieces(VALUE_BYTES_MAX // 65_536 + 1)).status_code
    except httpx.WriteError:
        refused = 413  # it closed while we still wrote, which is an answer, too
    assert refused == 413
    assert len(client.get(f"{path}?consistency=strong").content) == 3 * 65_536
