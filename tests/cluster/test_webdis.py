"""Webdis's protocol: one table of requests against both front ends on a real cluster."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import httpx
import msgpack
import pytest

from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]


@pytest.fixture
def client(front: GatewayProcess) -> Iterator[httpx.Client]:
    """Keeps one connection, and reads at masters."""
    headers = {"X-ShardCluster-Consistency": "strong"}
    with httpx.Client(base_url=f"{front.url}/webdis/", timeout=30, headers=headers) as one:
        yield one


MULTI = b"send the commands of a transaction to /multi-exec."
JSON = "application/json"
TEXT = "text/plain"
RAW = "binary/octet-stream"
# Method, path (with {k} for a fresh key that holds "v"), body -> status, type, body.
ASKED: dict[str, tuple[str, str, bytes, int, str, bytes]] = {
    "value": ("GET", "GET/{k}", b"", 200, JSON, b'{"GET":"v"}'),
    "value.json": ("GET", "GET/{k}.json", b"", 200, JSON, b'{"GET":"v"}'),
    "verb as written": ("GET", "get/{k}", b"", 200, JSON, b'{"get":"v"}'),
    "nothing": ("GET", "GET/none", b"", 200, JSON, b'{"GET":null}'),
    "number": ("GET", "STRLEN/{k}", b"", 200, JSON, b'{"STRLEN":1}'),
    "status": ("GET", "SET/{k}/w", b"", 200, JSON, b'{"SET":[true,"OK"]}'),
    "error": (
        "GET", "LPUSH/{k}/w", b"", 200, JSON,
        b'{"LPUSH":[false,"WRONGTYPE Operation against a key holding the wrong kind of value"]}',
    ),
    "list": ("GET", "MGET/{k}/none", b"", 200, JSON, b'{"MGET":["v",null]}'),
    "PUT": ("PUT", "SET/{k}", b"a/b.txt", 200, JSON, b'{"SET":[true,"OK"]}'),
    "POST": ("POST", "", b"GET/{k}", 200, JSON, b'{"GET":"v"}'),
    "POST of a type": ("POST", "", b"GET/{k}.txt", 200, TEXT, b"v"),
    "database": ("GET", "0/GET/{k}", b"", 200, JSON, b'{"GET":"v"}'),
    "raw": ("GET", "GET/{k}.raw", b"", 200, RAW, b"$1\r\nv\r\n"),
    "raw status": ("GET", "SET/{k}/w.raw", b"", 200, RAW, b"+OK\r\n"),
    "raw nothing": ("GET", "GET/none.raw", b"", 200, RAW, b"$-1\r\n"),
    "raw error": (
        "GET", "NOPE.raw", b"", 200, RAW,
        b"-ERR unknown command 'NOPE', with args beginning with: \r\n",
    ),
    "text": ("GET", "GET/{k}.txt", b"", 200, TEXT, b"v"),
    "text of a number": ("GET", "STRLEN/{k}.txt", b"", 200, TEXT, b"1"),
    "text of a status": ("GET", "SET/{k}/w.txt", b"", 200, TEXT, b"+OK"),
    "text of nothing": ("GET", "GET/none.txt", b"", 404, TEXT, b""),
    "separated": ("GET", "MGET/{k}/{k}.txt?sep=,", b"", 200, TEXT, b"v,v"),
    "html": ("GET", "GET/{k}.html", b"", 200, "text/html", b"v"),
    "xml": ("GET", "GET/{k}.xml", b"", 200, "text/xml", b"v"),
    "png": ("GET", "GET/{k}.png", b"", 200, "image/png", b"v"),
    "jpg": ("GET", "GET/{k}.jpg", b"", 200, "image/jpeg", b"v"),
    "css": ("GET", "GET/{k}.css", b"", 200, "text/css", b"v"),
    "own type": ("GET", "GET/{k}?type=image/gif", b"", 200, "image/gif", b"v"),
    "jsonp": (
        "GET", "GET/{k}?jsonp=show", b"", 200, "application/javascript", b'show({"GET":"v"});\n',
    ),
    "callback": (
        "GET", "GET/{k}?callback=a.b", b"", 200, "application/javascript", b'a.b({"GET":"v"});\n',
    ),
    "js": ("GET", "GET/{k}.js", b"", 200, "application/javascript", b'{"GET":"v"}'),
    "dot in a key": ("GET", "ECHO/a.b", b"", 200, JSON, b'{"ECHO":"a.b"}'),
    "coded dot": ("GET", "ECHO/a%2etxt", b"", 200, JSON, b'{"ECHO":"a.txt"}'),
    "coded slash": ("GET", "ECHO/a%2fb+c", b"", 200, JSON, b'{"ECHO":"a/b c"}'),
    "refused": (
        "GET", "MULTI", b"", 403, JSON,
        b'{"MULTI":[false,"ERR MULTI is not offered here: %b"]}' % MULTI,
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_a_request_is_answered_as_webdis_does(client: httpx.Client, asked: Any) -> None:
    """Status, type and body."""
    method, path, body, status, content_type, expected = asked
    key = uuid.uuid4().hex
    assert client.get(f"SET/{key}/v").json() == {"SET": [True, "OK"]}
    sent = body.replace(b"{k}", key.encode()) or None
    answer = client.request(method, path.replace("{k}", key), content=sent)
    assert (answer.status_code, answer.content) == (status, expected)
    assert answer.headers["Content-Type"].partition(";")[0] == content_type
    if path.endswith((".html", ".xml", ".css", "gif")):
        assert answer.headers["Content-Security-Policy"] == "sandbox"


def test_an_answer_that_is_known_is_not_sent_again(client: httpx.Client) -> None:
    """ETag and If-None-Match."""
    key = uuid.uuid4().hex
    client.put(f"SET/{key}", content=b"one")
    first = client.get(f"GET/{key}.txt")
    same = client.get(f"GET/{key}.txt", headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    client.put(f"SET/{key}", content=b"two")
    other = client.get(f"GET/{key}.txt", headers={"If-None-Match": first.headers["ETag"]})
    assert (other.status_code, other.content) == (200, b"two")


def test_msgpack_and_objects(client: httpx.Client) -> None:
    """HGETALL and INFO are maps; bytes stay bytes in `.msg`."""
    key = uuid.uuid4().hex
    client.get(f"HSET/{key}/a/1/b/2")
    assert client.get(f"HGETALL/{key}").json() == {"HGETALL": {"a": "1", "b": "2"}}
    packed = msgpack.unpackb(client.get(f"HGETALL/{key}.msg").content, raw=True)
    assert packed == {b"HGETALL": {b"a": b"1", b"b": b"2"}}
    client.put(f"SET/{key}", content=b"\xff\x00")
    packed = msgpack.unpackb(client.get(f"GET/{key}.msg").content, raw=True)
    assert packed == {b"GET": b"\xff\x00"}
    assert client.get("INFO").json()["INFO"]["shards"] == "3"


BAD = {
    "no command": ("GET", "", 400),
    "database": ("GET", "7/GET/k", 400),
    "type": ("GET", "GET/k?type=x", 400),
    "type with a line": ("GET", "GET/k?type=a/b%0d%0aX:1", 400),
    "callback": ("GET", "GET/k?jsonp=alert(1)//", 400),
    "method": ("DELETE", "GET/k", 405),
}


@pytest.mark.parametrize(("method", "path", "status"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_has_our_error(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    """JSON with a code and a sentence."""
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"].endswith((".", "…"))


def test_pages_of_other_sites_neither_write_nor_read_by_script(client: httpx.Client) -> None:
    """An image of an evil page asks by GET, and a browser says for whom."""
    headers = {"Sec-Fetch-Site": "cross-site"}
    key = uuid.uuid4().hex
    assert client.get(f"SET/{key}/v", headers=headers).status_code == 403
    assert client.get(f"EXISTS/{key}").json() == {"EXISTS": 0}
    assert client.get(f"GET/{key}?jsonp=f", headers=headers).status_code == 403
