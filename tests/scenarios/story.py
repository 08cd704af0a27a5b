"""Read a story (`*.txt`) and live it on the paper cluster.

A file is blocks parted by blank lines.  A block with a line `----` is verbs above it and what they
are expected to print below; a block without one is prose.  Verbs are methods `do_…` below.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Wait
from shardcluster.decide.views import remarks
from shardcluster.observed import PeerView, Role
from shardcluster.picture import draw
from shardcluster.preview import preview
from shardcluster.slots import SlotSet
from tests.scenarios.drive import decide_checked, run, spec_of, step
from tests.scenarios.paper import PaperCluster
from tests.scenarios.paper_actions import apply_partly
from tests.scenarios.paper_checks import assert_safe, effective_slots, safety
from tests.scenarios.paper_node import Process, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shardcluster.spec import Spec

__all__ = ["live", "rewritten"]

MARK = "----"
FIELDS = {"shards": int, "replicas": int}
STORAGE = {"size": "1Gi"}


def rewritten(path: Path) -> str:
    """The file's text as it should be, by what really happens."""
    return "\n\n".join(expected for _, expected in live(path)) + "\n"


def live(path: Path) -> Iterator[tuple[str, str]]:
    """Each block as it stands in the file, and as it should."""
    teller = Teller()
    for block in path.read_text().strip("\n").split("\n\n"):
        lines = block.strip("\n").split("\n")
        if MARK not in lines:
            yield block, block
            continue
        verbs = lines[: lines.index(MARK)]
        told = list(itertools.chain.from_iterable(teller.tell(verb) for verb in verbs))
        yield block, "\n".join([*verbs, MARK, *(told or ["ok"])])


def describe(decision: Decision) -> str:
    """One decision in a line."""
    action = "" if isinstance(decision.action, Wait) else f"{type(decision.action).__name__} "
    mark = "" if decision.healthy else " (!)"
    return f"{decision.reason.value}{mark}: {action}- {decision.sentence}"


def collapsed(lines: list[str]) -> list[str]:
    """Repeated lines once, with their number where it means something."""
    return [line for line, _ in itertools.groupby(lines)]


@dataclass
class Teller:
    """The world of one story and the spec that holds at the moment."""

    cluster: PaperCluster = field(default_factory=PaperCluster)
    wishes: dict[str, object] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """What is wanted now."""
        return spec_of(**self.wishes)  # type: ignore[arg-type]

    def tell(self, line: str) -> list[str]:
        """Do one verb; returns the lines it prints."""
        verb, *words = line.split()
        found = getattr(self, "do_" + verb.replace("-", "_"))(*words)
        return [] if found is None else list(found)

    # -- the store and what is wanted of it -------------------------------------------------

    def do_cluster(self, *words: str) -> None:
        """A new world: `cluster shards=3 replicas=1 [no-storage] [static] [spare=N] [formed]`."""
        self.cluster = PaperCluster(storage="no-storage" not in words)
        self.wishes = {} if "no-storage" in words else {"storage": STORAGE}
        if "static" in words:
            self.cluster.can_fence = self.cluster.can_restart = self.cluster.proves_end = False
        if "old-engine" in words:
            self.cluster.replicas_know_open_slots = False
        flags = {"no-storage", "static", "formed", "old-engine"}
        for word in words:
            if word.startswith("spare="):
                self.cluster.spare_nodes = int(word.removeprefix("spare="))
            elif word not in flags:
                self.do_spec(word)
        if "formed" in words:
            run(self.cluster, self.spec)
            self.cluster.fill()
            run(self.cluster, self.spec)

    def do_spec(self, *words: str) -> None:
        """Want something else: `spec shards=4 retire=shard-1 paused mode=manual memory=1Gi`."""
        for word in words:
            name, _, value = word.partition("=")
            if name in FIELDS:
                self.wishes[name] = int(value)
            elif name == "retire":
                self.wishes["retire"] = value.split(",") if value else []
            elif name == "paused":
                self.wishes["paused"] = value != "no"
            elif name == "mode":
                self.wishes["rebalance"] = {"mode": value}
            elif name == "memory":
                self.wishes["resources"] = {"limits": {"memory": value}}
            elif name == "timeout":
                self.wishes["failover"] = {"nodeTimeoutMs": int(value)}
            else:
                raise ValueError(word)

    def do_decide(self) -> list[str]:
        """What would be done next."""
        return [describe(decide_checked(self.spec, self.cluster.observe()))]

    def do_step(self, count: str = "1") -> list[str]:
        """Decide and do, some times."""
        return [describe(step(self.cluster, self.spec)) for _ in range(int(count))]

    def do_run(self, *words: str) -> list[str]:
        """Decide and do until the store rests; prints the decisions and what stands there."""
        decisions = run(self.cluster, self.spec)
        told = [] if "quietly" in words else [describe(decision) for decision in decisions]
        return [*collapsed(told), *self.do_state()]

    def do_interrupt(self, sub_steps: str) -> list[str]:
        """Do a part of the next action; then the controller is killed and another follows."""
        decision = decide_checked(self.spec, self.cluster.observe())
        before = safety(self.cluster)
        whole = apply_partly(self.cluster, decision.action, int(sub_steps))
        assert whole, f"{decision} has fewer sub-steps"
        self.cluster.tick(10)
        assert_safe(before, self.cluster)
        self.cluster.new_controller()
        return [f"{describe(decision)} (killed after {sub_steps})"]

    def do_preview(self, *words: str) -> list[str]:
        """What another spec would lead to: words as of `spec`."""
        other = Teller(self.cluster, dict(self.wishes))
        other.do_spec(*words)
        found = preview(draw(self.spec, self.cluster.observe()), other.spec)
        moves = [f"{source} → {target} {len(slots)}" for source, target, slots in found.moves]
        return [f"{found.slots} slots: {', '.join(moves) or 'none'}",
                f"start: {' '.join(found.start_nodes) or 'none'}",
                f"stop: {' '.join(found.stop_nodes) or 'none'}"]  # fmt: skip

    def do_state(self) -> list[str]:
        """What stands there: shards, owners, keys, who follows whom."""
        owners = effective_slots(self.cluster)
        shards: dict[str, list[str]] = {}
        for node in sorted(
            self.cluster.nodes.values(), key=lambda node: (node.shard, node.ordinal)
        ):
            words = [node.name]
            if node.process is not Process.RUNNING:
                words.append(node.process.name.lower())
            if node.role is Role.REPLICA:
                master = self.cluster.by_id(node.master_id)
                words.append(f"follows {master.name if master else 'nobody'}")
            else:
                words.append("master")
            if node.name in owners:
                words.append(f"{len(owners[node.name])} slots")
            words.append(f"{len(node.keys)} keys")
            if node.migrating or node.importing:
                words.append(f"open {len(node.migrating)} out {len(node.importing)} in")
            shards.setdefault(node.shard, []).append(" ".join(words))
        return [f"  {shard}: {'; '.join(nodes)}" for shard, nodes in shards.items()]

    def do_notes(self) -> list[str]:
        """What is odd but harmless."""
        return list(remarks(draw(self.spec, self.cluster.observe()))) or ["nothing to remark"]

    # -- what happens -----------------------------------------------------------------------

    def do_kill(self, *names: str) -> None:
        """Processes end."""
        for name in names:
            self.cluster.end(name)
        self.cluster.tick(10)

    def do_lose_disk(self, *names: str) -> None:
        """Processes end and what they had stored is gone."""
        for name in names:
            self.cluster.lose_disk(name)
        self.cluster.tick(10)

    def do_hang(self, *names: str) -> None:
        """Processes are stopped by SIGSTOP."""
        for name in names:
            self.cluster.hang(name)
        self.cluster.tick(10)

    def do_resume(self, *names: str) -> None:
        """Processes go on after SIGCONT."""
        for name in names:
            self.cluster.resume(name)
        self.cluster.tick(10)

    def do_begin(self, *names: str) -> None:
        """Ended processes are started again by somebody."""
        for name in names:
            self.cluster.begin(name)
        self.cluster.tick(10)

    def do_begin_fresh(self, *names: str) -> None:
        """The same under new ids, with nothing on disk."""
        for name in names:
            self.cluster.begin(name, fresh=True)
        self.cluster.tick(10)

    def do_begin_elsewhere(self, *names: str) -> None:
        """The same at other addresses."""
        for name in names:
            self.cluster.move_to_new_address(name)
        self.do_begin_fresh(*names)

    def do_restart_all(self, *words: str) -> None:
        """Every node ends and starts, `addresses=new` elsewhere; the controller is a new one."""
        for name in list(self.cluster.nodes):
            self.cluster.end(name)
        for name in list(self.cluster.nodes):
            if "addresses=new" in words:
                self.cluster.move_to_new_address(name)
            self.cluster.begin(name, fresh="fresh" in words)
        self.cluster.new_controller()
        self.cluster.tick(10)

    def do_end_all(self) -> None:
        """Every process ends."""
        self.do_kill(*self.cluster.nodes)

    def do_wait(self, milliseconds: str) -> None:
        """Time passes."""
        self.cluster.tick(int(milliseconds))

    def do_set(self, name: str, *words: str) -> None:
        """Change a node: `set shard-0-0 rejecting loading stale no-offset key=5 …`."""
        node = self.cluster.nodes[name]
        for word in words:
            what, _, value = word.partition("=")
            if what in {"rejecting", "loading", "cut_off", "syncing", "link_up"}:
                setattr(node, what, value != "no")
                node.silent_since_ms = self.cluster.now_ms
            elif what == "stale":  # its link broke so long ago
                node.link_up = False
                node.link_down_since_ms = self.cluster.now_ms - int(value)
            elif what == "offset":
                node.offset = int(value)
            elif what == "keys":
                node.keys = set(range(int(value)))
            elif what == "pending":
                node.pending, node.process = value.replace("_", " "), Process.ENDED
            elif what == "started":
                node.pending = ""
                self.cluster.begin(name)
            else:
                node.config[what] = value

    def do_open(self, name: str, *words: str) -> None:
        """Open slots: `open shard-0-0 importing=5 from=shard-1-0`, or `migrating=5 to=…`."""
        fields = dict(word.split("=") for word in words)
        node = self.cluster.nodes[name]
        if "importing" in fields:
            other = self.cluster.nodes.get(fields["from"])
            book, slot = node.importing, int(fields["importing"])
        else:
            other = self.cluster.nodes.get(fields["to"])
            book, slot = node.migrating, int(fields["migrating"])
        book[slot] = other.node_id if other else "e" * 40
        self.cluster.tick(0)

    def do_unheard(self, name: str) -> None:
        """A replica has not heard yet what its master owns."""
        node = self.cluster.nodes[name]
        assert node.master_id is not None
        line = node.lines[node.master_id]
        node.lines[node.master_id] = dataclasses.replace(line, slots=SlotSet(), config_epoch=0)

    def do_split(self, name: str) -> None:
        """A replica is a master of its own, of no slot."""
        node = self.cluster.nodes[name]
        node.role, node.master_id = Role.MASTER, None
        self.cluster.tick(0)

    def do_hand_keys(self, source: str, target: str, slot: str) -> None:
        """One of a slot's two keys went over already."""
        key = min(keys_of(SlotSet.of([int(slot)])))
        self.cluster.nodes[source].keys.discard(key)
        self.cluster.nodes[target].keys.add(key)
        self.cluster.tick(0)

    def do_disown(self, name: str, ranges: str) -> None:
        """A node loses slots without anybody getting them."""
        node = self.cluster.nodes[name]
        node.slots -= SlotSet.parse(ranges.replace(",", " "))
        self.cluster.tick(0)

    def do_claim(self, name: str, ranges: str) -> None:
        """A node claims slots at an epoch of its own; nobody has heard of it yet."""
        self.cluster.nodes[name].slots |= SlotSet.parse(ranges.replace(",", " "))

    def do_past(self, name: str, past: str) -> None:
        """What the next node in that place brings along: leftover, foreign, pending."""
        self.cluster.past[name] = past

    def do_stranger(self, name: str, *words: str) -> None:
        """A node joins behind our back: `stranger alien-0 [slots=5 from=shard-0-0]`."""
        fields = dict(word.split("=") for word in words)
        node = self.cluster.start_node(name, listed=False)
        hub = next(other for other in self.cluster.nodes.values() if other.running)
        hub.handshakes.add(node.address)
        self.cluster.tick(10)
        if "slots" in fields:
            node.slots = SlotSet.parse(fields["slots"])
            node.epoch = self.cluster.next_epoch(node)
            node.keys = keys_of(node.slots)
        self.cluster.tick(10)

    def do_drop(self, name: str) -> None:
        """The platform lists a place no more; the process is gone."""
        del self.cluster.nodes[name]
        self.cluster.remembered.pop(name, None)
        self.cluster.led.pop(name, None)
        self.cluster.tick(10)

    def do_spare(self, count: str) -> None:
        """So many spare nodes are there."""
        self.cluster.spare_nodes = int(count)

    def do_ask_rebalance(self) -> None:
        """Somebody asked for /rebalance."""
        self.cluster.rebalance_asked = True

    def do_new_controller(self) -> None:
        """The controller is killed and another follows."""
        self.cluster.new_controller()

    def do_forget_formation(self) -> None:
        """The platform's mark is gone."""
        self.cluster.formed_before = False

    def do_unknown_line(self, name: str, flag: str) -> None:
        """A node believes in a peer that never was."""
        node = self.cluster.nodes[name]
        fake = PeerView("e" * 40, node.address, frozenset({flag, "master"}), None, 0, 0,
                        link_up=False, slots=SlotSet())  # fmt: skip
        node.lines[fake.node_id] = fake

    def do_moved_twice(self) -> list[str]:
        """Slots that changed their owner more than once since the last question."""
        twice = sorted(slot for slot, count in self.cluster.moved.items() if count > 1)
        told = f"{len(self.cluster.moved)} slots moved, {len(twice)} of them more than once"
        self.cluster.moved.clear()
        return [told]
