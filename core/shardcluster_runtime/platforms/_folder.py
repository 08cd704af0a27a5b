"""The state folder: one controller at a time, and the marker that the store was formed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["StateFolder", "as_sentences"]

LOCK_FILE = "controller.lock"
FORMED_FILE = "formed"
HOLDER_BYTES = 20


class StateFolder:
    """Locked from `lock` to `unlock`; the kernel unlocks it when the process ends, however."""

    def __init__(self, path: Path) -> None:
        """Nothing is touched before `lock`."""
        self.path = path.absolute()
        self._lock_fd: int | None = None

    def lock(self) -> None:
        """Make it ours; raises PlatformUnable naming the controller that has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock_fd, HOLDER_BYTES, 0).decode(errors="replace").strip()
            os.close(lock_fd)
            message = (
                f"Another ShardCluster controller (pid {holder or 'unknown'}) already runs on "
                f"{self.path}."
            )
            raise PlatformUnable(message) from error
        except OSError:
            os.close(lock_fd)
            raise
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = lock_fd

    def unlock(self) -> None:
        """Let another controller have it."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def formed(self) -> bool:
        """Whether the store was formed once."""
        return (self.path / FORMED_FILE).exists()

    def mark_formed(self) -> None:
        """Remember it."""
        (self.path / FORMED_FILE).touch()


@contextlib.contextmanager
def as_sentences() -> Iterator[None]:
    """Turn what the operating system refuses into PlatformUnable."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        message = f"The operating system refuses: {error.strerror or error}{where}."
        raise PlatformUnable(message) from error
