"""The controller's HTTP API: what it passes on and what it refuses."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from shardcluster.edits import EditError
from shardcluster.spec import parse
from shardcluster_runtime.control import BODY_BYTES_MAX, Accepted, control_app
from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PLAN = {"slots": 7, "keys": 70, "moves": [], "start_nodes": ["shard-3-0"], "stop_nodes": []}


class FakeController:
    """Notes every call; raises `failure` from each change when it is set."""

    def __init__(self) -> None:
        """Nothing was called."""
        self.calls: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None

    def _note(self, *call: object) -> Accepted:
        if self.failure is not None:
            raise self.failure
        self.calls.append(call)
        return Accepted("It will happen.", "shard-3", PLAN)

    def state(self) -> dict[str, Any]:
        """A small document."""
        return {"version": 4}

    def metrics(self) -> bytes:
        """One gauge."""
        return b"up 1\n"

    async def wait_state(self, since: int, wait_s: float) -> dict[str, Any]:
        """The next version."""
        self._note("wait_state", since, wait_s)
        return {"version": since + 1}

    async def add_shard(self) -> Accepted:
        """Noted."""
        return self._note("add_shard")

    async def remove_shard(self, node: str) -> Accepted:
        """Noted."""
        return self._note("remove_shard", node)

    async def rebalance(self) -> Accepted:
        """Noted."""
        return self._note("rebalance")

    async def put_spec(self, document: dict[str, Any]) -> Accepted:
        """Noted; a wrong document raises SpecError."""
        parse(document)
        return self._note("put_spec", document)

    async def preview(self, document: dict[str, Any]) -> dict[str, Any]:
        """Noted; a wrong document raises SpecError."""
        parse(document)
        self._note("preview", document)
        return PLAN

    async def kill(self, node: str, signal_name: str) -> None:
        """Noted."""
        self._note("kill", node, signal_name)


def play(scene: Callable[[TestClient[Any, Any], FakeController], Awaitable[None]]) -> None:
    """Run a scene against a served control app."""

    async def served() -> None:
        controller = FakeController()
        async with TestClient(TestServer(control_app(controller))) as client:
            await scene(client, controller)

    asyncio.run(served())


def refused(
    method: str, path: str, status: int, code: str, *, failure: Exception | None = None, **sent: Any
) -> str:
    """Send a request that must be refused with nothing changed; returns the sentence."""
    sentences: list[str] = []

    async def scene(client: TestClient[Any, Any], controller: FakeController) -> None:
        controller.failure = failure
        response = await client.request(method, path, **sent)
        document = await response.json()
        assert (response.status, document["error"]["code"]) == (status, code)
        assert controller.calls == []
        sentences.append(document["error"]["message"])

    play(scene)
    return sentences[0]


def test_the_state_is_served_at_once_or_after_a_wait() -> None:
    """`since` makes it a long poll, and the wait is bounded."""

    async def scene(client: TestClient[Any, Any], controller: FakeController) -> None:
        assert (await client.get("/healthz")).status == 200
        assert await (await client.get("/state")).json() == {"version": 4}
        assert await (await client.get("/metrics")).text() == "up 1\n"
        response = await client.get("/state", params={"since": "9", "wait_s": "9999"})
        assert await response.json() == {"version": 10}
        assert controller.calls == [("wait_state", 9, 60.0)]

    play(scene)


@pytest.mark.parametrize(
    ("method", "path", "sent", "call"),
    [
        ("POST", "/add_shard", None, ("add_shard",)),
        ("POST", "/add_shard", {}, ("add_shard",)),
        ("POST", "/remove_shard", {"node": "shard-1"}, ("remove_shard", "shard-1")),
        ("POST", "/rebalance", {}, ("rebalance",)),
        ("POST", "/kill", {"node": "shard-1-0", "signal": "STOP"}, ("kill", "shard-1-0", "STOP")),
        ("POST", "/kill", {"node": "a", "signal": "SIGKILL"}, ("kill", "a", "KILL")),
    ],
)
def test_changes_are_passed_on_and_accepted(
    method: str, path: str, sent: dict[str, Any] | None, call: tuple[Any, ...]
) -> None:
    """202 and a sentence."""

    async def scene(client: TestClient[Any, Any], controller: FakeController) -> None:
        response = await client.request(method, path, json=sent)
        document = await response.json()
        assert response.status == 202
        assert document["accepted"] is True
        assert document["message"].endswith(".")
        assert controller.calls == [call]

    play(scene)


def test_a_spec_can_be_planned_and_put(spec_document: dict[str, Any]) -> None:
    """A plan answers 200 and changes nothing; a put answers 202."""

    async def scene(client: TestClient[Any, Any], controller: FakeController) -> None:
        response = await client.post("/plan", json=spec_document)
        assert response.status == 200
        assert (await response.json())["plan"] == PLAN
        response = await client.put("/spec", json=spec_document)
        assert response.status == 202
        assert [call[0] for call in controller.calls] == ["preview", "put_spec"]

    play(scene)


@pytest.mark.parametrize(
    "sent",
    [
        {"data": b"{"},
        {"data": b""},
        {"data": b"\xff\xfe"},
        {"data": b"[" * 100_000},
        {"json": []},
        {"json": "shard-1"},
        {"json": {}},
        {"json": {"node": 1}},
        {"json": {"node": ""}},
        {"json": {"node": None}},
        {"json": {"node": "shard-1", "extra": 1}},
    ],
)
def test_a_wrong_body_is_a_bad_request(sent: dict[str, Any]) -> None:
    """Not JSON, not an object, missing, wrong or unknown fields."""
    assert refused("POST", "/remove_shard", 400, "BadRequest", **sent).endswith(".")


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=nan", "since=1&wait_s=inf"])
def test_a_wrong_number_is_a_bad_request(query: str) -> None:
    """Also NaN and infinity."""
    refused("GET", f"/state?{query}", 400, "BadRequest")


def test_unknown_paths_methods_and_signals_are_refused_as_json() -> None:
    """Each with its own code."""
    refused("GET", "/nothing", 404, "NotFound")
    refused("GET", "/add_shard", 405, "MethodNotAllowed")
    refused("POST", "/kill", 400, "BadRequest", json={"node": "a", "signal": "TERM"})


def test_an_oversized_body_is_refused() -> None:
    """Over the limit nothing is parsed."""
    refused("PUT", "/spec", 413, "TooLarge", data=io.BytesIO(b" " * (BODY_BYTES_MAX + 1)))


def test_a_request_from_a_web_page_is_refused() -> None:
    """A browser sends Origin; no page may kill nodes on somebody's machine."""
    refused("POST", "/add_shard", 403, "Forbidden", headers={"Origin": "http://evil.example"})


def test_an_invalid_spec_is_refused_with_its_sentence() -> None:
    """The sentence is the parser's own."""
    for method, path in (("PUT", "/spec"), ("POST", "/plan")):
        assert refused(method, path, 422, "InvalidSpec", json={"spec": {"shards": "many"}})


@pytest.mark.parametrize(
    ("code", "status"),
    [("UnknownShard", 404), ("LastShard", 409), ("AlreadyLeaving", 409), ("NoSpareNode", 409)],
)
def test_a_refused_edit_keeps_its_code_and_sentence(code: str, status: int) -> None:
    """The controller says why."""
    failure = EditError(code, "Not so.")
    sent = {"node": "shard-9"}
    assert refused("POST", "/remove_shard", status, code, failure=failure, json=sent) == "Not so."


def test_what_the_platform_cannot_do_is_not_possible_here() -> None:
    """409 with the platform's sentence."""
    failure = PlatformUnable("These nodes are not ours to kill.")
    sent = {"node": "a", "signal": "KILL"}
    sentence = refused("POST", "/kill", 409, "NotPossibleHere", failure=failure, json=sent)
    assert sentence == "These nodes are not ours to kill."


def test_a_bug_answers_500_without_its_insides(caplog: pytest.LogCaptureFixture) -> None:
    """The traceback goes to the log, not to the caller."""
    failure = ZeroDivisionError("secret")
    sentence = refused("POST", "/rebalance", 500, "InternalError", failure=failure)
    assert "secret" not in sentence
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def spec_document() -> dict[str, Any]:
    """A valid document, as `Spec.document` writes it."""
    return parse({}).document()
