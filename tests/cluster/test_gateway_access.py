"""Who may what, over HTTP, through each front end."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from shardcluster.tokens import token_line
from tests.cluster.gateway_fixtures import (
    FRONT_ENDS,
    front,
    gateway_process,
    small_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["front", "small_cluster"]

DEADLINE_S = 20.0
POLL_S = 0.05
SITE = "https://shop.example"
ROLES = ("read", "write", "admin")
TOKENS = {role: f"the-token-that-may-{role}" for role in ROLES}
LINES = "\n".join(token_line(role, role, TOKENS[role]) for role in ROLES)
BATCH_OF_READS = {"operations": [{"op": "get", "key": "k"}]}
BATCH_OF_WRITES = {"operations": [{"op": "put", "key": "k", "value": "v"}]}
OPEN, NEEDS_READ, NEEDS_WRITE, NEEDS_ADMIN = None, "read", "write", "admin"
REQUESTS = [
    ("GET", "/healthz", None, OPEN),
    ("GET", "/readyz", None, OPEN),
    ("GET", "/metrics", None, OPEN),
    ("GET", "/", None, OPEN),
    ("GET", "/openapi.json", None, OPEN),
    ("GET", "/read?key=k", None, NEEDS_READ),
    ("POST", "/read", {"key": "k"}, NEEDS_READ),
    ("GET", "/v1/keys/k", None, NEEDS_READ),
    ("HEAD", "/v1/keys/k", None, NEEDS_READ),
    ("GET", "/status", None, NEEDS_READ),
    ("POST", "/v1/batch", BATCH_OF_READS, NEEDS_READ),
    ("POST", "/write", {"key": "k", "value": "v"}, NEEDS_WRITE),
    ("PUT", "/v1/keys/k", None, NEEDS_WRITE),
    ("DELETE", "/v1/keys/other", None, NEEDS_WRITE),
    ("POST", "/v1/batch", BATCH_OF_WRITES, NEEDS_WRITE),
    ("POST", "/add_node", None, NEEDS_ADMIN),
    ("POST", "/remove_node", {"node": "shard-0"}, NEEDS_ADMIN),
    ("POST", "/rebalance", None, NEEDS_ADMIN),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(LINES, encoding="utf-8")
    return path


@pytest.fixture(params=FRONT_ENDS)
def guarded(
    request: pytest.FixtureRequest, small_cluster: MiniCluster, file: Path
) -> Iterator[GatewayProcess]:
    environment = {"SHARDCLUSTER_TOKENS_FILE": str(file)}
    seeds = str(small_cluster.masters[0].address)
    with gateway_process(request.param, seeds=seeds, environment=environment) as gateway:
        yield gateway


def _login(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def test_every_endpoint_needs_its_role(guarded: GatewayProcess) -> None:
    """401 without a known token, 403 with too weak a one; by header and by query alike."""
    with httpx.Client(base_url=guarded.url) as client:
        client.put("/v1/keys/k", content=b"v", headers=_login(TOKENS["write"]))
        for method, path, document, needed in REQUESTS:
            for sent in (None, "nobody-s-token-at-all", *TOKENS.values()):
                role = next((role for role in ROLES if TOKENS[role] == sent), None)
                rank = 0 if role is None else ROLES.index(role) + 1
                enough = needed is None or rank > ROLES.index(needed)
                expected = "ok" if enough else 403 if role else 401
                both = "&" if "?" in path else "?"
                for answer in (
                    client.request(method, path, json=document, headers=_login(sent)),
                    client.request(method, f"{path}{both}_token={sent}", json=document),
                ):
                    got = answer.status_code if answer.status_code in {401, 403} else "ok"
                    assert got == expected, (method, path, sent, answer.text)
                    assert answer.status_code not in {400, 500}, answer.text
                    challenge = "Bearer" if expected == 401 else None
                    assert answer.headers.get("WWW-Authenticate") == challenge
    said = guarded.said()
    assert not any(token in said for token in TOKENS.values())


def test_a_change_of_the_file_counts_without_a_restart(guarded: GatewayProcess, file: Path) -> None:
    """A broken file changes nothing but the log and the gauge; a good one takes tokens away."""
    reading, boss = _login(TOKENS["read"]), _login(TOKENS["admin"])
    with httpx.Client(base_url=guarded.url) as client:
        file.write_text(f"{LINES}\nnew write a-plain-token-by-mistake", encoding="utf-8")
        _until(lambda: "shardcluster_gateway_broken_files 1.0" in client.get("/metrics").text)
        assert client.get("/status", headers=reading).status_code == 200
        file.write_text(token_line("other", "read", TOKENS["admin"]), encoding="utf-8")
        _until(lambda: client.get("/status", headers=reading).status_code == 401)
        assert "shardcluster_gateway_broken_files 0.0" in client.get("/metrics").text
        assert client.get("/status", headers=boss).status_code == 200
        assert client.post("/rebalance", headers=boss).status_code == 403
    said = guarded.said()
    assert "line 4 is not NAME ROLE" in said
    assert "a-plain-token-by-mistake" not in said


def _until(check: object) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


@pytest.fixture(params=FRONT_ENDS, scope="module")
def named_sites(
    request: pytest.FixtureRequest, small_cluster: MiniCluster
) -> Iterator[GatewayProcess]:
    environment = {"SHARDCLUSTER_CORS_ORIGINS": f"{SITE}, http://localhost:3000"}
    seeds = str(small_cluster.masters[0].address)
    with gateway_process(request.param, seeds=seeds, environment=environment) as gateway:
        yield gateway


@pytest.mark.parametrize("origin", [SITE, "https://other.example", f"{SITE}:8443", "null", None])
def test_only_named_sites_get_cors(named_sites: GatewayProcess, origin: str | None) -> None:
    """They may ask, read and change; for others it is as if there were none of it."""
    named = origin == SITE
    headers = {} if origin is None else {"Origin": origin}
    with httpx.Client(base_url=named_sites.url, headers=headers) as client:
        changing = client.put("/v1/keys/cors", content=b"v")
        assert changing.status_code == (204 if named or origin is None else 403)
        seen = [
            changing,
            client.get("/v1/keys/cors?consistency=strong"),
            client.get("/v1/keys/absent"),
            client.get("/status"),
            client.get("/nowhere"),
        ]
        for answer in seen:
            allowed = answer.headers.get_list("Access-Control-Allow-Origin")
            assert allowed == ([SITE] if named else []), answer.request.url
            assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
            if answer.status_code != 403:
                assert answer.headers.get_list("Vary") == ["Origin"] * (origin is not None)
        asked = {"Access-Control-Request-Method": "PUT"}
        asked["Access-Control-Request-Headers"] = "authorization,content-type"
        preflight = client.options("/v1/keys/cors", headers=asked)
        assert preflight.status_code == (204 if named else 405)
        if named:
            assert preflight.headers["Access-Control-Allow-Origin"] == SITE
            assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
            assert preflight.headers["Access-Control-Allow-Headers"] == "authorization,content-type"


def test_no_cors_without_named_sites(front: GatewayProcess) -> None:
    """Nothing of it in any answer."""
    answer = httpx.get(f"{front.url}/healthz", headers={"Origin": SITE})
    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)
    asked = {"Origin": SITE, "Access-Control-Request-Method": "PUT"}
    assert httpx.options(f"{front.url}/v1/keys/a", headers=asked).status_code == 405


def test_nothing_of_a_request_is_logged(front: GatewayProcess) -> None:
    """No key, value or token, whether it goes well or not."""
    secret = "hidden-7f3a"  # noqa: S105 - what must not be seen
    with httpx.Client(base_url=front.url, headers={"Authorization": f"Bearer {secret}"}) as client:
        for path in (f"/v1/keys/{secret}?_token={secret}", f"/{secret}", f"/read?key={secret}"):
            for method in ("PUT", "GET", "POST", "DELETE", "OPTIONS"):
                client.request(method, path, content=f'{{"key":"{secret}"}}')
        client.post("/write", json={"key": secret, "value": secret, "other": secret})
        client.post("/v1/batch", json={"operations": [{"op": secret}]})
        client.post("/remove_node", json={"node": secret})
    wrong = f"GET /{secret} HTTP/1.1\r\nHost: {secret} {secret}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", front.port), timeout=DEADLINE_S) as wire:
        wire.sendall(wrong)
        assert wire.recv(65_536)
    assert secret not in front.said()


def test_metrics_can_need_a_token(small_cluster: MiniCluster, file: Path) -> None:
    """When a setting says so; probes stay open."""
    environment = {
        "SHARDCLUSTER_TOKENS_FILE": str(file),
        "SHARDCLUSTER_METRICS_ROLE": "read",
    }
    seeds = str(small_cluster.masters[0].address)
    with gateway_process("fast", seeds=seeds, environment=environment) as gateway:
        assert httpx.get(f"{gateway.url}/metrics").status_code == 401
        answer = httpx.get(f"{gateway.url}/metrics", headers=_login(TOKENS["read"]))
        assert answer.status_code == 200
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
