"""One process on this machine: start it, know it again, see its end, end it.

Law: a process is named by its id *and* by what tells it from a later one of the same id.  It is
started in a session of its own and not tied to this process by anything: a controller that is
killed leaves it running, and the next one adopts it.  So nothing here relies on being its parent,
and `os.posix_spawn` is used rather than `subprocess`, whose objects want to outlive the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LocalProcess", "find_started", "spawn"]

END_POLL_S = 0.05  # where the kernel can't tell of a process's end by itself
WAIT_POLL_S = 0.005
SAME_START_TOLERANCE_S = 1.5  # start times are read off a wall clock that may be set


@dataclass(slots=True)
class LocalProcess:
    """A process that was started here or by an earlier controller."""

    pid: int
    create_time_s: float
    _end_fd: int | None = None  # readable once the process ended (Linux)
    _poll: asyncio.Task[None] | None = None
    _gone: bool = False  # found ended once: the id may belong to another process by now

    @classmethod
    def adopt(cls, pid: int, create_time_s: float, folder: Path) -> LocalProcess | None:
        """The process of that id if it is the same one and runs; `folder` is where it works."""
        try:
            found = psutil.Process(pid)
            started_s = found.create_time()
            same = abs(started_s - create_time_s) < SAME_START_TOLERANCE_S or _works_in(
                found, folder
            )
            if not same:
                return None
            process = cls(pid, started_s)
            return None if process.ended() else process
        except psutil.Error:
            return None

    def ended(self) -> bool:
        """Whether it is proven that the process runs no more; a stopped one runs."""
        if not self._gone and self._seen_ended():
            self._gone = True
            # Let the kernel forget it, if it is a child of ours.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return self._gone

    def _seen_ended(self) -> bool:
        if self._end_fd is not None:
            poll = select.poll()
            poll.register(self._end_fd, select.POLLIN)
            return bool(poll.poll(0))
        try:
            found = psutil.Process(self.pid)
            if found.status() == psutil.STATUS_ZOMBIE:
                return True
            return abs(found.create_time() - self.create_time_s) > SAME_START_TOLERANCE_S
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False  # not readable is not gone

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it ended."""
        if self.ended():
            return
        with contextlib.suppress(ProcessLookupError):
            if self._end_fd is not None:
                signal.pidfd_send_signal(self._end_fd, number)  # surely this process
            else:
                os.kill(self.pid, number)

    async def wait_ended(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still runs after `timeout_s`."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not self.ended():
            if loop.time() > deadline_s:
                return False
            await asyncio.sleep(WAIT_POLL_S)
        return True

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call `on_end` in the event loop once, when the process ends; until `unwatch`."""
        self.unwatch()
        if hasattr(os, "pidfd_open"):
            try:
                self._end_fd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                asyncio.get_running_loop().call_soon(on_end)
                return
            except OSError:
                self._end_fd = None  # an old kernel, or no file left to open: poll instead
        if self._end_fd is None:
            self._poll = asyncio.create_task(self._wait(on_end))
        else:
            asyncio.get_running_loop().add_reader(self._end_fd, self._told, on_end)

    def unwatch(self) -> None:
        """Stop watching; the process itself is left alone."""
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        if self._end_fd is not None:
            asyncio.get_running_loop().remove_reader(self._end_fd)
            os.close(self._end_fd)
            self._end_fd = None

    def _told(self, on_end: Callable[[], None]) -> None:
        if self._end_fd is not None:
            asyncio.get_running_loop().remove_reader(self._end_fd)  # it stays readable
        on_end()

    async def _wait(self, on_end: Callable[[], None]) -> None:
        while not self.ended():  # noqa: ASYNC110 - only where the system tells nobody of an end
            await asyncio.sleep(END_POLL_S)
        on_end()


def spawn(command: list[str], log: Path) -> LocalProcess:
    """Start `command` in a session of its own, its output appended to `log`; raises OSError."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them, and so would the child
    )
    try:
        created_s = psutil.Process(pid).create_time()
    except psutil.Error:
        created_s = 0.0  # unreadable; its working folder tells it from others
    return LocalProcess(pid, created_s)


def find_started(config: Path, folder: Path) -> LocalProcess | None:
    """The process that was started with that configuration, when nobody noted its id."""
    for found in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if found.status() != psutil.STATUS_ZOMBIE and (
                str(config) in found.cmdline() or _works_in(found, folder)
            ):
                return LocalProcess(found.pid, found.create_time())
    return None


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder.resolve())
    except (psutil.Error, OSError):
        return False
