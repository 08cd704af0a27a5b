"""A ShardCluster on a real Kubernetes as a campaign's stage: `make chaos TIER=k8s`.

It runs on whatever KUBECONFIG names, as the end-to-end tests do, and refuses the same contexts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar

from tests.chaos.history import Outcome
from tests.chaos.k8s_befaller import K8sBefaller
from tests.chaos.k8s_calm import why_not_calm
from tests.chaos.k8s_faults import NODE_KINDS
from tests.chaos.k8s_ground import Ground, aside
from tests.chaos.k8s_logs import Logs
from tests.chaos.k8s_machines import OTHER_KINDS
from tests.chaos.k8s_nemesis import BLOCK, FAULTS, WISHES, k8s_schedule
from tests.chaos.k8s_pod import start
from tests.chaos.k8s_wishes import wish
from tests.chaos.reach import Trouble, now_ms
from tests.chaos.readout import Reading, read_out
from tests.chaos.rounds import CannotStart, Tier
from tests.chaos.writers import keys_of
from tests.e2e.hand import lend_a_hand
from tests.e2e.installed import install
from tests.e2e.kube import Refused, Store, foreign_context, kubectl
from tests.e2e.rig import REQUIRE_RIG, RIG, machines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from tests.chaos.befaller import Befaller
    from tests.chaos.history import Operation, Readout
    from tests.chaos.nemesis import Schedule
    from tests.chaos.taken import Takeover
    from tests.chaos.writers import Written

__all__ = ["K8S_TIER"]

BALLAST_KEYS = 2_000  # written once: a move takes its time, and old data can be missed
CALM_BOUND_MS = 300_000  # after the last fault: a rolling upgrade may only begin then
TELL_EVERY_S = 1.0
POLL_S = 0.5
INSIST_MS = 60_000
THREADS = 16  # that wait for kubectl, the rig and the API server
# A node hangs up to 8 s, and is cut off up to 15 s; what was sent to it before waits there.
LATE_MS = 30_000


Found = TypeVar("Found")


@dataclass
class K8sStage:
    """One store."""

    ground: Ground
    logs: Logs
    ballast: tuple[Operation, ...] = ()
    _beside: list[asyncio.Task[None]] = field(default_factory=list)

    async def set_up(self) -> None:
        """Write the ballast; raises CannotStart."""
        await self.ground.tell()
        self.ballast = tuple(await aside(self.ground.inside.ballast, BALLAST_KEYS))
        if self.ballast[-1].outcome is not Outcome.OK:
            raise CannotStart(str(self.ballast[-1]))
        self._beside += [
            asyncio.create_task(self._keep_telling()), asyncio.create_task(self.logs.run()),
        ]  # fmt: skip

    async def _keep_telling(self) -> None:
        while True:
            with contextlib.suppress(Trouble):
                await self.ground.tell()
            await asyncio.sleep(TELL_EVERY_S)

    async def end(self) -> None:
        """Undo what a round that was broken off has left."""
        for task in self._beside:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.ground.rig is not None:
            await aside(self.ground.rig.undo)

    async def begin(self, plan: Schedule) -> Befaller:
        """Clients write from now on."""
        keys = keys_of(str(plan.seed))
        await self._insist(self.ground.inside.set_clock)
        await aside(self.ground.inside.begin, keys)
        ballast = tuple(operation.key for operation in self.ballast)
        return K8sBefaller(
            keys=keys,
            ballast=ballast,
            ground=self.ground,
            kinds={**NODE_KINDS, **OTHER_KINDS},
            wishes=wish,
        )

    async def end_writing(self) -> tuple[Written, list[Takeover]]:
        """Clients stop."""
        return await self._insist(self.ground.inside.end)

    async def calm(self) -> str:
        """Wait until the spec is reached."""
        ends_ms = now_ms() + CALM_BOUND_MS
        while why := await why_not_calm(self.ground):
            if now_ms() > ends_ms:
                return f"not reached in {CALM_BOUND_MS / 1000:.0f} s: {why}"
            await asyncio.sleep(POLL_S)
        return ""

    async def read_out(self, keys: Sequence[str], sentence: str) -> Readout:
        """What stands there."""

        async def once() -> Reading:
            try:
                await self.ground.tell()
                status = await self.ground.status()
                leads = [shard.get("master") or "" for shard in status["shards"]]
                return await aside(self.ground.inside.read, keys, leads)
            except Trouble as error:
                return Reading({}, (), str(error))

        return await read_out(once, keys, sentence)

    async def forget(self, keys: Sequence[str]) -> None:
        """Delete them."""
        await self._insist(partial(self.ground.inside.forget, keys))

    async def _insist(self, work: Callable[[], Found]) -> Found:
        """Try what may be done twice until our pod can be reached; raises Trouble."""
        ends_ms = now_ms() + INSIST_MS
        while True:
            try:
                return await aside(work)
            except Trouble:
                if now_ms() > ends_ms:
                    raise
                await asyncio.sleep(POLL_S)

    async def keep(self, folder: Path) -> None:
        """Logs, views, events, and the objects as they are."""
        await self.logs.read()
        self.logs.write(folder / "logs")
        views = await aside(self.ground.inside.views)
        for name, text in views.items():
            (folder / f"{name}.nodes.txt").write_text(text)
        for title, words in {
            "resource.json": ("get", "shc", self.ground.store.name, "-o", "json"),
            "objects.txt": ("get", "shc,sts,pods,pvc,deploy,svc", "-o", "wide"),
            "pods.json": ("get", "pods", "-o", "json"),
            "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
        }.items():
            with contextlib.suppress(Trouble):
                (folder / title).write_text(await self.ground.kubectl(*words))


@cache
def _prepare() -> None:
    """Install the operator, once for a campaign; raises CannotStart."""
    if shutil.which("kubectl") is None:
        message = "there is no kubectl on PATH"
        raise CannotStart(message)
    if why := foreign_context():
        raise CannotStart(why)
    if os.environ.get(REQUIRE_RIG) and RIG not in os.environ:
        message = f"{RIG} names no command that cuts networks and power"
        raise CannotStart(message)
    # What kubectl learnt of another cluster at the same address would be wrong here.
    os.environ["KUBECACHEDIR"] = tempfile.mkdtemp(prefix="shardcluster-chaos-")
    install()
    lend_a_hand()


def _set_up(namespace: str, *, storage: bool) -> Ground:
    """A store at rest, and our pod beside it."""
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    store = Store(namespace)
    without = {} if storage else {"storage": None}
    store.apply(gateway={"replicas": 2}, rebalance={"maxKeysPerSecond": 0}, **without)
    store.until_calm()
    store.kubectl("rollout", "status", f"deploy/{store.name}-gateway", "--timeout=120s")
    inside = start(store, machines()[-1])
    return Ground(store, inside, storage=storage)


@contextlib.asynccontextmanager
async def _stage(plan: Schedule) -> AsyncIterator[K8sStage]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    await asyncio.to_thread(_prepare)
    namespace = f"chaos-{uuid.uuid4().hex[:8]}"
    try:
        try:
            ground = await asyncio.to_thread(_set_up, namespace, storage=plan.world.storage)
        except (AssertionError, json.JSONDecodeError) as error:
            raise CannotStart(str(error)) from error
        stage = K8sStage(ground, Logs(ground.store))
        try:
            await stage.set_up()
            yield stage
        finally:
            await stage.end()
    finally:
        with contextlib.suppress(Refused):
            await asyncio.to_thread(kubectl, "delete", "namespace", namespace, "--wait=false")


K8S_TIER = Tier(
    name="k8s",
    faults=FAULTS,
    wishes=WISHES,
    schedule=k8s_schedule,
    block=BLOCK,
    stage=_stage,
    late_ms=LATE_MS,
)
