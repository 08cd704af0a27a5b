"""What the kinds of faults do to a store of processes.  What may be hit is in `befaller.py`."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardcluster.slots import SlotSet
from tests.chaos.befaller import Befaller
from tests.chaos.history import Cause
from tests.chaos.process_nemesis import FAULTS
from tests.chaos.reach import Trouble, ask_node, now_ms
from tests.chaos.taken import AOF_MS, STALE_MS, TAIL_MS, Taken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from tests.chaos.look import Seen
    from tests.chaos.nemesis import Fault
    from tests.chaos.process_store import Document, ProcessStore

__all__ = ["ProcessBefaller"]

MAY_FAIL_OVER_MS = 1_000  # a master that hangs shorter than this keeps its shard
WAKES_MS = 1_000  # so long after it goes on, a deposed master may still say yes
SLOW_STOPPED_S, SLOW_RUNS_S = 0.06, 0.006
SHARDS_MIN, SHARDS_MAX = 2, 4
POLL_S = 0.1
CONTROLLER_BACK_MS = 8_000
REPLICAS_MAX = 2
WEIGHTS = (0.5, 1, 2)
SAMPLES = ("3", "5", "7", "10")
SLOW_MOVES = 500  # keys/s: slots then change hands a few at a time, so that faults hit a move
HURRY_BOUND_MS = 30_000


@dataclass(frozen=True, slots=True)
class _Hung:
    """A replica that was stopped."""

    seen: Seen
    in_step: bool  # it had all that its master had
    since_ms: int


@dataclass(kw_only=True)
class ProcessBefaller(Befaller):
    """One round's."""

    store: ProcessStore
    faults: Collection[str] = tuple(FAULTS)
    _hung: dict[str, _Hung] = field(default_factory=dict)  # by name
    _sole: set[str] = field(default_factory=set)  # shards of which one replica has all that is left

    def does(self) -> dict[str, Callable[[Fault], Awaitable[str]]]:
        """All kinds of faults."""
        return {
            "kill master": self._kill_master,
            "kill replica": self._kill_replica,
            "kill shard": self._kill_shard,
            "kill all": self._kill_all,
            "end node": self._end_node,
            "lose disk": self._lose_disk,
            "hang master": self._hang_master,
            "hang replica": self._hang_replica,
            "slow node": self._slow_node,
            "cut clients": self._cut_clients,
            "cut replication": self._cut_replication,
            "switch over": self._switch_over,
            "kill gateway": self._gateway,
            "hang gateway": self._gateway,
            "hang controller": self._hang_controller,
            "controller dies": self._controller_dies,
        }

    async def phase(self) -> str:
        """The state's reason."""
        runs = self.store.controller_runs()
        return str(self.store.state.get("reason")) if runs else "no controller"

    async def end_faults(self) -> None:
        """Wake all nodes and the controller, and let moves be fast."""
        for node in self.store.nodes():
            if node.name in self.store.stopped:
                self.store.signal_node(node, signal.SIGCONT)
        self.store.stopped.clear()
        self.store.start_controller()
        await self._hurry()

    async def _hurry(self) -> None:
        """Lift the limit on moves, which is there only for faults to find one under way."""
        ends_ms = now_ms() + HURRY_BOUND_MS
        while now_ms() < ends_ms:
            document = copy.deepcopy(self.store.desired())
            if not document["spec"]["rebalance"]["maxKeysPerSecond"]:
                return
            document["spec"]["rebalance"]["maxKeysPerSecond"] = 0
            with contextlib.suppress(Trouble):
                await self.store.control("PUT", "/spec", document)
            await asyncio.sleep(POLL_S)

    async def _may_end(
        self, *, master: bool | None = None, copied: bool = False
    ) -> tuple[list[Seen], list[Seen]]:
        """(all that answer, those whose process may end)."""
        nodes = await self.store.look()
        self._sole -= {node.shard for node in nodes if node.slots}
        return nodes, [
            node
            for node in nodes
            if master in {None, node.is_master}
            and node.shard not in self._sole
            and ((node.on_disk and not copied) or self.copied(nodes, node))
        ]

    # -- nodes ------------------------------------------------------------------------------

    async def _kill(self, fault: Fault, *, master: bool) -> str:
        nodes, candidates = await self._may_end(master=master)
        node = self.pick(fault, candidates)
        if node is None:
            return ""
        self.ends(nodes, node)
        self.store.signal_node(node.record, signal.SIGKILL)
        self.await_write(fault, self.masters_of(nodes, node))
        return f"{node.name}{'' if self.copied(nodes, node) else ', the only copy'}"

    async def _kill_master(self, fault: Fault) -> str:
        return await self._kill(fault, master=True)

    async def _kill_replica(self, fault: Fault) -> str:
        return await self._kill(fault, master=False)

    async def _end_node(self, fault: Fault) -> str:
        """SIGTERM: it hands over nothing, but writes down all it has."""
        nodes, candidates = await self._may_end()
        node = self.pick(fault, candidates)
        if node is None:
            return ""
        if not self.copied(nodes, node):
            self.ends(nodes, node)
        self.store.signal_node(node.record, signal.SIGTERM)
        self.await_write(fault, self.masters_of(nodes, node))
        return str(node.name)

    async def _lose_disk(self, fault: Fault) -> str:
        """Also of a replica that hangs, and of a master whose only replica hangs."""
        nodes, candidates = await self._may_end(copied=True)
        stopped = [hung.seen for hung in self._hung.values() if self.masters_of(nodes, hung.seen)]
        heirs = {hung.seen.shard: hung for hung in self._hung.values() if hung.in_step}
        left = [node for node in nodes if node.slots and node.shard in heirs]
        candidates += [*stopped, *(node for node in left if node not in candidates)]
        node = self.pick(fault, [node for node in candidates if node.shard not in self._sole])
        if node is None:
            return ""
        self.ends(nodes, node)
        heir = heirs.get(node.shard)
        if node.is_master:  # until its heir leads: what that has on disk may be of any age then
            self._sole.add(node.shard)
            if heir is not None and not self.in_step(nodes, node):
                self._left_to(heir, node)
        self._hung.pop(node.name, None)
        self.store.lose_disk(node.record)
        self.await_write(fault, self.masters_of(nodes, node))
        return f"{node.name}{f', {heir.seen.name} hangs' if heir else ''}"

    def _left_to(self, heir: _Hung, master: Seen) -> None:
        """What a master took since its replica hung is gone, and what had moved in meanwhile."""
        at_ms, hit = now_ms(), self.all_keys_in([master])
        on_their_way = self.all_keys_in([dataclasses.replace(master, slots=SlotSet())])
        self.taken.append(Taken(Cause.FORCED, hit, at_ms, heir.since_ms - TAIL_MS))
        self.taken.append(Taken(Cause.FORCED, on_their_way, at_ms, 0))

    async def _kill_these(self, fault: Fault, shards: set[str]) -> str:
        """All copies at once; only where they are on disk."""
        nodes = await self.store.look()
        hit = [node for node in nodes if node.shard in shards]
        records = [record for record in self.store.nodes() if record.shard in shards]
        if len(hit) < len(records) or not all(node.on_disk for node in hit) or self._sole & shards:
            return ""
        for node in hit:
            if node.is_master:
                before_ms = AOF_MS if self.in_step(nodes, node) else STALE_MS
                self.take(node, before_ms, Cause.LAST_COPY)
        for record in records:
            self.store.signal_node(record, signal.SIGKILL)
        self.await_write(fault, hit)
        return ", ".join(sorted(shards))

    async def _kill_shard(self, fault: Fault) -> str:
        shard = self.pick(fault, sorted({node.shard for node in self.store.nodes()}))
        if not self.store.storage or shard is None:
            return ""
        return await self._kill_these(fault, {shard})

    async def _kill_all(self, fault: Fault) -> str:
        if not self.store.storage:
            return ""
        return await self._kill_these(fault, {node.shard for node in self.store.nodes()})

    # -- hanging, slow and cut ones ---------------------------------------------------------

    async def _hang_master(self, fault: Fault) -> str:
        nodes = await self.store.look()
        node = self.pick(fault, [node for node in nodes if node.is_master])
        if node is None:
            return ""
        hit = self.all_keys_in([node])
        long = fault.lasts >= MAY_FAIL_OVER_MS
        if long:
            self.ends(nodes, node)
        self.store.signal_node(node.record, signal.SIGSTOP)

        def go_on() -> None:
            self.store.signal_node(node.record, signal.SIGCONT)
            at_ms = now_ms()
            if long:
                self.taken.append(Taken(Cause.FORCED, hit, at_ms + WAKES_MS, at_ms))

        self.later(fault.lasts, go_on)
        self.await_write(fault, [node])
        return f"{node.name}{'' if self.copied(nodes, node) else ', the only copy'}"

    async def _hang_replica(self, fault: Fault) -> str:
        nodes = await self.store.look()
        node = self.pick(fault, [node for node in nodes if not node.is_master])
        if node is None:
            return ""
        masters = self.masters_of(nodes, node)
        in_step = node.link_up and node.master in {other.record.address for other in masters}
        self._hung[node.name] = _Hung(node, in_step, now_ms())
        self.store.signal_node(node.record, signal.SIGSTOP)

        def go_on() -> None:
            self._hung.pop(node.name, None)
            self.store.signal_node(node.record, signal.SIGCONT)

        self.later(fault.lasts, go_on)
        self.await_write(fault, masters)
        return str(node.name)

    async def _slow_node(self, fault: Fault) -> str:
        nodes = await self.store.look()
        node = self.pick(fault, nodes)
        if node is None:
            return ""

        async def stutter() -> None:
            until_ms = now_ms() + fault.lasts
            while now_ms() < until_ms:
                self.store.signal_node(node.record, signal.SIGSTOP)
                await asyncio.sleep(SLOW_STOPPED_S)
                self.store.signal_node(node.record, signal.SIGCONT)
                await asyncio.sleep(SLOW_RUNS_S)

        self.meanwhile(stutter())
        self.await_write(fault, self.masters_of(nodes, node))
        return str(node.name)

    async def _cut_clients(self, fault: Fault) -> str:
        """Every client of a node loses its connection: gateway, controller, ours."""
        nodes = await self.store.look()
        node = self.pick(fault, nodes)
        if node is None:
            return ""
        with contextlib.suppress(Trouble):
            await ask_node(self.store, node.record, ("CLIENT", "KILL", "TYPE", "normal"))
        self.await_write(fault, self.masters_of(nodes, node))
        return str(node.name)

    async def _cut_replication(self, fault: Fault) -> str:
        nodes = await self.store.look()
        node = self.pick(fault, [node for node in nodes if node.is_master])
        if node is None:
            return ""
        await ask_node(self.store, node.record, ("CLIENT", "KILL", "TYPE", "replica"))
        self.await_write(fault, [node])
        return str(node.name)

    async def _switch_over(self, fault: Fault) -> str:
        """Somebody asks a replica to take over in good order."""
        nodes = await self.store.look()
        node = self.pick(fault, [node for node in nodes if node.link_up and not node.is_master])
        if node is None:
            return ""
        await ask_node(self.store, node.record, ("CLUSTER", "FAILOVER"))
        return str(node.name)

    # -- ours -------------------------------------------------------------------------------

    async def _gateway(self, fault: Fault) -> str:
        kills = fault.kind == "kill gateway"
        number = signal.SIGKILL if kills else signal.SIGSTOP
        if not self.store.signal_gateway(number):
            return ""
        if not kills:
            self.later(fault.lasts, self.store.wake_gateway)
        self.await_gateway(fault)
        return "the gateway"

    async def _hang_controller(self, fault: Fault) -> str:
        if not self.store.controller_runs():
            return ""
        self.store.signal_controller(signal.SIGSTOP)
        self.later(fault.lasts, lambda: self.store.signal_controller(signal.SIGCONT))
        return "the controller"

    async def _controller_dies(self, fault: Fault) -> str:
        if not self.store.controller_runs():
            return ""
        self.store.signal_controller(signal.SIGKILL)
        self.later(fault.lasts, self.store.start_controller)
        return "the controller"

    # -- wishes -----------------------------------------------------------------------------

    async def wish(self, fault: Fault) -> str:
        """What people ask of the controller; raises Trouble when it refuses or isn't there."""
        await self._controller_back()
        document = copy.deepcopy(self.store.desired())
        spec: Document = document["spec"]
        shards = [shard["name"] for shard in self.store.state.get("shards", ())]
        if fault.kind == "scale out":
            if spec["shards"] >= SHARDS_MAX:
                return ""
            answer = await self.store.control("POST", "/add_shard")
            return str(answer["message"])
        if fault.kind in {"scale in", "retire"}:
            if spec["shards"] <= SHARDS_MIN or not shards:
                return ""
            shard = shards[-1] if fault.kind == "scale in" else self.pick(fault, shards)
            answer = await self.store.control("POST", "/remove_shard", {"node": shard})
            return str(answer["message"])
        if fault.kind == "rebalance":
            return str((await self.store.control("POST", "/rebalance"))["message"])
        if not self._edit(fault, spec, shards):
            return ""
        await self.store.control("PUT", "/spec", document)
        return "the spec is changed"

    async def _controller_back(self) -> None:
        """People try again while nobody answers, for a while."""
        ends_ms = now_ms() + CONTROLLER_BACK_MS
        while now_ms() < ends_ms:
            with contextlib.suppress(Trouble):
                await self.store.control("GET", "/state")
                return
            await asyncio.sleep(POLL_S)

    def _edit(self, fault: Fault, spec: Document, shards: list[str]) -> bool:
        """Change the spec; False when this wish means nothing now."""
        if fault.kind == "weigh":
            weights = spec["ring"].setdefault("weights", {})
            if not shards:
                return False
            shard = self.pick(fault, shards)
            weights[shard] = WEIGHTS[(WEIGHTS.index(weights.get(shard, 1)) + 1) % len(WEIGHTS)]
        elif fault.kind == "settings":
            spec.setdefault("config", {})["maxmemory-samples"] = self.pick(fault, list(SAMPLES))
        elif fault.kind == "slow moves":
            spec["rebalance"]["maxKeysPerSecond"] = SLOW_MOVES
        elif fault.kind == "replica more":
            spec["replicasPerShard"] = REPLICAS_MAX
        elif fault.kind == "replica less":
            spec["replicasPerShard"] = 1
        return True
