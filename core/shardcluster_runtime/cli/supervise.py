"""What runs beside the control loop: its HTTP API, the gateway process, `controller.json`.

Law: the gateway is started in its own session, so that Ctrl-C in a terminal reaches only the
controller, which then ends things in order.  A gateway may outlive a controller that was killed
(reads and writes go on); the next controller of the same folder ends it and starts its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import http
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
from aiohttp import web

from shardcluster.spec import SpecError
from shardcluster_runtime.cli.client import WHEREABOUTS_FILE, CliError, read_whereabouts
from shardcluster_runtime.control import control_app
from shardcluster_runtime.desired import DesiredError, write_atomically
from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from shardcluster_runtime.control import ControllerLike

__all__ = [
    "GatewayProcess",
    "as_sentences",
    "background",
    "check_folder_free",
    "check_gateway_installed",
    "check_port_free",
    "end_leftover_gateway",
    "forget_whereabouts",
    "gateway_ready",
    "serve_control",
    "stop_requested",
    "stopped_first",
    "write_whereabouts",
]  # fmt: skip

LOCK_FILE = "controller.lock"
GATEWAY_MODULE = "shardcluster_api"
GATEWAY_NEEDS = ("a2wsgi", "flask", "httptools", "prometheus_client", "uvicorn")
GATEWAY_LOG_FILE = "gateway.log"
FOLDER_VARIABLE = "SHARDCLUSTER_STARTED_FOR"  # in a gateway's environment: the state folder
GATEWAY_STOP_TIMEOUT_S = 5.0
GATEWAY_STEADY_S = 10.0  # one that ran so long starts again at once
RESTART_WAIT_FIRST_S = 0.2
RESTART_WAIT_MAX_S = 5.0
LONG_POLLS_GRACE_S = 0.2  # at the end, for callers held in a long poll
READY_POLL_S = 0.05
READY_TIMEOUT_S = 2.0  # of one question
LOG_TAIL_BYTES = 4096


@contextlib.contextmanager
def as_sentences() -> Iterator[None]:
    """Turn what is wrong with the spec, the folder or the platform into a CliError."""
    try:
        yield
    except (SpecError, DesiredError, PlatformUnable) as error:
        raise CliError(str(error)) from error
    except OSError as error:
        message = f"{error.strerror or error}: {error.filename}." if error.filename else str(error)
        raise CliError(message) from error


def check_folder_free(folder: Path) -> None:
    """Raise CliError when a controller runs on the folder; the platform locks it for good later.

    Looked at first, because reading `-f FILE` may already change the desired spec.
    """
    with (folder / LOCK_FILE).open("a+", encoding="ascii", errors="replace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            who = f" (process {number})" if (number := lock.read(20).strip()) else ""
            message = (
                f"A controller{who} runs on the folder {folder} already: end it first, or give "
                "another folder with --folder."
            )
            raise CliError(message) from error


def check_gateway_installed() -> None:
    """Raise CliError when the gateway or one of the packages it needs is missing."""
    missing = [
        name for name in (GATEWAY_MODULE, *GATEWAY_NEEDS) if importlib.util.find_spec(name) is None
    ]
    if missing:
        message = (
            f"The HTTP gateway needs Python packages that are not installed "
            f"({', '.join(missing)}): install ShardCluster with its extra [api]."
        )
        raise CliError(message)


def check_port_free(host: str, port: int) -> None:
    """Raise CliError when nobody could listen there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        message = f"{host!r} is no address of this machine: give another one with --host."
        raise CliError(message) from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise CliError(_why_not(error, host, port)) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use already: choose another one with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: give another one with --host."
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"This user may not listen on port {port}: choose one above 1023 with --port."
    return f"Port {port} on {host} can't be used ({error.strerror}): choose another with --port."


@contextlib.asynccontextmanager
async def serve_control(controller: ControllerLike, host: str, port: int) -> AsyncIterator[str]:
    """Serve the control API while the context lasts; yields its URL."""
    runner = web.AppRunner(
        control_app(controller),
        handle_signals=False,
        access_log=None,
        shutdown_timeout=LONG_POLLS_GRACE_S,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise CliError(_why_not(error, host, port)) from error
        bound_host, bound_port = runner.addresses[0][:2]
        if bound_host in {"0.0.0.0", "::"}:  # noqa: S104 - a comparison, nothing is bound here
            bound_host = "127.0.0.1"
        yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
    finally:
        await runner.cleanup()


def write_whereabouts(
    folder: Path, control_url: str, gateway_url: str | None, gateway_pid: int | None
) -> None:
    """Let the other commands find this controller."""
    found = {
        "pid": os.getpid(),
        "control_url": control_url,
        "gateway_url": gateway_url,
        "gateway_pid": gateway_pid,
    }
    write_atomically(folder / WHEREABOUTS_FILE, json.dumps(found, indent=2) + "\n")


def forget_whereabouts(folder: Path) -> None:
    """Remove `controller.json`: this controller ends."""
    (folder / WHEREABOUTS_FILE).unlink(missing_ok=True)


def end_leftover_gateway(folder: Path) -> None:
    """End the gateway that a killed controller of this folder left behind.

    Only to be called when no controller runs on the folder.  Never ends a process that is not
    a gateway: the number may belong to another program by now.
    """
    noted = read_whereabouts(folder).gateway_process_id
    found = set() if noted is None else {noted}
    for process_id in found | _gateways_for(folder):
        _end_gateway(process_id)


def _gateways_for(folder: Path) -> set[int]:
    """Those whose process id nobody could note: the controller was killed right after the start."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if GATEWAY_MODULE in process.cmdline():
                started_for = process.environ().get(FOLDER_VARIABLE)
                if started_for == str(folder.resolve()):
                    found.add(process.pid)
    return found


def _end_gateway(process_id: int) -> None:
    try:
        process = psutil.Process(process_id)
        if GATEWAY_MODULE not in process.cmdline():
            return
        process.terminate()
        try:
            process.wait(GATEWAY_STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(GATEWAY_STOP_TIMEOUT_S)
    except psutil.Error:
        return


class GatewayProcess:
    """The HTTP gateway as a child process, started again whenever it ends."""

    def __init__(self, command: list[str], folder: Path, say: Callable[[str], None]) -> None:
        """`command` starts it; its output goes to a file in `folder`; `say` tells people."""
        self._command = command
        self._log_path = folder / GATEWAY_LOG_FILE
        self._environment = {**os.environ, FOLDER_VARIABLE: str(folder.resolve())}
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self.on_started: Callable[[int], None] = lambda _process_id: None

    @staticmethod
    def command(control_url: str, host: str, port: int) -> list[str]:
        """How the gateway is started."""
        return [
            sys.executable, "-m", GATEWAY_MODULE,
            "--controller", control_url, "--host", host, "--port", str(port),
        ]  # fmt: skip

    async def run(self) -> None:
        """Keep it running until cancelled; then end it and wait for its end."""
        wait_s = RESTART_WAIT_FIRST_S
        try:
            while True:
                began_s = time.monotonic()
                code = await self._run_once()
                if time.monotonic() - began_s > GATEWAY_STEADY_S:
                    wait_s = RESTART_WAIT_FIRST_S
                self._say(
                    f"The HTTP gateway ended ({_ending(code)}) and is started again in "
                    f"{wait_s:.1f} s. {self._last_words()}"
                )
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RESTART_WAIT_MAX_S)
        finally:
            await self._end()

    async def _run_once(self) -> int:
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )
        self.on_started(self._process.pid)
        return await self._process.wait()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GATEWAY_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _last_words(self) -> str:
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"Its log {self._log_path} ends: {lines[-1]}" if lines else ""


def _ending(code: int) -> str:
    return f"by SIG{signal.Signals(-code).name[3:]}" if code < 0 else f"exit code {code}"


async def gateway_ready(url: str) -> None:
    """Return once the gateway says that it serves."""
    timeout = aiohttp.ClientTimeout(total=READY_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                # Its certificate names a host that people use, seldom 127.0.0.1.
                async with session.get(f"{url}/readyz", ssl=False) as response:
                    if response.status == http.HTTPStatus.OK:
                        return
            await asyncio.sleep(READY_POLL_S)


def stop_requested() -> asyncio.Event:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C changes nothing."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, event.set)
    return event


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the body; it is cancelled, and waited for, when the body ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def stopped_first(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work` unless `stop` comes before its end; says which came first."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return stop.is_set()
    finally:
        for task in (working, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
