"""What docs/security.md says of clients that nobody let in, against real processes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shardcluster.slots import key_slot
from shardcluster.tokens import token_line
from shardcluster_api.access import Role
from shardcluster_api.commands.table import ALLOWED
from shardcluster_api.operations import OPERATIONS
from tests.cluster.gateway_fixtures import FRONT_ENDS, gateway_process, small_cluster
from tests.cluster.mini_cluster import MiniNode, eventually, mini_cluster
from tests.cluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["small_cluster"]

PASSWORD = "the nodes' own password"  # noqa: S105 - of these tests only
TOKEN = "the-token-of-somebody-else"  # noqa: S105 - of these tests only
KEY, VALUE = "the-key-7f3a", b"the-value-91bc"
WRONG_LOGINS = (None, "Bearer nobody-s-token", "Basic YTpi", "Bearer", "bearer =")
# MODULE is refused to everybody, before the engine asks who it is.
REFUSALS = (
    b"-NOAUTH",
    b"-EXECABORT Transaction discarded because of: NOAUTH",
    b"-ERR MODULE command not allowed",
)
# What the engine answers before a login: how to log in, and how to leave.
OPEN_COMMANDS = {"auth", "hello", "quit", "reset"}


async def _raw(port: int, *commands: tuple[str, ...]) -> bytes:
    """What a client that does not log in gets for each, sent as one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for command in commands:
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)
        writer.write(f"*{len(command)}\r\n{parts}".encode())
    writer.write(b"*1\r\n$4\r\nQUIT\r\n")
    answer = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


def _asked(told: list[Any]) -> list[tuple[str, ...]]:
    """A command with as many words as it needs, or each of its subcommands."""
    if told[9]:
        return [asked for subcommand in told[9] for asked in _asked(subcommand)]
    name = told[0].decode().split("|")
    if name[0] in OPEN_COMMANDS:
        return []
    return [(*name, *[KEY] * (abs(told[1]) - len(name)))]


async def test_a_node_tells_an_unknown_client_nothing() -> None:
    """Every command of the engine, alone or behind a wrong login, is refused; nothing changes."""
    async with mini_cluster(1, owners=1, password=PASSWORD) as cluster:
        node = cluster.masters[0]
        await node.call("SET", KEY, VALUE)
        before = await node.call("CONFIG", "GET", "*")
        commands = [asked for told in await node.call("COMMAND") for asked in _asked(told)]
        assert len(commands) > 300
        for asked in commands:
            name = " ".join(asked)
            said = (await _raw(node.port, asked, ("AUTH", "wrong"), asked)).split(b"\r\n")
            assert said[0].startswith(REFUSALS), (name, said)
            assert said[1].startswith(b"-WRONGPASS"), (name, said)
            assert said[2].startswith(REFUSALS), (name, said)
        assert (await _raw(node.port, ("HELLO", "3"))).startswith(b"-NOAUTH")
        assert await node.call("GET", KEY) == VALUE
        assert await node.call("CONFIG", "GET", "*") == before


async def test_the_bus_asks_for_no_password(tmp_path: Path) -> None:
    """Whoever reaches it can take a node's slots away, and with them its keys.

    So it must be out of everybody's reach but the nodes'.
    """
    async with mini_cluster(1, owners=1, password=PASSWORD) as cluster:
        victim = cluster.masters[0]
        await victim.call("SET", KEY, VALUE)
        stranger = MiniNode("stranger", free_ports(1)[0], tmp_path / "stranger", ())
        stranger.start()
        try:
            await stranger.connect()
            await stranger.call("CLUSTER", "SET-CONFIG-EPOCH", 1000)
            slot = key_slot(KEY.encode())
            await stranger.call("CLUSTER", "ADDSLOTS", slot)
            await stranger.call("CLUSTER", "MEET", "127.0.0.1", victim.port)

            async def taken() -> bool:
                return slot not in await victim.slots()

            await eventually(taken, "the slot is the stranger's")
            assert await victim.call("DBSIZE") == 0
        finally:
            stranger.end()


@pytest.fixture(params=FRONT_ENDS, scope="module")
def guarded(
    request: pytest.FixtureRequest,
    small_cluster: MiniCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    """A gateway with tokens, also for its metrics, and a key in its store."""
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(token_line("me", "write", TOKEN), encoding="utf-8")
    environment = {
        "SHARDCLUSTER_TOKENS_FILE": str(file),
        "SHARDCLUSTER_METRICS_ROLE": "read",
    }
    seeds = str(small_cluster.masters[0].address)
    with gateway_process(request.param, seeds=seeds, environment=environment) as gateway:
        login = {"Authorization": f"Bearer {TOKEN}"}
        put = httpx.put(f"{gateway.url}/v1/keys/{KEY}", content=VALUE, headers=login)
        assert put.status_code == 204
        yield gateway


def _headers(login: str | None) -> dict[str, str]:
    return {} if login is None else {"Authorization": login}


def _says_nothing(answer: httpx.Response, sent: object) -> None:
    assert answer.status_code == 401, (sent, answer.status_code, answer.text)
    assert VALUE not in answer.content, sent
    told = " ".join(answer.headers).lower()
    assert "x-shardcluster" not in told, sent
    assert "sync-token" not in told, sent


@pytest.mark.parametrize("login", WRONG_LOGINS)
def test_a_gateway_tells_an_unknown_client_nothing(
    guarded: GatewayProcess, login: str | None
) -> None:
    """Every operation of the list, by its method and by others; the open ones hold no data."""
    with httpx.Client(base_url=guarded.url, headers=_headers(login), timeout=30) as client:
        for operation in OPERATIONS:
            path = operation.path.replace("{key}", KEY).replace("{command}", f"get/{KEY}")
            path = path.replace("{channel}", "news").replace("{channels}", "news")
            answer = client.request(operation.method, path)
            if operation.role is not Role.NONE or operation.path == "/metrics":
                _says_nothing(answer, (operation.method, path))
            assert KEY.encode() not in answer.content or answer.status_code == 401
            assert VALUE not in answer.content
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                other = client.request(method, path)
                assert VALUE not in other.content, (method, path)


def test_no_command_is_carried_out_for_an_unknown_client(guarded: GatewayProcess) -> None:
    """Each that there is, by every protocol: in a path, a body, a pipeline, a transaction."""
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        for command in ALLOWED:
            name, _, sub = command.name.partition("|")
            words: list[Any] = [name, *([sub] if sub else []), KEY, "1", "1"]
            path = "/".join(words)
            _says_nothing(client.get(f"/{path}"), path)
            _says_nothing(client.get(f"/webdis/{path}"), path)
            _says_nothing(client.post("/", json=words), path)
            _says_nothing(client.post("/pipeline", json=[words]), path)
            _says_nothing(client.post("/multi-exec", json=[words]), path)
        for path in ("/subscribe/news", "/psubscribe/*"):
            _says_nothing(client.get(path), path)
        login = {"Authorization": f"Bearer {TOKEN}"}
        found = client.get(f"/v1/keys/{KEY}?consistency=strong", headers=login)
        assert found.content == VALUE


def test_a_page_under_a_name_of_its_own_is_stopped_by_tokens_only(
    guarded: GatewayProcess, small_cluster: MiniCluster
) -> None:
    """A site may make its own name lead to this machine; then a browser takes us for that site."""
    page = {"Host": "site.example", "Origin": "http://site.example"}
    document = {"key": "by-a-page", "value": "v"}
    assert httpx.post(f"{guarded.url}/write", json=document, headers=page).status_code == 401
    seeds = str(small_cluster.masters[0].address)
    with gateway_process("fast", seeds=seeds) as gateway:
        assert httpx.post(f"{gateway.url}/write", json=document, headers=page).status_code == 200
