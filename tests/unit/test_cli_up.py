"""What `shardctl up` supervises: ports, folder, control API, gateway process, printed events."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import io
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from rich.console import Console

from shardcluster_runtime.cli import supervise
from shardcluster_runtime.cli.client import CliError, read_whereabouts
from shardcluster_runtime.cli.tell import REPEAT_AFTER_S, EventPrinter, own_command, welcome
from shardcluster_runtime.cli.up import UpOptions
from shardcluster_runtime.desired import DesiredError
from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 20.0
POLL_S = 0.01
SLEEPER = "import sys, time; print('hello', flush=True); time.sleep(600)"


async def until(holds: Callable[[], bool]) -> None:
    """Poll until it holds; a deadline ends the test otherwise."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(POLL_S)


def test_a_busy_port_is_named_with_its_option() -> None:
    """And a free one is passed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CliError, match=f"Port {port} on 127.0.0.1 is in use.*--port"):
            supervise.check_port_free("127.0.0.1", port)
    supervise.check_port_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", "x" * 300])
def test_a_wrong_host_is_named_with_its_option(host: str) -> None:
    """One that can't be looked up, one of another machine, one that is no name."""
    with pytest.raises(CliError, match="--host"):
        supervise.check_port_free(host, 18099)


def test_a_second_instance_on_a_folder_is_refused(tmp_path: Path) -> None:
    """The sentence names the process; the lock of a dead one does not count."""
    supervise.check_folder_free(tmp_path)
    (tmp_path / "controller.lock").write_text("4321\n")
    supervise.check_folder_free(tmp_path)
    with (tmp_path / "controller.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CliError, match=r"process 4321.*--folder"):
            supervise.check_folder_free(tmp_path)


@pytest.mark.parametrize(
    "error", [DesiredError("So."), PlatformUnable("So."), OSError(28, "So", "/x"), OSError("So.")]
)
def test_what_cannot_be_started_is_a_sentence(error: Exception) -> None:
    """Never a traceback."""
    with pytest.raises(CliError, match="So"), supervise.as_sentences():
        raise error


def test_missing_packages_of_the_gateway_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings them."""
    monkeypatch.setattr(supervise, "GATEWAY_NEEDS", ("no_such_package",))
    with pytest.raises(CliError, match=r"no_such_package.*\[api\]"):
        supervise.check_gateway_installed()


def test_whereabouts_are_written_read_and_forgotten(tmp_path: Path) -> None:
    """By `up` for the other commands."""
    supervise.write_whereabouts(tmp_path, "http://a:1", "http://a:2", 77)
    found = read_whereabouts(tmp_path)
    assert (found.control_url, found.gateway_url) == ("http://a:1", "http://a:2")
    assert (found.process_id, found.gateway_process_id) == (os.getpid(), 77)
    supervise.forget_whereabouts(tmp_path)
    supervise.forget_whereabouts(tmp_path)
    assert read_whereabouts(tmp_path).control_url is None


def test_the_gateway_is_started_again_when_it_ends_and_ended_with_us(tmp_path: Path) -> None:
    """A killed one comes back; its last words are told."""

    async def scene() -> None:
        said: list[str] = []
        started: list[int] = []
        command = [sys.executable, "-c", SLEEPER]
        gateway = supervise.GatewayProcess(command, tmp_path, said.append)
        gateway.on_started = started.append
        running = asyncio.create_task(gateway.run())
        log = tmp_path / supervise.GATEWAY_LOG_FILE
        await until(lambda: len(started) == 1 and log.read_text() == "hello\n")
        os.kill(started[0], signal.SIGKILL)
        await until(lambda: len(started) == 2)
        assert "by SIGKILL" in said[0]
        assert said[0].endswith("ends: hello")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not any(psutil.pid_exists(process_id) for process_id in started)

    asyncio.run(scene())


def test_a_gateway_left_behind_is_ended_but_no_other_process(tmp_path: Path) -> None:
    """The process number may belong to another program by now."""

    async def scene() -> None:
        words = (sys.executable, "-c", SLEEPER)
        gateway = await asyncio.create_subprocess_exec(
            *words, supervise.GATEWAY_MODULE, stdout=asyncio.subprocess.PIPE
        )
        other = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        try:
            for process in (gateway, other):
                assert process.stdout is not None
                await process.stdout.readline()
                supervise.write_whereabouts(tmp_path, "http://a:1", None, process.pid)
                await asyncio.to_thread(supervise.end_leftover_gateway, tmp_path)
            async with asyncio.timeout(DEADLINE_S):
                await gateway.wait()
            assert other.returncode is None
        finally:
            for process in (gateway, other):
                if process.returncode is None:
                    process.kill()
                await process.communicate()
        supervise.end_leftover_gateway(tmp_path)  # it is gone: nothing to do

    asyncio.run(scene())


def _said_hello(log: Path) -> bool:
    return log.exists() and log.read_text() == "hello\n"


def test_a_gateway_that_nobody_could_note_is_ended_too(tmp_path: Path) -> None:
    """The controller was killed between starting it and writing its number down."""

    async def scene() -> None:
        command = [sys.executable, "-c", SLEEPER, supervise.GATEWAY_MODULE]
        folders = (tmp_path / "ours", tmp_path / "another")
        started: list[int] = []
        running = []
        for folder in folders:
            folder.mkdir()
            gateway = supervise.GatewayProcess(command, folder, lambda _: None)
            gateway.on_started = started.append
            running.append(asyncio.create_task(gateway.run()))
            log = folder / supervise.GATEWAY_LOG_FILE
            await until(functools.partial(_said_hello, log))
        ours, others = started
        await asyncio.to_thread(supervise.end_leftover_gateway, folders[0])
        await until(lambda: len(started) == 3)  # it ended, and the one who runs it starts another
        assert psutil.Process(others).is_running()
        assert not psutil.pid_exists(ours)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(scene())


def event(message: str, second: int, count: int = 1) -> dict[str, Any]:
    """An event of the state document."""
    at = f"2026-11-23T19:00:{second:02d}.000Z"
    return {"at": at, "reason": "Idle", "message": message, "count": count}


def test_events_are_printed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told before isn't, and a repetition only after a while."""
    out = io.StringIO()
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    printer = EventPrinter(Console(file=out), {"version": 1, "events": [event("old", 0)]})
    printer.show([event("old", 0), event("new [x]", 1)])
    printer.show([event("old", 0), event("new [x]", 1)])
    printer.show([event("old", 0), event("new [x]", 2, count=2)])
    assert [line.split("  ", 2)[2] for line in out.getvalue().splitlines()] == ["new [x]"]
    now[0] += REPEAT_AFTER_S + 1
    printer.show([event("old", 0), event("new [x]", 9, count=3)])
    assert out.getvalue().splitlines()[1:] == [out.getvalue().splitlines()[-1]]
    assert out.getvalue().endswith("new [x] (×3)\n")


def test_the_welcome_says_where_things_are_and_what_to_try() -> None:
    """With this machine's own commands."""
    state = {
        "shards": [{"master": "shard-0-0"}],
        "nodes": [{"host": "127.0.0.1", "port": port} for port in (7101, 7100)],
    }
    text = welcome(state, "http://127.0.0.1:8080", Path(".shardcluster"), Path("/bin/node-cli"))
    for words in (
        "1 shard, 2 nodes",
        "ports 7100 to 7101",
        "curl http://127.0.0.1:8080/write",
        "kill shard-0-0",
        "/bin/node-cli -c -p 7100",
        "./.shardcluster",
    ):
        assert words in text
    assert own_command(Path("other place")).endswith(" --folder 'other place'")


def test_work_is_left_when_a_stop_comes_first() -> None:
    """And its own failure is raised."""

    async def scene() -> None:
        stop = asyncio.Event()
        assert not await supervise.stopped_first(stop, asyncio.sleep(0))
        with pytest.raises(CliError):
            await supervise.stopped_first(stop, _fail())
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            assert await supervise.stopped_first(stop, asyncio.sleep(600))

    asyncio.run(scene())


async def _fail() -> None:
    message = "So."
    raise CliError(message)


def test_a_gateway_with_a_certificate_has_an_https_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits our environment, which names the files."""
    options = UpOptions(None, Path(), "0.0.0.0", 8080, 7100)  # noqa: S104 - what people give
    monkeypatch.delenv("SHARDCLUSTER_HTTPS_CERT", raising=False)
    assert options.gateway_url == "http://127.0.0.1:8080"
    monkeypatch.setenv("SHARDCLUSTER_HTTPS_CERT", "tls.crt")
    assert options.gateway_url == "https://127.0.0.1:8080"
