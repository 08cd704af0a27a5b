"""The commands of `shardctl` that talk to a running store, against a small fake one."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from shardcluster.slots import SlotSet, key_slot
from shardcluster_runtime.cli import main
from shardcluster_runtime.state import (
    NodeHealth,
    NodePart,
    Phase,
    ShardPart,
    ShardState,
    StateParts,
    assemble,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

HALF = 8192
PLAN = {
    "slots": 4015,
    "keys": 1000,
    "moves": [{"from": "shard-0", "to": "shard-3", "slots": 4015, "keys": 1000}],
    "start_nodes": ["shard-3-0", "shard-3-1"],
    "stop_nodes": [],
}
ACCEPTED = {"accepted": True, "message": "shard-3 is being added.", "shard": "shard-3"}
EVENT = {"at": "2026-11-23T19:00:00.123Z", "reason": "Idle", "message": "All [is] well."}


def state() -> dict[str, Any]:
    """Two shards of one node each."""
    halves = (SlotSet.of(range(HALF)), SlotSet.of(range(HALF, 2 * HALF)))
    document = assemble(
        StateParts(
            cluster="demo",
            phase=Phase.READY,
            reason="Idle",
            message="Nothing to do.",
            healthy=True,
            spec={},
            shards=[
                ShardPart(f"shard-{n}", ShardState.READY, slots, master=f"shard-{n}-0")
                for n, slots in enumerate(halves)
            ],
            nodes=[
                NodePart(f"shard-{n}-0", f"shard-{n}", "master", NodeHealth.UP, "127.0.0.1", 7100)
                for n in range(2)
            ],
            events=[EVENT],
        )
    )
    return {**document, "version": 12}


class FakeStore(ThreadingHTTPServer):
    """Answers as gateway and as controller; notes each change; keeps values in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        """On a port that the system chooses."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.changes: list[tuple[str, str, Any]] = []
        self.values: dict[str, bytes] = {}
        self.refusal: tuple[int, bytes] | None = None
        self.logins: list[str | None] = []
        self.state = state()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeStore

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.logins.append(self.headers.get("Authorization"))
        if self.server.refusal is not None:
            self._answer(*self.server.refusal)
        elif self.path.startswith("/v1/keys/"):
            self._answer(*self._key(self.path, body))
        elif self.path in {"/status", "/state"}:
            self._answer(200, json.dumps(self.server.state).encode())
        else:
            self.server.changes.append((self.command, self.path, json.loads(body)))
            self._answer(202, json.dumps({**ACCEPTED, "plan": PLAN}).encode())

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - names of the base class

    def _key(self, path: str, body: bytes) -> tuple[int, bytes]:
        values = self.server.values
        if self.command == "PUT":
            values[path] = body
            return 200, b"{}"
        found = values.pop(path, None) if self.command == "DELETE" else values.get(path)
        return (404, b"") if found is None else (200, found)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_words: object) -> None:
        """Quiet."""


@contextmanager
def _served() -> Iterator[FakeStore]:
    with FakeStore() as store:
        thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield store
        finally:
            store.shutdown()
            thread.join()


@pytest.fixture
def store() -> Iterator[FakeStore]:
    """A fake store that runs."""
    with _served() as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path, store: FakeStore) -> Path:
    """A state folder whose controller.json names the fake store twice."""
    found = {"pid": 1, "control_url": store.url, "gateway_url": store.url}
    (tmp_path / "controller.json").write_text(json.dumps(found))
    return tmp_path


def run(*words: object) -> Result:
    """Run `shardctl` in 80 columns."""
    environment = {"COLUMNS": "80", "SHARDCLUSTER_URL": None, "SHARDCLUSTER_CONTROL_URL": None}
    return CliRunner(env=environment).invoke(main, [str(word) for word in words])


def test_status_shows_shards_nodes_and_events(folder: Path) -> None:
    """In at most 80 columns, with what the store says taken literally."""
    result = run("status", "--folder", folder)
    assert result.exit_code == 0
    assert "● Ready  demo: Nothing to do." in result.output
    for words in ("shard-0", "8,192", "127.0.0.1:7100", "All [is] well."):
        assert words in result.output
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "\x1b" not in result.output


def test_a_status_without_controller_says_that_it_may_be_old(
    folder: Path, store: FakeStore
) -> None:
    """The gateway shows the controller's last word, or nothing if it never had one."""
    away = {"controller": "unreachable", "controller_message": "The controller is away."}
    for last in (state(), {}):
        store.state = {**last, **away}
        result = run("status", "--folder", folder)
        assert result.exit_code == 0, result.output
        assert "The controller is away. What stands here may be old." in result.output
    assert run("ring", "--folder", folder).exit_code == 1
    assert run("events", "--folder", folder).exit_code == 0


def test_json_output_is_the_document_itself(folder: Path) -> None:
    """For programs."""
    assert json.loads(run("status", "-o", "json", "--folder", folder).stdout) == state()
    assert json.loads(run("events", "-o", "json", "--folder", folder).stdout) == [EVENT]


def test_key_names_slot_shard_and_node(folder: Path) -> None:
    """Also for keys in other alphabets and for tags."""
    keys = ["greeting", "{user}:1", "ключ", ""]
    rows = json.loads(run("key", "-o", "json", "--folder", folder, *keys).stdout)
    assert [row["slot"] for row in rows] == [key_slot(key.encode()) for key in keys]
    assert [row["node"] for row in rows] == [f"shard-{row['slot'] // HALF}-0" for row in rows]
    table = run("key", "--folder", folder, "{user}:1", "[bold]")
    assert "[bold]" in table.output


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["add-shard"], ("POST", "/add_node", {})),
        (["remove-shard", "shard-1"], ("POST", "/remove_node", {"node": "shard-1"})),
        (["rebalance"], ("POST", "/rebalance", {})),
        (["kill", "shard-0-0"], ("POST", "/kill", {"node": "shard-0-0", "signal": "KILL"})),
        (
            ["kill", "a", "--signal", "stop"],
            ("POST", "/kill", {"node": "a", "signal": "STOP"}),
        ),
    ],
)
def test_changes_are_asked_for_and_their_plan_is_shown(
    folder: Path, store: FakeStore, words: list[str], change: tuple[str, str, Any]
) -> None:
    """Through the gateway where it has them, else through the controller."""
    result = run(*words, "--folder", folder)
    assert result.exit_code == 0, result.output
    assert store.changes == [change]
    assert "shard-3 is being added." in result.output
    assert "4,015" in result.output
    assert "starts shard-3-0, shard-3-1" in result.output


def test_plan_and_apply_send_the_file(folder: Path, store: FakeStore, tmp_path: Path) -> None:
    """YAML becomes JSON on the way."""
    file = tmp_path / "cluster.yaml"
    file.write_text("spec:\n  shards: 4\n")
    document = {"spec": {"shards": 4}}
    assert run("plan", "-f", file, "--folder", folder).exit_code == 0
    assert run("apply", "-f", file, "--folder", folder, "-o", "json").exit_code == 0
    assert store.changes == [("POST", "/plan", document), ("PUT", "/spec", document)]


def test_a_controller_without_gateway_is_asked_itself(tmp_path: Path, store: FakeStore) -> None:
    """`shardctl controller` starts none."""
    (tmp_path / "controller.json").write_text(json.dumps({"pid": 1, "control_url": store.url}))
    assert run("add-shard", "--folder", tmp_path).exit_code == 0
    assert store.changes == [("POST", "/add_shard", {})]
    assert run("status", "--folder", tmp_path).exit_code == 0
    result = run("bench", "--folder", tmp_path)
    assert (result.exit_code, "--through nodes" in result.output) == (1, True)


def test_a_url_is_enough_for_what_the_gateway_has(tmp_path: Path, store: FakeStore) -> None:
    """But not for kill, plan and apply, which say what they miss."""
    assert run("status", "--url", store.url, "--folder", tmp_path).exit_code == 0
    result = run("kill", "a", "--url", store.url, "--folder", tmp_path)
    assert (result.exit_code, "No controller is known here" in result.output) == (1, True)
    where = ("--url", store.url, "--control-url", store.url, "--folder", tmp_path)
    assert run("kill", "a", *where).exit_code == 0


def test_nothing_runs_there(tmp_path: Path) -> None:
    """One sentence, exit code 1."""
    with _served() as gone:
        url = gone.url
    result = run("status", "--url", url, "--folder", tmp_path)
    assert result.exit_code == 1
    sentence = f"Error: No ShardCluster answers at {url}: start one with `shardctl up`.\n"
    assert result.stderr == sentence


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (409, b'{"error": {"code": "LastShard", "message": "It is the last."}}', "It is the last."),
        (503, b'{"detail": "No controller."}', "No controller."),
        (500, b"{}", "HTTP 500"),
        (200, b"<html>", "is no ShardCluster"),
        (200, b"[]", "is no ShardCluster"),
    ],
)
def test_a_refusal_ends_with_its_sentence(
    folder: Path, store: FakeStore, status: int, content: bytes, words: str
) -> None:
    """On standard error, exit code 1, also for JSON output."""
    store.refusal = (status, content)
    result = run("add-shard", "--folder", folder, "-o", "json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["key"],
        ["plan"],
        ["kill"],
        ["kill", "a", "--signal", "TERM"],
        ["status", "--output", "xml"],
        ["status", "--url", "ftp://x"],
        ["status", "--url", "127.0.0.1:8080"],
        ["status", "--url", "http://x:99999"],
        ["bench", "--seconds", "0"],
        ["controller"],
        ["controller", "--nodes", "a:1", "--dns", "b:1"],
        ["controller", "--nodes", "a:1,"],
        ["controller", "--dns", "name-without-port"],
        ["up", "--port", "0"],
    ],
)
def test_wrong_usage_exits_2(words: list[str]) -> None:
    """And says what was wrong."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error:" in result.stderr


def test_a_spec_file_that_cannot_be_read_is_a_sentence(folder: Path, store: FakeStore) -> None:
    """And nothing is sent."""
    result = run("apply", "-f", folder / "absent.yaml", "--folder", folder)
    assert (result.exit_code, store.changes) == (1, [])
    assert "can't be read" in result.stderr


def test_a_damaged_controller_file_counts_as_none(tmp_path: Path, store: FakeStore) -> None:
    """The URL on the command line still works."""
    for content in ("{", "[]", '{"control_url": 5}'):
        (tmp_path / "controller.json").write_text(content)
        assert run("status", "--url", store.url, "--folder", tmp_path).exit_code == 0


def test_bench_reports_both_operations_and_leaves_no_keys(folder: Path, store: FakeStore) -> None:
    """Through HTTP."""
    words = ("--seconds", "0.2", "--connections", "2", "--keys", "8", "-o", "json")
    result = run("bench", "--folder", folder, *words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["operation"] for row in found["operations"]] == ["SET", "GET"]
    assert all(row["requests"] > 0 and row["errors"] == 0 for row in found["operations"])
    assert store.values == {}


def test_help_and_version_need_no_store() -> None:
    """Every command explains itself."""
    assert "add-shard" in run("--help").output
    assert "shardcluster" in run("version").output
    assert set(json.loads(run("version", "-o", "json").stdout)) == {
        "shardcluster",
        "python",
        "system",
    }


def test_ring_says_who_owns_how_much_and_what_would_move(folder: Path) -> None:
    """Two shards own all; of three wanted, the third takes its share from them."""
    rows = json.loads(run("ring", "-o", "json", "--folder", folder).stdout)
    assert [(row["shard"], row["slots"]) for row in rows] == [
        ("shard-0", HALF),
        ("shard-1", HALF),
        ("shard-2", 0),
    ]
    assert sum(row["wanted_slots"] for row in rows) == 2 * HALF
    assert [row["why"].split()[0] for row in rows] == ["gives", "gives", "takes"]
    assert "shard-2" in run("ring", "--folder", folder).output


def test_a_token_of_the_environment_is_sent_to_the_gateway(
    store: FakeStore, tmp_path: Path
) -> None:
    """By the commands and by `bench`; without one nothing is sent, and a controller gets none."""
    known = {"SHARDCLUSTER_TOKEN": "the-token"}
    asked = [
        (["status"], {}, None),
        (["status"], known, "Bearer the-token"),
        (["add-shard"], known, "Bearer the-token"),
        (["bench", "--seconds", "0.1", "--keys", "10"], known, "Bearer the-token"),
    ]
    for arguments, environment, login in asked:
        store.logins.clear()
        ended = CliRunner().invoke(
            main, [*arguments, "--url", store.url, "--folder", str(tmp_path)], env=environment
        )
        assert ended.exit_code == 0, ended.output
        assert set(store.logins) == {login}
    store.logins.clear()
    arguments = ["status", "--control-url", store.url, "--folder", str(tmp_path)]
    assert CliRunner().invoke(main, arguments, env=known).exit_code == 0
    assert set(store.logins) == {None}
