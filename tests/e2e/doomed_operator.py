"""Runs in a pod in the operator's place: an operator that is killed again and again.

`MODE=after`: SIGKILL right after each action, so also right before each.  `MODE=amid`: some
milliseconds after an action began.  The next one is started at once and has the same name, so that
nobody waits for the lease.  Each death is a line in `DEATHS`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from shardcluster import actions
from shardcluster_operator import __main__ as operator_main
from shardcluster_operator.elector import Elector
from shardcluster_runtime.execute import Executor

DEATHS = Path("/tmp/deaths")  # noqa: S108 - of its own container
IDENTITY = "doomed"
AMID_MS = (5, 20, 80, 320, 1280)  # one after the other: what takes longer than one ends sometime


def _die(action: actions.Action, number: int) -> None:
    with DEATHS.open("a", encoding="ascii") as deaths:
        deaths.write(f"{number} {type(action).__name__}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def _doom(number: int, mode: str) -> None:
    """Let this process's first action of the loop be its last."""
    execute = Executor.execute

    async def doomed(self: Executor, action: actions.Action, picture: Any) -> None:
        if isinstance(action, actions.Wait):
            await execute(self, action, picture)
            return
        if mode == "amid":
            wait_s = AMID_MS[number % len(AMID_MS)] / 1000
            asyncio.get_running_loop().call_later(wait_s, _die, action, number)
        try:
            await execute(self, action, picture)
        finally:
            if mode == "after":
                _die(action, number)
            await asyncio.Event().wait()  # it begins no other action while it waits for its end

    Executor.execute = doomed  # type: ignore[method-assign]
    begin = Elector.__init__

    def named(self: Elector, kube: Any, namespace: str, name: str, _identity: str) -> None:
        begin(self, kube, namespace, name, IDENTITY)

    Elector.__init__ = named  # type: ignore[method-assign, assignment]


def _live(number: int, mode: str) -> None:
    """One life, in a process of its own; what it imports is there already."""
    pid = os.fork()
    if pid == 0:
        _doom(number, mode)
        operator_main.main([])
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != -signal.SIGKILL:
        sys.stderr.write(f"ended by itself: {code}\n")
        time.sleep(1.0)


if __name__ == "__main__":
    for life in itertools.count(1):
        _live(life, os.environ["MODE"])
