"""HTTPS to clients, and TLS with an ACL user to nodes; certificates that change meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from shardcluster_api.gateway import Gateway
from shardcluster_api.settings import Settings, SettingsError
from tests.cluster.gateway_fixtures import gateway_process, small_cluster
from tests.cluster.mini_cluster import mini_cluster
from tests.unit.api_fakes import ask, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster, MiniNode

__all__ = ["small_cluster"]

DEADLINE_S = 20.0
HOST = "127.0.0.1"
USER, PASSWORD = "gateway", "the gateway's own password"
# All that a gateway does with keys, and nothing that changes a node or the cluster.
RIGHTS = [
    "~*",
    "+@read",
    "+@write",
    "+ping",
    "+role",
    "+readonly",
    "+wait",
    "+waitaof",
    "+cluster|nodes",
]


class _Files:
    """A certificate and its key where a gateway looks for them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"

    def write(self, authority: trustme.CA) -> bytes:
        """A new pair; the certificate as a client sees it."""
        pair = authority.issue_cert(HOST)
        pair.private_key_pem.write_to_path(self.key)
        pair.cert_chain_pems[0].write_to_path(self.certificate)
        return ssl.PEM_cert_to_DER_cert(pair.cert_chain_pems[0].bytes().decode())

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SHARDCLUSTER_HTTPS_CERT": str(self.certificate),
            "SHARDCLUSTER_HTTPS_KEY": str(self.key),
        }


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> _Files:
    made = _Files(tmp_path)
    made.write(authority)
    return made


@pytest.fixture
def https(small_cluster: MiniCluster, files: _Files) -> Iterator[GatewayProcess]:
    seeds = str(small_cluster.masters[0].address)
    with gateway_process("fast", seeds=seeds, environment=files.environment) as gateway:
        yield gateway


def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def _shown(port: int) -> bytes:
    """The certificate that a new connection is shown."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((HOST, port), timeout=DEADLINE_S))


def test_https_with_a_certificate_that_is_renewed(
    https: GatewayProcess, files: _Files, authority: trustme.CA
) -> None:
    """New connections see the new one, open ones live on, a broken one changes nothing."""
    assert https.said().startswith(f"ShardCluster gateway: {https.url} ")
    with httpx.Client(base_url=https.url, verify=_trusting(authority)) as client:
        assert client.put("/v1/keys/tls", content=b"v").status_code == 204
        assert client.get("/v1/keys/tls?consistency=strong").content == b"v"
        renewed = files.write(authority)
        asyncio.run(until(lambda: _shown(https.port) == renewed, "the new one is shown"))
        files.key.write_text("half a key", encoding="utf-8")
        broken = "shardcluster_gateway_broken_files 1.0"
        asyncio.run(until(lambda: broken in client.get("/metrics").text, "it is said"))
        assert _shown(https.port) == renewed
        assert client.get("/status").status_code == 200
    assert "half a key" not in https.said()


def test_old_tls_and_plain_http_are_refused(https: GatewayProcess, authority: trustme.CA) -> None:
    """TLS 1.2 is the least."""
    context = _trusting(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((HOST, https.port), timeout=DEADLINE_S) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname=HOST)
    with pytest.raises(httpx.TransportError):
        httpx.get(https.url.replace("https:", "http:") + "/healthz")


def test_a_start_with_files_that_are_wrong_is_refused(files: _Files, tmp_path: Path) -> None:
    """And so is half of what is needed."""
    certificate, key = map(str, (files.certificate, files.key))
    nothing, empty = str(tmp_path / "nothing"), tmp_path / "empty"
    empty.touch()
    for wrong in (
        {"SHARDCLUSTER_HTTPS_CERT": certificate},
        {"SHARDCLUSTER_HTTPS_CERT": certificate, "SHARDCLUSTER_HTTPS_KEY": nothing},
        {"SHARDCLUSTER_HTTPS_CERT": key, "SHARDCLUSTER_HTTPS_KEY": certificate},
        {"SHARDCLUSTER_TLS_CA": key},
        {"SHARDCLUSTER_TLS_CA": nothing},
        {"SHARDCLUSTER_TLS_CA": str(empty)},
        {"SHARDCLUSTER_TLS_CERT": certificate, "SHARDCLUSTER_TLS_KEY": key},
        {"SHARDCLUSTER_TLS_CA": certificate, "SHARDCLUSTER_TLS_CERT": certificate},
    ):
        with pytest.raises(SettingsError, match="SHARDCLUSTER_"):
            Settings.read(None, "a:1", wrong)


class _Nodes:
    """A cluster whose nodes are reached by TLS only: a proxy before each, which it announces.

    The server of our tests is built without TLS.
    """

    def __init__(self, cluster: MiniCluster, authority: trustme.CA) -> None:
        self.cluster = cluster
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = ssl.CERT_REQUIRED  # as nodes with tls-auth-clients
        self.trust(authority)
        self.servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()

    def trust(self, authority: trustme.CA) -> None:
        """Show a certificate of this authority, and want one of it."""
        authority.issue_cert("node.invalid").configure_cert(self.context)
        authority.configure_trust(self.context)

    async def start(self) -> None:
        for node in self.cluster.nodes:
            await node.call("ACL", "SETUSER", USER, "on", f">{PASSWORD}", *RIGHTS)
            await node.call("ACL", "SETUSER", "default", "off")
            server = await asyncio.start_server(self._pipe_to(node), HOST, 0, ssl=self.context)
            self.servers.append(server)
            port = server.sockets[0].getsockname()[1]
            await node.call("CONFIG", "SET", "cluster-announce-port", port)

    @property
    def seed(self) -> str:
        return f"{HOST}:{self.servers[0].sockets[0].getsockname()[1]}"

    def _pipe_to(self, node: MiniNode):  # type: ignore[no-untyped-def]  # noqa: ANN202
        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pipe_task = asyncio.current_task()
            assert pipe_task is not None
            self._pipes.add(pipe_task)
            pipe_task.add_done_callback(self._pipes.discard)
            with contextlib.suppress(OSError):
                to_node = await asyncio.open_connection(HOST, node.port)
                self._writers |= {writer, to_node[1]}
                await asyncio.gather(_copy(reader, to_node[1]), _copy(to_node[0], writer))

        return pipe

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        self.cut()
        await asyncio.gather(*self._pipes, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def _tls_nodes(authority: trustme.CA) -> AsyncIterator[_Nodes]:
    async with mini_cluster(3, owners=3) as cluster:
        nodes = _Nodes(cluster, authority)
        try:
            await nodes.start()
            yield nodes
        finally:
            await nodes.close()


def _write_trust(folder: Path, authority: trustme.CA) -> dict[str, str]:
    """The files for the nodes' side, as settings."""
    authority.cert_pem.write_to_path(folder / "ca.crt")
    pair = authority.issue_cert("gateway.invalid")
    pair.private_key_pem.write_to_path(folder / "client.key")
    pair.cert_chain_pems[0].write_to_path(folder / "client.crt")
    return {
        "SHARDCLUSTER_TLS_CA": str(folder / "ca.crt"),
        "SHARDCLUSTER_TLS_CERT": str(folder / "client.crt"),
        "SHARDCLUSTER_TLS_KEY": str(folder / "client.key"),
        "SHARDCLUSTER_USERNAME": USER,
        "SHARDCLUSTER_PASSWORD": PASSWORD,
    }


async def test_nodes_by_tls_with_an_acl_user(authority: trustme.CA, tmp_path: Path) -> None:
    """With the rights it needs and no more; a renewed authority counts without a restart."""
    environment = _write_trust(tmp_path, authority)
    async with _tls_nodes(authority) as nodes:
        gateway = Gateway(Settings.read(None, nodes.seed, environment))
        gateway.start()
        try:
            await until(lambda: not gateway.unready(), "it is ready")
            for number in range(30):  # on all shards
                key = b"k%d" % number
                assert (await ask(gateway, "put_key", key=key, body=b"v")).status == 204
                assert (await ask(gateway, "get_key", key=key)).body == b"v"
                assert (await ask(gateway, "delete_key", key=key)).status == 204
            renewed = trustme.CA()
            nodes.trust(renewed)
            _write_trust(tmp_path, renewed)
            gateway.settings.node_tls.reload()  # type: ignore[union-attr]
            nodes.cut()
            for number in range(30):  # a read is sent again when its connection ends
                assert (await ask(gateway, "get_key", key=b"k%d" % number)).status == 404
            assert (await ask(gateway, "put_key", key=b"k", body=b"v")).status == 204
        finally:
            await gateway.close()


@pytest.mark.parametrize("wrong", ["authority", "user", "plain"])
async def test_nodes_that_are_not_trusted_get_nothing(
    authority: trustme.CA, tmp_path: Path, wrong: str
) -> None:
    """Another authority's nodes are not spoken to; a wrong login is told as such."""
    environment = _write_trust(tmp_path, authority)
    if wrong == "authority":
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    elif wrong == "user":
        environment["SHARDCLUSTER_USERNAME"] = "nobody"
    else:
        del environment["SHARDCLUSTER_TLS_CA"]
        del environment["SHARDCLUSTER_TLS_CERT"], environment["SHARDCLUSTER_TLS_KEY"]
    async with _tls_nodes(authority) as nodes:
        gateway = Gateway(Settings.read(None, nodes.seed, environment))
        gateway.start()
        try:
            await until(lambda: bool(gateway.topology.links), "it tries")
            link = next(iter(gateway.topology.links.values()))
            await until(lambda: link.out_of_reach, "it failed")
            assert gateway.unready()
            assert (await ask(gateway, "get_key", key=b"k")).status == 503
        finally:
            await gateway.close()
