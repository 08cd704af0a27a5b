"""The event loop of our processes: uvloop's where it is installed, which the extra `api` brings.

It doubles what a gateway serves; a controller at rest does little else than turn the loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["run"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`; raises what `main` raises."""
    try:
        import uvloop  # noqa: PLC0415 - an optional package
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
