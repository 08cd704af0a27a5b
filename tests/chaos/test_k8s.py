"""The Kubernetes tier without a Kubernetes: schedules, excuses, what is told to and from the pod.

With one: `make chaos TIER=k8s`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from shardcluster.observed import Address
from shardcluster.slots import SlotSet
from tests.chaos.figures import Figures, markdown
from tests.chaos.history import Kind, Operation, Outcome
from tests.chaos.k8s_befaller import ENDS_WITHIN_MS, K8sBefaller, Scene
from tests.chaos.k8s_calm import resource_lacks
from tests.chaos.k8s_documents import (
    reading_document,
    reading_of,
    seen_document,
    seen_of,
    written_document,
    written_of,
)
from tests.chaos.k8s_faults import NODE_KINDS
from tests.chaos.k8s_ground import PodSeen
from tests.chaos.k8s_inside import _leads
from tests.chaos.k8s_logs import _Log
from tests.chaos.k8s_machines import OTHER_KINDS, _copied_elsewhere, _machine_takes, _split
from tests.chaos.k8s_nemesis import (
    BLOCK,
    FAULTS,
    LASTS,
    NEED_RIG,
    NEED_STORAGE,
    WISHES,
    k8s_schedule,
)
from tests.chaos.k8s_pod import needed_files
from tests.chaos.k8s_stage import K8S_TIER
from tests.chaos.k8s_wishes import SHARDS_MAX, SHARDS_MIN, edit, wish
from tests.chaos.look import NOBODY, Seen
from tests.chaos.nemesis import Fault, load, save
from tests.chaos.process_stage import PROCESS_TIER
from tests.chaos.reach import NodeRecord
from tests.chaos.readout import Reading
from tests.chaos.rounds import RoundReport
from tests.chaos.taken import STALE_MS, TAIL_MS, Takeover
from tests.chaos.writers import Written

if TYPE_CHECKING:
    from tests.chaos.k8s_ground import Ground

ROOT = Path(__file__).resolve().parents[2]


def test_a_seed_is_the_same_schedule_each_time(tmp_path: Path) -> None:
    """Which can be written down and replayed."""
    plan = k8s_schedule(7)
    assert k8s_schedule(7) == plan != k8s_schedule(8)
    save(plan, tmp_path / "schedule.json")
    assert load(tmp_path / "schedule.json") == plan


def test_schedules_hold_every_kind_in_order() -> None:
    """Each fault and each wish is drawn; what lasts lasts within its limits."""
    plans = [k8s_schedule(seed) for seed in range(100)]
    drawn = [fault for plan in plans for fault in plan.faults]
    assert {fault.kind for fault in drawn} == FAULTS.keys() | WISHES.keys()
    for fault in drawn:
        low, high = LASTS.get(fault.kind, (0, 0))
        assert low <= fault.lasts <= high
    for plan in plans:
        moments = [fault.at_ms for fault in plan.faults]
        assert moments == sorted(moments)
        assert moments[-1] < 240_000


def test_half_of_the_stores_have_volumes() -> None:
    """A block of seeds shares a store."""
    stored = [k8s_schedule(seed).world.storage for seed in range(4 * BLOCK)]
    assert stored == ([True] * BLOCK + [False] * BLOCK) * 2


def test_every_kind_of_fault_has_its_work() -> None:
    """None is left out, none is there in vain."""
    assert NODE_KINDS.keys() | OTHER_KINDS.keys() == FAULTS.keys()
    assert not NODE_KINDS.keys() & OTHER_KINDS.keys()
    assert LASTS.keys() | NEED_RIG | NEED_STORAGE <= FAULTS.keys()


def test_in_memory_nothing_is_drawn_that_needs_a_disk() -> None:
    """Nor would it befall anybody."""
    plans = [k8s_schedule(seed) for seed in range(40)]
    drawn = {fault.kind for plan in plans if not plan.world.storage for fault in plan.faults}
    assert not drawn & NEED_STORAGE


# -- wishes ---------------------------------------------------------------------------------

SPEC: dict[str, Any] = {"shards": 3, "replicasPerShard": 1, "image": "valkey/valkey:8.1"}
SHARDS = ["shard-0", "shard-1", "shard-2"]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("scale out", {"shards": 4}),
        ("scale in", {"shards": 2}),
        ("retire", {"shards": 2, "retire": ["shard-1"]}),
        ("weigh", {"ring": {"weights": {"shard-1": 2}}}),
        ("replica more", {"replicasPerShard": 2}),
        ("replica less", {}),
        ("settings", {"config": {"maxmemory-samples": "7"}}),
        ("slow moves", {"rebalance": {"maxKeysPerSecond": 300}}),
    ],
)
def test_a_wish_is_a_change_of_the_spec(kind: str, change: dict[str, Any]) -> None:
    """Of the fields that it is about, or of none when it means nothing now."""
    assert edit(Fault(0, kind, 0.5), SPEC, SHARDS) == change


def test_a_store_stays_within_its_bounds() -> None:
    """And a shard that was retired is not retired again."""
    assert not edit(Fault(0, "scale out", 0.5), {**SPEC, "shards": SHARDS_MAX}, SHARDS)
    assert not edit(Fault(0, "retire", 0.5), {**SPEC, "shards": SHARDS_MIN}, SHARDS)
    again = edit(Fault(0, "retire", 0.5), {**SPEC, "retire": ["shard-1"]}, SHARDS)
    assert again == {"shards": 2, "retire": ["shard-1", "shard-2"]}


def test_an_upgrade_goes_to_the_other_image_and_back() -> None:
    """So that each one is an upgrade."""
    there = edit(Fault(0, "upgrade", 0.5), SPEC, SHARDS)
    back = edit(Fault(0, "upgrade", 0.5), {**SPEC, **there}, SHARDS)
    assert there["image"] != back["image"] == SPEC["image"]


# -- who may be hit, and what that takes ----------------------------------------------------


def _node(name: str, *, follows: str = "", **other: Any) -> Seen:
    slots = SlotSet() if follows else SlotSet.of(range(16_384))
    found: dict[str, Any] = {"link_up": bool(follows), "on_disk": False, "open_slots": SlotSet()}
    return Seen(
        record=NodeRecord(name, Address(name, 6379)),
        is_master=not follows,
        master=Address(follows, 6379) if follows else NOBODY,
        slots=slots,
        **{**found, **other},
    )


def _scene(*nodes: Seen, machines: tuple[str, ...] = ()) -> Scene:
    places = machines or tuple(f"m{number}" for number in range(len(nodes)))
    pods = {
        node.name: PodSeen(
            node.name, node.name, machine, ending=False, document={"metadata": {"uid": "first"}}
        )
        for node, machine in zip(nodes, places, strict=True)
    }
    return Scene(pods, list(nodes))


def _befaller(*ending: str, storage: bool = False) -> K8sBefaller:
    ground = cast("Ground", SimpleNamespace(storage=storage))
    made = K8sBefaller(
        keys=("register-1",), ballast=(), ground=ground, kinds=NODE_KINDS, wishes=wish
    )
    made.ending = frozenset(ending)
    return made


MASTER, REPLICA = _node("shard-0-0"), _node("shard-0-1", follows="shard-0-0")


def test_in_memory_only_what_has_a_copy_may_end() -> None:
    """One that is itself ending is no copy."""
    both = _scene(MASTER, REPLICA)
    assert _befaller().may_end(both) == [MASTER, REPLICA]
    assert _befaller("shard-0-1").may_end(both) == []
    assert _befaller("shard-0-0").may_end(both) == []
    assert _befaller().may_end(_scene(MASTER)) == []
    behind = _node("shard-0-1", follows="shard-0-0", link_up=False)
    assert _befaller().may_end(_scene(MASTER, behind)) == [behind]


def test_what_is_on_disk_may_end_without_a_copy() -> None:
    """But not lose its disk."""
    alone = _node("shard-0-0", on_disk=True)
    assert _befaller().may_end(_scene(alone)) == [alone]
    assert _befaller().may_end(_scene(alone), copied=True) == []


class _Still:
    """A store that looks always the same."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def pods(self) -> list[PodSeen]:
        return list(self._scene.pods.values())

    async def look(self, pods: list[PodSeen]) -> list[Seen]:
        del pods
        return self._scene.nodes


async def test_a_shard_with_one_volume_left_is_spared_until_it_has_two() -> None:
    """That is when the node whose volume goes has another pod, and its shard is in step."""
    befaller = _befaller(storage=True)
    scenes = [
        _scene(MASTER, REPLICA),
        _scene(MASTER, _node("shard-0-1", follows="shard-0-0", link_up=False)),
        _scene(MASTER, REPLICA),
    ]
    for pod in (scenes[1].pods["shard-0-1"], scenes[2].pods["shard-0-1"]):
        pod.document["metadata"]["uid"] = "second"
    befaller.doomed["shard-0-1"] = "first"
    hit = []
    for scene in scenes:
        befaller.ground = cast("Ground", _Still(scene))
        hit.append(bool(befaller.may_end(await befaller.see())))
    assert hit == [False, False, True]


def test_a_master_takes_its_last_moment_with_it() -> None:
    """A longer one when no replica was in step; until it has surely ended."""
    befaller = _befaller()
    (in_step,) = befaller.hit(_scene(MASTER, REPLICA), MASTER)
    (alone,) = befaller.hit(_scene(MASTER), MASTER)
    assert in_step.asked_until_ms - in_step.answered_since_ms == TAIL_MS
    assert alone.asked_until_ms - alone.answered_since_ms == STALE_MS
    assert in_step.keys == {"register-1"}
    in_step.asked_until_ms -= 100
    befaller.was_hit([in_step])
    assert in_step.asked_until_ms - in_step.answered_since_ms >= TAIL_MS
    assert [hit.shard for hit in befaller.hits] == ["shard-0", "shard-0"]


def test_a_replica_takes_nothing_unless_its_master_is_ending() -> None:
    """For then it may be followed by that replica as it was when it was hit."""
    befaller = _befaller()
    assert befaller.hit(_scene(MASTER, REPLICA), REPLICA) == []
    assert befaller.taken == []
    befaller.ending = frozenset({"shard-0-0"})
    assert befaller.hit(_scene(MASTER, REPLICA), REPLICA) == []
    (taken,) = befaller.taken
    assert taken.asked_until_ms - taken.answered_since_ms == TAIL_MS + ENDS_WITHIN_MS


def test_a_replica_that_was_cut_off_may_be_behind_since_then() -> None:
    """Gossip promotes it all the same; so all that came since is excused."""
    befaller = _befaller()
    befaller.apart_since_ms["shard-0"] = -60_000
    assert befaller.behind_ms("shard-0") > 60_000
    assert befaller.behind_ms("shard-1") == STALE_MS


def test_a_machine_dies_in_memory_only_with_copies_elsewhere() -> None:
    """Its nodes' data is in another machine's memory."""
    befaller = _befaller()
    apart = _scene(MASTER, REPLICA, machines=("m0", "m1"))
    assert _copied_elsewhere(befaller, apart, "m0")
    assert _copied_elsewhere(befaller, apart, "m1")
    assert _copied_elsewhere(befaller, apart, "m2")
    assert not _copied_elsewhere(befaller, _scene(MASTER, REPLICA, machines=("m0", "m0")), "m0")
    silent = Scene(apart.pods, [REPLICA])
    assert not _copied_elsewhere(befaller, silent, "m0")


def test_a_machine_with_all_copies_takes_what_the_disks_lack() -> None:
    """As if all its processes had been killed; one with a copy elsewhere takes a moment."""
    befaller = _befaller(storage=True)
    together = _scene(MASTER, REPLICA, machines=("m0", "m0"))
    (whole,) = _machine_takes(befaller, together, "m0", [MASTER, REPLICA])
    assert whole.asked_until_ms - whole.answered_since_ms > TAIL_MS
    apart = _scene(MASTER, REPLICA, machines=("m0", "m1"))
    (moment,) = _machine_takes(befaller, apart, "m0", [MASTER])
    assert moment.asked_until_ms - moment.answered_since_ms == TAIL_MS


def test_a_shard_is_split_when_it_has_nodes_on_both_sides() -> None:
    """Whether they answer or not."""
    apart = _scene(MASTER, REPLICA, machines=("m0", "m1"))
    assert _split(apart, MASTER, "m0")
    assert _split(apart, MASTER, "m1")
    assert not _split(apart, MASTER, "m2")
    assert not _split(_scene(MASTER, REPLICA, machines=("m0", "m0")), MASTER, "m0")


# -- the pod inside the cluster -------------------------------------------------------------


def test_what_was_written_comes_out_of_the_pod() -> None:
    """With its times on the campaign's clock."""
    operations = [
        Operation(1, "list-1", Kind.READ, Outcome.OK, 1_010, 1_020, (1, 2)),
        Operation(2, "register-1", Kind.SET, Outcome.UNKNOWN, 1_030, 1_040),
    ]
    written = Written(operations, {2}, Counter({"ERR": 1}), Counter({503: 1}))
    document = written_document(written, [Takeover("shard-1", 1_000, 1_100)])
    found, takeovers = written_of(json.loads(json.dumps(document)), 1_000)
    assert found.operations[0] == Operation(1, "list-1", Kind.READ, Outcome.OK, 10, 20, (1, 2))
    assert found.operations[1].ended_ms == 40
    assert (found.through_gateway, found.statuses) == ({2}, {503: 1})
    assert takeovers == [Takeover("shard-1", 0, 100)]


def test_what_was_seen_comes_out_of_the_pod() -> None:
    """Nodes, and what stands there at the end."""
    for node in (MASTER, REPLICA):
        assert seen_of(json.loads(json.dumps(seen_document(node)))) == node
    reading = Reading({"list-1": (1, 2), "register-1": None}, (("a", SlotSet.of([1])),), "differs")
    assert reading_of(json.loads(json.dumps(reading_document(reading)))) == reading


def test_the_pod_has_all_files_that_it_needs(tmp_path: Path) -> None:
    """The program is imported from them alone, beside our own packages."""
    for path, text in needed_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    ours = os.pathsep.join(str(ROOT / room) for room in ("core", "api"))
    done = subprocess.run(
        [sys.executable, "-c", "import tests.chaos.k8s_inside as it; print(it.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ours}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert sum(map(len, needed_files().values())) < 500_000  # a ConfigMap holds 1 MiB


@pytest.mark.parametrize(
    ("line", "leads"),
    [
        ("a 10.0.0.1:6379@16379 myself,master - 0 0 3 connected 0-5460", True),
        ("a 10.0.0.1:6379@16379 myself,master - 0 0 3 connected", False),
        ("a 10.0.0.1:6379@16379 myself,master - 0 0 3 connected [5->-b]", False),
        ("a 10.0.0.1:6379@16379 myself,slave b 0 0 3 connected", False),
        ("b 10.0.0.2:6379@16379 master - 0 0 3 connected 0-5460", False),
    ],
)
def test_a_node_leads_that_owns_slots(line: str, leads: bool) -> None:  # noqa: FBT001 - a case
    """An empty master that joins doesn't."""
    assert _leads(line) == leads


def test_a_log_that_is_read_again_has_each_line_once() -> None:
    """Reads begin at a whole second, so they overlap."""
    log = _Log("demo")
    log.add("2026-01-01T00:00:01.1Z a\n2026-01-01T00:00:01.2Z b\n")
    log.add("2026-01-01T00:00:01.2Z b\n2026-01-01T00:00:01.3Z c\n")
    assert [line.split()[1] for line in log.lines] == ["a", "b", "c"]


# -- the end of a round ---------------------------------------------------------------------


def _resource(**status: Any) -> dict[str, Any]:
    nodes = [{"health": "Up", "linkUp": True}] * 6
    words = {"Available": "True", "Progressing": "False", "Degraded": "False"}
    return {
        "metadata": {"generation": 2},
        "spec": SPEC,
        "status": {
            "observedGeneration": 2,
            "reason": "Idle",
            "message": "All is well.",
            "conditions": [{"type": kind, "status": word} for kind, word in words.items()],
            "shards": [{"slots": 5461}] * 3,
            "nodes": nodes,
            **status,
        },
    }


def test_a_store_is_calm_that_is_what_its_spec_asks_for() -> None:
    """Looked at, idle, whole and up."""
    assert not resource_lacks(_resource())
    assert "not looked at" in resource_lacks(_resource(observedGeneration=1))
    assert resource_lacks(_resource(reason="Updating")).startswith("Updating")
    assert resource_lacks(_resource(shards=[{"slots": 0}] * 3)).startswith("3 shards")
    assert resource_lacks(_resource(nodes=[])).startswith("0 nodes")
    away = [{"type": "Available", "status": "False"}]
    assert resource_lacks(_resource(conditions=away)).startswith("Available is False")


def test_both_tiers_are_on_one_page() -> None:
    """Each with its own kinds of faults and its seeds."""
    found = []
    for tier, seed in ((PROCESS_TIER, 1), (K8S_TIER, 9)):
        figures = Figures(tier)
        figures.add(RoundReport(tier.schedule(seed), counts=Counter({"kill master": 1})))
        found.append(json.loads(json.dumps(figures.document())))
    page = markdown(found)
    assert page.count("# Faults") == 1
    processes, kubernetes = page.split("## On Kubernetes")
    assert "| seeds | 1 |" in processes
    assert "| kill all | 0 |" in processes
    assert "| seeds | 9 |" in kubernetes
    assert "| lose volume | 0 |" in kubernetes
    assert "kill all" not in kubernetes


def test_nothing_is_awaited_where_no_key_was_hit() -> None:
    """A fault of a node without slots has no recovery."""
    befaller = _befaller()
    befaller.await_write(Fault(0, "kill replica", 0.0), [])
    assert not befaller.awaited
