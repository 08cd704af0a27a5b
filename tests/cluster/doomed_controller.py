"""A controller on the process platform that kills itself (SIGKILL) right before its n-th action.

Run as `python doomed_controller.py FOLDER BASE_PORT DIE_BEFORE [DIE_AFTER_MS]` with the spec stored
in FOLDER already.  It prints one JSON line for each state it publishes with nothing left to do, and
ends itself after the first such state; DIE_BEFORE 0 means never.  With DIE_AFTER_MS it dies that
long after the n-th action began: in the middle of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shardcluster.spec import parse
from shardcluster_runtime.desired import DesiredStore
from shardcluster_runtime.loop import Controller
from tests.cluster.stores import process_platform

if TYPE_CHECKING:
    from shardcluster.actions import Decision

CALM_DEADLINE_S = 60.0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _main(folder: Path, base_port: int, die_before: int, die_after_ms: int) -> int:
    desired = DesiredStore(folder)
    desired.open(None, {})
    actions: list[str] = []
    loop = asyncio.get_running_loop()

    def before_action(decision: Decision) -> None:
        actions.append(f"{decision.reason.value}: {decision.sentence}")
        if len(actions) == die_before:
            if die_after_ms:
                loop.call_later(die_after_ms / 1000, _die)
            else:
                _die()

    platform = process_platform(folder, base_port, parse(desired.document))
    controller = Controller(platform, desired, before_action=before_action)
    await controller.start()
    version = 0
    async with asyncio.timeout(CALM_DEADLINE_S):
        while True:
            state = await controller.wait_state(version, 1.0)
            version = state["version"]
            if state["reason"] == "Idle" and state["healthy"]:
                break
    await controller.stop(stop_nodes=False)
    sys.stdout.write(json.dumps({"actions": actions, "state": state}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(
        asyncio.run(
            _main(
                Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]),
                int(sys.argv[4]) if len(sys.argv) > 4 else 0,
            )
        )
    )  # fmt: skip
