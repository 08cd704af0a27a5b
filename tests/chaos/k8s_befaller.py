"""One round on Kubernetes: who may be hit there, and what a hit may take.

Unlike a process on the same machine a node here is hit some time after it was looked at (a command
goes through the API server), and what ends may do so slowly; so an excuse lasts until the command
has returned, and a node that was asked to end is no copy that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.chaos.befaller import Befaller
from tests.chaos.history import Cause
from tests.chaos.k8s_nemesis import FAULTS, NEED_RIG
from tests.chaos.reach import Trouble, now_ms
from tests.chaos.taken import STALE_MS, TAIL_MS, Hit, Taken

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tests.chaos.k8s_ground import Ground, PodSeen
    from tests.chaos.look import Seen
    from tests.chaos.nemesis import Fault

__all__ = ["K8sBefaller", "Kind", "Scene"]

Kind = Callable[["K8sBefaller", "Fault"], Awaitable[str]]

ENDS_WITHIN_MS = 12_000  # a pod that hands over, and lingers
HURRY_BOUND_MS = 60_000
PATIENCE_MS = 8_000
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """All there is at a moment."""

    pods: Mapping[str, PodSeen]  # by node
    nodes: list[Seen]  # that answer

    def machine_of(self, node: Seen) -> str:
        return self.pods[node.name].machine


@dataclass(kw_only=True)
class K8sBefaller(Befaller):
    """One round's."""

    ground: Ground
    kinds: Mapping[str, Kind]
    wishes: Kind
    faults: Collection[str] = tuple(FAULTS)
    machine_hit: str = ""  # one that is without power or cut off: one at a time
    doomed: dict[str, str] = field(default_factory=dict)  # node whose volume goes -> its pod's uid
    spared: frozenset[str] = frozenset()  # shards that have but the other node's volume
    apart_since_ms: dict[str, int] = field(default_factory=dict)  # by shard: a replica is deaf

    def does(self) -> dict[str, Callable[[Fault], Awaitable[str]]]:
        """All kinds of faults."""
        return {kind: partial(work, self) for kind, work in self.kinds.items()}

    async def wish(self, fault: Fault) -> str:
        """A change of the spec."""
        return await self.wishes(self, fault)

    def patience_ms(self, kind: str) -> int:
        """Nodes take seconds to be back; what nobody wishes or no rig can do is not waited for."""
        possible = kind in self.faults and (self.ground.rig is not None or kind not in NEED_RIG)
        return PATIENCE_MS if possible else 0

    async def phase(self) -> str:
        """The status' reason; an API server that is away is waited for."""
        try:
            await self.ground.api_back()
            return str((await self.ground.status()).get("reason"))
        except Trouble:
            return "no API server"

    async def end_faults(self) -> None:
        """All is undone by now but a limit on moves, which is there for faults to find one."""
        ends_ms = now_ms() + HURRY_BOUND_MS
        while True:
            try:
                await self.ground.patch(rebalance={"maxKeysPerSecond": 0})
            except Trouble:
                if now_ms() > ends_ms:
                    raise
                await asyncio.sleep(POLL_S)
            else:
                return

    # -- choosing ---------------------------------------------------------------------------

    async def see(self) -> Scene:
        """Look; raises Trouble when our pod can't be reached."""
        pods = await self.ground.pods()
        self.ending = frozenset(pod.name for pod in pods if pod.ending)
        scene = Scene({pod.name: pod for pod in pods}, await self.ground.look(pods))
        whole = {
            node.shard for node in scene.nodes if node.is_master and self.in_step(scene.nodes, node)
        }
        for shard in whole:
            self.apart_since_ms.pop(shard, None)
        for name, uid in list(self.doomed.items()):
            pod = scene.pods.get(name)
            if pod is None or (pod.uid != uid and name.rpartition("-")[0] in whole):
                del self.doomed[name]
        self.spared = frozenset(name.rpartition("-")[0] for name in self.doomed)
        return scene

    def targets(self, scene: Scene) -> list[Seen]:
        """Those that may be hit at all."""
        return [
            node
            for node in scene.nodes
            if node.name not in self.ending and node.shard not in self.spared
        ]

    def may_end(
        self, scene: Scene, *, master: bool | None = None, copied: bool = False
    ) -> list[Seen]:
        """Those whose process may end."""
        return [
            node
            for node in self.targets(scene)
            if master in {None, node.is_master}
            and ((node.on_disk and not copied) or self.copied(scene.nodes, node))
        ]

    def behind_ms(self, shard: str) -> int:
        """Gossip also promotes a replica that heard nothing for up to ten node timeouts."""
        apart_ms = self.apart_since_ms.get(shard)
        return STALE_MS if apart_ms is None else max(STALE_MS, now_ms() - apart_ms + TAIL_MS)

    # -- noting -----------------------------------------------------------------------------

    def hit(self, scene: Scene, node: Seen) -> list[Taken]:
        """What is lost with its process; give it to `was_hit` when the process has ended."""
        if (taken := self.ends(scene.nodes, node)) is not None:
            return [taken]
        # The copy of a master that is ending: it may be followed by this one as it was.
        for master in self.masters_of(scene.nodes, node):
            if master.name in self.ending:
                self.take(master, TAIL_MS).asked_until_ms += ENDS_WITHIN_MS
        return []

    def was_hit(self, taken: list[Taken]) -> None:
        """It has ended by now."""
        for one in taken:
            one.asked_until_ms = max(one.asked_until_ms, now_ms())

    def parted(self, scene: Scene, master: Seen, since_ms: int, until_ms: int) -> None:
        """Master and replica don't hear each other; the master may be replaced."""
        keys = self.all_keys_in([master])
        behind_ms = TAIL_MS if self.in_step(scene.nodes, master) else self.behind_ms(master.shard)
        self.taken.append(Taken(Cause.FORCED, keys, until_ms, since_ms - behind_ms))
        self.hits.append(Hit(master.shard, keys, since_ms))
        self.apart_since_ms.setdefault(master.shard, since_ms)

    def only_copy(self, scene: Scene, node: Seen) -> str:
        """A remark on what was hit."""
        return "" if self.copied(scene.nodes, node) else ", the only copy"
