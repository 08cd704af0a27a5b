"""SIGTERM under load, with another gateway that takes over: nobody's request is cut."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cluster.gateway_fixtures import gateway_process, small_cluster
from tests.cluster.wires import DEADLINE_S, Wire, get, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.gateway_fixtures import GatewayProcess
    from tests.cluster.mini_cluster import MiniCluster

__all__ = ["small_cluster"]

DRAIN_S = 1.0
PROBE_EVERY_S = 0.05  # as a load balancer asks
CLIENTS = 6
ANSWERS_WANTED = 300
PIPELINED = 300


@dataclass
class _Balancer:
    """Two gateways, of which new connections go to one that says it is ready."""

    gateways: list[GatewayProcess]
    ready: list[GatewayProcess] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def probe(self) -> None:
        while not self.ended.wait(PROBE_EVERY_S):
            self.ready = [one for one in self.gateways if _is_ready(one)]

    def choose(self) -> GatewayProcess:
        deadline = time.monotonic() + DEADLINE_S
        while not self.ready:
            assert time.monotonic() < deadline, "no gateway is ready"
            time.sleep(0.01)
        return self.ready[0]


def _is_ready(gateway: GatewayProcess) -> bool:
    try:
        return httpx.get(f"{gateway.url}/readyz", timeout=DEADLINE_S).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class _Client:
    """One connection at a time, kept alive until an answer says that it ends."""

    balancer: _Balancer
    number: int
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)

    def run(self) -> None:
        wire = None
        for count in itertools.count():
            if self.balancer.ended.is_set():
                break
            key = b"drain-%d" % self.number
            value = b"%d" % count
            for request, wanted in (
                (put(key, value), (204, b"")),
                (get(key + b"?consistency=strong"), (200, value)),
                (b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ):
                wire = self._ask(wire or self._connect(), request, wanted)
        if wire is not None:
            wire.close()

    def _connect(self) -> Wire:
        port = self.balancer.choose().port
        self.ports.add(port)
        return Wire(port)

    def _ask(self, wire: Wire, request: bytes, wanted: tuple[int, bytes] | None) -> Wire | None:
        try:
            wire.send(request)
            status, body, headers = wire.answer()
        except OSError as error:
            self.wrong.append(repr(error))
            wire.close()
            return None
        self.answers += 1
        if (wanted is not None and (status, body) != wanted) or status not in {200, 204}:
            self.wrong.append(f"{status} {body[:100]!r} to {request[:40]!r}")
        if status == 0 or headers.get(b"connection") == b"close":
            wire.close()
            return None
        return wire


@pytest.fixture
def gateway(small_cluster: MiniCluster) -> Iterator[GatewayProcess]:
    """One that a test may end."""
    seeds = str(small_cluster.masters[0].address)
    with gateway_process("fast", "--drain-seconds", str(DRAIN_S), seeds=seeds) as process:
        yield process


def test_no_request_fails_when_a_gateway_ends_and_another_takes_over(
    gateway: GatewayProcess, small_cluster: MiniCluster
) -> None:
    """Clients in full swing over kept-alive connections: each request sent is answered right."""
    seeds = str(small_cluster.masters[0].address)
    with gateway_process("fast", seeds=seeds) as successor:
        _hand_over(gateway, successor)


def _hand_over(gateway: GatewayProcess, successor: GatewayProcess) -> None:
    pair = [gateway, successor]
    balancer = _Balancer(pair, ready=list(pair))
    clients = [_Client(balancer, number) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    threads.append(threading.Thread(target=balancer.probe))
    for thread in threads:
        thread.start()
    try:
        _until(lambda: sum(client.answers for client in clients) > ANSWERS_WANTED)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(DEADLINE_S) == 0
        more = sum(client.answers for client in clients) + ANSWERS_WANTED
        _until(lambda: sum(client.answers for client in clients) > more)
    finally:
        balancer.ended.set()
        for thread in threads:
            thread.join()
    assert [wrong for client in clients for wrong in client.wrong] == []
    assert all(client.ports == {one.port for one in pair} for client in clients)


def _until(check: object) -> None:
    assert callable(check)
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_was_sent_ahead_is_answered_before_the_end(gateway: GatewayProcess) -> None:
    """All in order, up to the one that says `Connection: close`: it is the last, and the end."""
    with Wire(gateway.port) as wire:
        wire.send(b"".join(put(b"a%d" % n, b"%d" % n) for n in range(PIPELINED)))
        gateway.process.send_signal(signal.SIGTERM)
        wire.send(b"".join(get(b"a%d?consistency=strong" % n) for n in range(PIPELINED)))
        answers = []
        while (answer := wire.answer())[0]:
            answers.append(answer)
        closing = [index for index, one in enumerate(answers) if b"connection" in one[2]]
        assert closing == [len(answers) - 1]
        assert [one[0] for one in answers[:PIPELINED]] == [204] * min(len(answers), PIPELINED)
        for number, one in enumerate(answers[PIPELINED:]):
            assert one[:2] == (200, b"%d" % number)
    assert gateway.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("path", ["/v1/keys/nobody", "/healthz", "/status"])
def test_a_kept_alive_connection_is_told_to_leave(gateway: GatewayProcess, path: str) -> None:
    """Not ready at once, while answers go on; each says that it is the connection's last."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with Wire(gateway.port) as wire, Wire(gateway.port) as idle:
        for one in (wire, idle):
            one.send(request)
            status, _, headers = one.answer()
            assert status in {200, 404}
            assert b"connection" not in headers
        gateway.process.send_signal(signal.SIGTERM)
        _until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 503)
        wire.send(request)
        status, _, headers = wire.answer()
        assert (status in {200, 404}, headers[b"connection"]) == (True, b"close")
        assert wire.answer()[0] == 0
        assert idle.answer()[0] == 0
    assert gateway.process.wait(DEADLINE_S) == 0


def test_a_request_whose_head_is_on_its_way_is_answered(gateway: GatewayProcess) -> None:
    """Its second half comes after the gateway has stopped to take connections."""
    with Wire(gateway.port) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHo")
        gateway.process.send_signal(signal.SIGTERM)
        _until(lambda: not _listens(gateway))
        wire.send(b"st: x\r\n\r\n")
        status, _, headers = wire.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
    assert gateway.process.wait(DEADLINE_S) == 0


def _listens(gateway: GatewayProcess) -> bool:
    try:
        Wire(gateway.port).close()
    except OSError:
        return False
    return True
