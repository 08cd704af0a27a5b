"""Upstash's protocol: one table of requests against both front ends on a real cluster."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardcluster.slots import key_slot
from shardcluster_api.limits import BATCH_OPERATIONS_MAX, VALUE_BYTES_MAX
from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]

STRONG = {"X-ShardCluster-Consistency": "strong"}


@pytest.fixture
def client(front: GatewayProcess) -> Iterator[httpx.Client]:
    """Keeps one connection, and reads at masters."""
    with httpx.Client(base_url=front.url, timeout=30, headers=STRONG) as one:
        yield one


def _unique() -> str:
    return uuid.uuid4().hex


def _ask(client: httpx.Client, *command: Any) -> Any:
    return client.post("/", content=json.dumps(command)).json()


# What is asked: method, path (with {k} for a fresh key that holds "v"), body, headers -> status,
# and the body that is answered.
BASE64 = {"Upstash-Encoding": "base64"}
RESP2 = {"Upstash-Response-Format": "resp2"}
OK = {"result": "OK"}
WRONGTYPE = {"error": "WRONGTYPE Operation against a key holding the wrong kind of value"}
ASKED: dict[str, tuple[str, str, str, dict[str, str], int, Any]] = {
    "path": ("GET", "/get/{k}", "", {}, 200, {"result": "v"}),
    "upper case": ("GET", "/GET/{k}", "", {}, 200, {"result": "v"}),
    "nothing": ("GET", "/get/none", "", {}, 200, {"result": None}),
    "number": ("GET", "/strlen/{k}", "", {}, 200, {"result": 1}),
    "list": ("GET", "/mget/{k}/none", "", {}, 200, {"result": ["v", None]}),
    "set by path": ("GET", "/set/{k}/w", "", {}, 200, OK),
    "set by PUT": ("PUT", "/set/{k}", "w", {}, 200, OK),
    "body and query": ("POST", "/set/{k}?NX", "w", {}, 200, {"result": None}),
    "query alone": ("GET", "/set/{k}/w?EX=100&GET", "", {}, 200, {"result": "v"}),
    "token in the query": ("GET", "/get/{k}?_token=abc", "", {}, 200, {"result": "v"}),
    "empty argument": ("GET", "/set/{k}/", "", {}, 200, OK),
    "body command": ("POST", "/", '["GET", "{k}"]', {}, 200, {"result": "v"}),
    "numbers": ("POST", "/", '["APPEND", "{k}", 1.50]', {}, 200, {"result": 5}),
    "truth": ("POST", "/", '["APPEND", "{k}", true]', {}, 200, {"result": 5}),
    "base64": ("GET", "/get/{k}", "", BASE64, 200, {"result": "dg=="}),
    "base64 OK": ("GET", "/set/{k}/w", "", BASE64, 200, OK),
    "base64 list": ("GET", "/mget/{k}/none", "", BASE64, 200, {"result": ["dg==", None]}),
    "resp2": ("GET", "/get/{k}", "", RESP2, 200, b"$1\r\nv\r\n"),
    "resp2 status": ("GET", "/set/{k}/w", "", RESP2, 200, b"+OK\r\n"),
    "resp2 error": ("GET", "/lpush/{k}/w", "", RESP2, 400, f"-{WRONGTYPE['error']}\r\n".encode()),
    "resp2 nothing": ("GET", "/get/none", "", RESP2, 200, b"$-1\r\n"),
    "resp2 list": (
        "POST", "/pipeline", '[["GET","{k}"],["STRLEN","{k}"],["NOPE"]]', RESP2, 200,
        b"$1\r\nv\r\n:1\r\n-ERR unknown command 'NOPE', with args beginning with: \r\n",
    ),
    "engine's error": ("GET", "/lpush/{k}/w", "", {}, 400, WRONGTYPE),
    "arity": (
        "GET", "/get", "", {}, 400, {"error": "ERR wrong number of arguments for 'get' command"},
    ),
    "slots": (
        "GET", "/sunion/a/b", "", {}, 400,
        {"error": "CROSSSLOT Keys in request don't hash to the same slot"},
    ),
    "pipeline": (
        "POST", "/pipeline", '[["SET","{k}","w"],["GET","{k}"],["LPUSH","{k}","x"]]', {}, 200,
        [OK, {"result": "w"}, WRONGTYPE],
    ),
    "empty pipeline": ("POST", "/pipeline", "[]", {}, 200, []),
    "transaction": (
        "POST", "/multi-exec", '[["SET","{k}","5"],["INCR","{k}"],["LPUSH","{k}","x"]]', {}, 200,
        [OK, {"result": 6}, WRONGTYPE],
    ),
    "transaction in base64": (
        "POST", "/multi-exec", '[["SET","{k}","5"],["GET","{k}"]]', BASE64, 200,
        [OK, {"result": "NQ=="}],
    ),
    "script": (
        "POST", "/", '["EVAL","return {KEYS[1],{2,ARGV[1]}}",1,"{k}","a"]', {}, 200,
        {"result": ["{k}", [2, "a"]]},
    ),
    "ping": ("GET", "/ping", "", {}, 200, {"result": "PONG"}),
    "echo": ("GET", "/echo/a%2Fb%20c", "", {}, 200, {"result": "a/b c"}),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_a_request_is_answered_as_upstash_does(client: httpx.Client, asked: Any) -> None:
    """Status and body, in all three forms."""
    method, path, body, headers, status, expected = asked
    key = _unique()
    assert _ask(client, "SET", key, "v") == OK
    answer = client.request(
        method,
        path.replace("{k}", key),
        content=body.replace("{k}", key) or None,
        headers=headers,
    )
    assert answer.status_code == status, answer.text
    if isinstance(expected, bytes):
        assert answer.content == expected
        assert answer.headers["Content-Type"] == "application/octet-stream"
    else:
        assert answer.json() == json.loads(json.dumps(expected).replace("{k}", key))
        assert answer.headers["Content-Type"] == "application/json"


BAD: dict[str, tuple[str, str, str, dict[str, str], int, str]] = {
    "no JSON": ("POST", "/", "GET k", {}, 400, "JSON array"),
    "no list": ("POST", "/", '{"a":1}', {}, 400, "JSON array"),
    "nothing": ("POST", "/", "", {}, 400, "JSON array"),
    "no command": ("POST", "/", "[]", {}, 400, "ERR empty command"),
    "null": ("POST", "/", '["GET",null]', {}, 400, "strings, numbers and booleans"),
    "nested": ("POST", "/", '["GET",["k"]]', {}, 400, "strings, numbers and booleans"),
    "NaN": ("POST", "/", '["SET","k",NaN]', {}, 400, "NaN is not JSON"),
    "surrogate": ("POST", "/", '["SET","k","\\ud800"]', {}, 400, "surrogate"),
    "not UTF-8": ("POST", "/", '["\udcff"]', {}, 400, "JSON array"),
    "no list of lists": ("POST", "/pipeline", '["GET","k"]', {}, 400, "Command 0 must be"),
    "too many": (
        "POST", "/pipeline", json.dumps([["SET", "k", "v"]] * (BATCH_OPERATIONS_MAX + 1)), {}, 413,
        "may hold",
    ),
    "unknown command": ("POST", "/", '["NOPE","k"]', {}, 400, "ERR unknown command 'NOPE'"),
    "admin": ("GET", "/config/get/dir", "", {}, 400, "CONFIG GET is not offered here"),
    "monitor": ("POST", "/monitor", "", {}, 400, "MONITOR is not offered here"),
    "blocking": ("GET", "/blpop/k/0", "", {}, 400, "BLPOP is not offered here"),
    "multi": ("GET", "/multi", "", {}, 400, "/multi-exec"),
    "no channel": ("GET", "/subscribe/", "", {}, 400, "needs 1 to"),
    "odd MSET": ("GET", "/mset/k/v/l", "", {}, 400, "ERR wrong number of arguments for 'mset'"),
    "format": ("GET", "/get/k", "", {"Upstash-Response-Format": "x"}, 400, "json or resp2"),
    "both": ("GET", "/get/k", "", BASE64 | RESP2, 400, "does not go with resp2"),
    "resp2 transaction": ("POST", "/multi-exec", '[["GET","k"]]', RESP2, 400, "JSON only"),
    "empty transaction": ("POST", "/multi-exec", "[]", {}, 400, "needs a command"),
    "transaction over slots": (
        "POST", "/multi-exec", '[["SET","k","v"],["SET","l","v"]]', {}, 400, "CROSSSLOT",
    ),
    "transaction over shards": (
        "POST", "/multi-exec", '[["SET","k","v"],["DBSIZE"]]', {}, 400, "concerns all shards",
    ),
    "transaction with a mistake": (
        "POST", "/multi-exec", '[["SET","k","v"],["SET","k"]]', {}, 400, "wrong number",
    ),
    "transaction the engine refuses": (
        "POST", "/multi-exec", '[["SET","k","v"],["OBJECT","FREQ"]]', {}, 400, "ERR",
    ),
    "durability": ("GET", "/set/k/v", "", {"X-ShardCluster-Durability": "x"}, 400, "async"),
    "consistency": ("GET", "/set/k/v", "", {"X-ShardCluster-Consistency": "x"}, 400, "strong"),
    "method": ("DELETE", "/get/k", "", {}, 405, "allows only GET, HEAD, POST, PUT."),
    "pipeline method": ("GET", "/pipeline", "", {}, 405, "allows only POST."),
    "other site": ("POST", "/set/k/v", "", {"Origin": "http://evil.test"}, 403, "other sites"),
    "other site's image": ("GET", "/set/k/v", "", {"Sec-Fetch-Site": "cross-site"}, 403, "NOPERM"),
    "other site's fetch": ("GET", "/set/k/v", "", {"Origin": "http://evil.test"}, 403, "NOPERM"),
    "long": ("POST", "/set/k", "v" * (VALUE_BYTES_MAX + 1), {}, 400, "longer than"),
    "bad cursor": ("GET", "/scan/x", "", {}, 400, "ERR invalid cursor"),
}  # fmt: skip


@pytest.mark.parametrize("asked", BAD.values(), ids=BAD.keys())
def test_a_bad_request_has_an_error_in_upstash_s_shape(client: httpx.Client, asked: Any) -> None:
    """A string under `error`; nothing has changed."""
    method, path, body, headers, status, words = asked
    _ask(client, "DEL", "k", "l")
    content = body.encode("utf-8", "surrogateescape") or None
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"] if answer.text.startswith("{") else answer.text
    assert words in error
    assert _ask(client, "EXISTS", "k", "l") == {"result": 0}


def test_commands_over_all_shards_are_split_and_joined(client: httpx.Client) -> None:
    """MGET and its like over hundreds of keys; DBSIZE, KEYS, SCAN, RANDOMKEY, INFO, FLUSHDB."""
    keys = [_unique() for _ in range(500)]
    assert _ask(client, "FLUSHDB") == OK
    assert _ask(client, "RANDOMKEY") == {"result": None}
    assert _ask(client, "MSET", *(word for key in keys for word in (key, key))) == OK
    assert _ask(client, "MGET", *keys, "none", keys[0]) == {"result": [*keys, None, keys[0]]}
    many = [_unique() for _ in range(8)]  # an odd one is null, as in an MGET that is not split
    assert _ask(client, "RPUSH", many[0], "a") == {"result": 1}
    assert _ask(client, "MGET", *many) == {"result": [None] * 8}
    assert _ask(client, "DEL", many[0]) == {"result": 1}
    assert _ask(client, "DBSIZE") == {"result": 500}
    assert set(_ask(client, "KEYS", "*")["result"]) == set(keys)
    assert _ask(client, "RANDOMKEY")["result"] in keys
    assert _ask(client, "EXISTS", *keys, keys[0]) == {"result": 501}
    assert _ask(client, "TOUCH", *keys) == {"result": 500}
    assert "shards:3\r\n" in _ask(client, "INFO")["result"]
    assert "db0:keys=500," in _ask(client, "INFO", "keyspace")["result"]
    assert _ask(client, "DEL", *keys[:100]) == {"result": 100}
    assert _ask(client, "UNLINK", *keys[50:150]) == {"result": 50}
    found, cursor, calls = list[str](), "0", 0
    while calls == 0 or cursor != "0":
        cursor, some = _ask(client, "SCAN", cursor, "COUNT", 20)["result"]
        found += some
        calls += 1
    assert sorted(found) == sorted(keys[150:])
    assert calls > 10
    assert _ask(client, "FLUSHALL") == OK
    assert _ask(client, "DBSIZE") == {"result": 0}


def test_scripts_are_loaded_on_every_shard(client: httpx.Client) -> None:
    """So EVALSHA works for keys of each."""
    digest = _ask(client, "SCRIPT", "LOAD", "return redis.call('INCR', KEYS[1])")["result"]
    assert _ask(client, "SCRIPT", "EXISTS", digest, "0" * 40) == {"result": [1, 0]}
    for _ in range(20):
        assert _ask(client, "EVALSHA", digest, 1, _unique()) == {"result": 1}
    assert _ask(client, "SCRIPT", "FLUSH") == OK
    assert "NOSCRIPT" in _ask(client, "EVALSHA", digest, 1, "k")["error"]


def test_a_pipeline_keeps_the_order_of_each_slot(client: httpx.Client) -> None:
    """A read stands before or after a write as in the list, over many keys at once."""
    keys = [_unique() for _ in range(50)]
    commands = [
        one
        for key in keys
        for one in (["GET", key], ["SET", key, "1"], ["INCR", key], ["GET", key])
    ]
    answers = client.post("/pipeline", json=commands).json()
    assert [answer["result"] for answer in answers] == [None, "OK", 2, "2"] * 50


def test_writes_can_wait_for_replicas_and_disks(client: httpx.Client) -> None:
    """By a header, for one command, a pipeline and a transaction."""
    key = _unique()
    for durability in ("replica", "disk"):
        headers = {"X-ShardCluster-Durability": durability}
        one = client.post("/", json=["SET", key, "v"], headers=headers)
        assert (one.status_code, one.json()) == (200, OK)
        many = [["SET", _unique(), "v"] for _ in range(20)] + [["GET", key]]
        answers = client.post("/pipeline", json=many, headers=headers).json()
        assert answers == [OK] * 20 + [{"result": "v"}]
        whole = client.post("/multi-exec", json=[["INCR", f"{key}n"]], headers=headers)
        assert whole.status_code == 200, whole.text
        assert client.get(f"/get/{key}").json() == {"result": "v"}


def test_a_token_leads_reads_to_where_its_bearer_wrote(front: GatewayProcess) -> None:
    """Other slots are still read at replicas; another gateway process takes the token as well."""
    with httpx.Client(base_url=front.url, timeout=30) as client:
        written, other = "a", "b"
        assert abs(key_slot(written.encode()) - key_slot(other.encode())) > 16
        token = client.post("/", json=["SET", written, "1"]).headers["upstash-sync-token"]
        headers = {"upstash-sync-token": token}
        for _ in range(5):
            mine = client.get(f"/get/{written}", headers=headers)
            assert mine.headers["X-ShardCluster-Role"] == "master"
            assert mine.headers["upstash-sync-token"] == token
            assert (
                client.get(f"/get/{other}", headers=headers).headers["X-ShardCluster-Role"]
                == "replica"
            )
        for round_ in range(200):
            answer = client.post(
                "/pipeline", json=[["SET", _unique(), "x"], ["SET", "mine", round_]]
            )
            token = answer.headers["upstash-sync-token"]
            read = client.post("/", json=["GET", "mine"], headers={"upstash-sync-token": token})
            assert read.json() == {"result": str(round_)}


def test_a_head_has_no_body(client: httpx.Client) -> None:
    """But the length."""
    key = _unique()
    client.post(f"/set/{key}", content=b"value")
    answer = client.head(f"/get/{key}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len('{"result":"value"}\n')


def test_any_bytes_go_through(client: httpx.Client) -> None:
    """In a body and a path, out by RESP2 and base64; JSON has a replacement character."""
    everything = bytes(range(256))
    key = _unique()
    assert client.post(f"/set/{key}", content=everything).json() == OK
    assert client.get(f"/get/{key}", headers=RESP2).content == b"$256\r\n" + everything + b"\r\n"
    assert client.get(f"/get/{key}").json()["result"][-1] == "\ufffd"
    assert client.get(f"/set/%00%FF{key}/x").json() == OK
    assert client.get(f"/get/%00%FF{key}").json() == {"result": "x"}


async def test_a_request_in_single_bytes_is_understood(front: GatewayProcess) -> None:
    """And the next one on the connection, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    body = json.dumps(["ECHO", "split"]).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for byte in head + body:
        writer.write(bytes([byte]))
        await writer.drain()
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b'{"result":"split"}')
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
