"""One look for all who want to see: browsers share an answer instead of each asking the nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["SharedLook"]

T = TypeVar("T")


class SharedLook(Generic[T]):
    """Runs `look` when somebody asks and the last answer is older than `fresh_s`."""

    def __init__(self, look: Callable[[], Awaitable[T]], fresh_s: float) -> None:
        """Nothing runs while nobody asks."""
        self._look = look
        self._fresh_s = fresh_s
        self._task: asyncio.Task[T] | None = None
        self._began_s = 0.0

    async def get(self) -> T:
        """The answer under way, the last one while it is fresh, or a new one."""
        now_s = asyncio.get_running_loop().time()
        task = self._task
        if task is None or (task.done() and now_s - self._began_s >= self._fresh_s):
            task = self._task = asyncio.create_task(self._run())
            self._began_s = now_s
        return await asyncio.shield(task)  # one browser that goes away ends it for nobody else

    async def _run(self) -> T:
        return await self._look()
