"""What the tiers on real stores have in common: clients, excuses, recoveries, figures."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shardcluster.slots import SlotSet
from tests.chaos.befaller import Befaller
from tests.chaos.campaign import played, replayed
from tests.chaos.figures import Figures, markdown
from tests.chaos.history import Cause, History, Kind, Operation, Outcome, Readout, Value
from tests.chaos.nemesis import Fault, Schedule, World
from tests.chaos.process_nemesis import process_schedule
from tests.chaos.process_stage import PROCESS_TIER
from tests.chaos.recoveries import Awaited, recoveries
from tests.chaos.rounds import CALM_RESTS_S, RoundReport, Tier
from tests.chaos.taken import LATE_VOTE_MS, TAIL_MS, Hit, Taken, Takeover, excuse, late
from tests.chaos.writers import Written, command_of, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


@pytest.mark.parametrize(
    ("key", "reply", "value"),
    [
        ("register-1", None, None),
        ("register-1", b"7", 7),
        ("counter-1", None, 0),
        ("counter-1", "3", 3),
        ("list-1", [b"1", b"2"], (1, 2)),
        ("list-1", [], ()),
    ],
)
def test_replies_become_values(key: str, reply: object, value: object) -> None:
    """Over either way: bytes from the nodes, text from the gateway."""
    assert value_of(key, reply) == value


def test_a_read_fits_the_key() -> None:
    """Lists are read whole."""
    assert command_of(Kind.READ, "list-1", 0) == ("LRANGE", "list-1", 0, -1)
    assert command_of(Kind.READ, "counter-1", 0) == ("GET", "counter-1")
    assert command_of(Kind.APPEND, "list-1", 5) == ("RPUSH", "list-1", 5)


def _write(number: int, began_ms: int, ended_ms: int, outcome: Outcome = Outcome.OK) -> Operation:
    return Operation(number, "register-1", Kind.SET, outcome, began_ms, ended_ms)


def test_a_recovery_is_the_first_write_begun_after_the_fault() -> None:
    """Acknowledged, to a key that was hit, and through the gateway where that was hit."""
    written = Written(
        [
            _write(1, 90, 130),
            _write(2, 110, 150, Outcome.FAILED),
            _write(3, 160, 190),
            _write(4, 200, 260),
        ],
        through_gateway={4},
    )
    hit = frozenset({"register-1"})
    awaited = [
        Awaited("kill master", 100, hit),
        Awaited("kill gateway", 100, hit, through_gateway=True),
        Awaited("kill master", 100, frozenset({"register-2"})),
        Awaited("hang master", 250, hit),
    ]
    assert recoveries(awaited, written) == [("kill master", 90), ("kill gateway", 160)]


def test_of_what_ends_slowly_the_longest_time_without_a_write_counts() -> None:
    """For its first writes are answered by the old process."""
    moments = (10, 20, 30, 530, 540, 2_000)
    written = Written([_write(number, ms - 5, ms) for number, ms in enumerate(moments)])
    hit = frozenset({"register-1"})
    for within_ms, longest_ms in ((0, 10), (100, 500), (540, 1_460)):
        awaited = Awaited("delete pod", 0, hit, within_ms=within_ms)
        assert recoveries([awaited], written) == [("delete pod", longest_ms)]


def test_writes_are_excused_that_were_under_way_at_the_fault() -> None:
    """Asked for before its end, answered after its begin, of a key that was hit."""
    history = History([_write(1, 0, 10), _write(2, 20, 60), _write(3, 70, 80), _write(4, 95, 99)])
    taken = Taken(Cause.FORCED, frozenset({"register-1"}), 90, 50)
    excuse(history, [taken, Taken(Cause.LAST_COPY, frozenset({"register-2"}), 90, 0)])
    assert history.excused(history.operations) == {2, 3}


def test_a_takeover_takes_the_last_moment_only_of_a_shard_that_was_hit_before() -> None:
    """And not long ago: what is handed over later is handed over in good order."""
    keys = frozenset({"register-1"})
    hits = [Hit("shard-1", keys, 100)]
    takeovers = [
        Takeover("shard-1", 40, 60),
        Takeover("shard-2", 9_000, 9_100),
        Takeover("shard-1", 9_000, 9_100),
        Takeover("shard-1", 9_000, 100 + LATE_VOTE_MS + 1),
    ]
    assert late(takeovers, hits) == [Taken(Cause.FORCED, keys, 9_100 + TAIL_MS, 9_000 - TAIL_MS)]


# -- rounds ---------------------------------------------------------------------------------


class _Befaller(Befaller):
    """Nothing happens."""

    def does(self) -> dict[str, Callable[[Fault], Awaitable[str]]]:
        return {"kill master": self.wish}

    async def phase(self) -> str:
        return "Idle"

    async def wish(self, fault: Fault) -> str:
        return fault.kind

    async def end_faults(self) -> None:
        return


class _Stage:
    """A store that keeps what was written, or loses it."""

    def __init__(self, *, loses: bool) -> None:
        self.ballast: tuple[Operation, ...] = ()
        self.loses = loses
        self.forgotten: list[str] = []

    async def begin(self, plan: Schedule) -> Befaller:
        del plan
        return _Befaller(keys=("register-1",), ballast=(), faults=("kill master",))

    async def calm(self) -> str:
        return ""

    async def end_writing(self) -> tuple[Written, list[Takeover]]:
        return Written([_write(7, 0, 10)]), []

    async def read_out(self, keys: Sequence[str], sentence: str) -> Readout:
        values: dict[str, Value] = dict.fromkeys(keys, None if self.loses else 7)
        return Readout(values, (("a", SlotSet.full()),), not sentence, sentence)

    async def forget(self, keys: Sequence[str]) -> None:
        self.forgotten += keys

    async def keep(self, folder: Path) -> None:
        (folder / "kept").touch()


def _tier(stages: list[_Stage], *, loses: bool = False) -> Tier:
    @contextlib.asynccontextmanager
    async def stage(plan: Schedule) -> AsyncIterator[_Stage]:
        del plan
        stages.append(_Stage(loses=loses))
        yield stages[-1]

    def plan_of(seed: int) -> Schedule:
        faults = (Fault(0, "kill master", 0.5), Fault(0, "weigh", 0.5))
        return Schedule(seed, World(3, 1, storage=True, replicas_know_open_slots=True), faults)

    return Tier("test", {"kill master": 1}, {"weigh": 1}, plan_of, 2, stage, 0)


def test_rounds_of_a_block_share_a_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which forgets each round's keys; the figures are written."""
    monkeypatch.chdir(tmp_path)
    stages: list[_Stage] = []
    tier = _tier(stages)
    assert played(tier, rounds=3, seed=4, seconds=0, go_on=False) == 0
    assert [len(stage.forgotten) for stage in stages] == [2, 1]
    found = json.loads(tier.figures_path.read_text())
    assert (found["tier"], found["seeds"], found["failed_seeds"]) == ("test", [4, 5, 6], [])
    assert (found["faults"], found["wishes"]) == ({"kill master": 3}, {"weigh": 3})


def test_a_broken_promise_is_written_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that plays it again; no round follows."""
    monkeypatch.chdir(tmp_path)
    assert played(_tier([], loses=True), rounds=3, seed=4, seconds=0, go_on=False) == 1
    said = capsys.readouterr().out
    assert "BROKEN: an acknowledged write is lost: register-1" in said
    assert "again: make chaos TIER=test ROUNDS=1 SEED=4" in said
    folder = tmp_path / "build/chaos/test-seed-4"
    assert {path.name for path in folder.iterdir()} == {
        "schedule.json", "told.txt", "history.txt", "kept",
    }  # fmt: skip
    monkeypatch.chdir(folder)
    assert replayed(_tier([]), Path("schedule.json")) == 0


def test_no_round_is_begun_that_would_end_too_late(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As far as the last one tells."""
    monkeypatch.chdir(tmp_path)
    stages: list[_Stage] = []
    tier = _tier(stages)
    taken_s = CALM_RESTS_S  # of a round
    assert played(tier, rounds=0, seed=4, seconds=2.5 * taken_s, go_on=False) == 0
    assert len(json.loads(tier.figures_path.read_text())["seeds"]) <= 2


# -- figures --------------------------------------------------------------------------------


def _report(plan: Schedule) -> RoundReport:
    return RoundReport(
        plan,
        counts=Counter({"kill master": 2, "weigh": 1}),
        under_way=Counter({"Rebalancing": 2}),
        outcomes=Counter({"ok": 1000, "unknown": 3}),
        recoveries=[("kill master", 20), ("kill master", 40)],
        calms=[("kill master", 1500)],
        excused_lost=4,
    )


def test_the_figures_become_a_page() -> None:
    """Sums, recoveries in seconds, and the seeds as ranges."""
    figures = Figures(PROCESS_TIER)
    for seed in (1, 2, 5):
        figures.add(_report(process_schedule(seed)))
    found = json.loads(json.dumps(figures.document()))
    assert found["faults"]["kill master"] == 6
    assert found["first_write_ms"]["kill master"] == {"count": 6, "p50": 20, "p99": 40, "max": 40}
    page = markdown([found])
    assert "| faults | 6 |" in page
    assert "| writes acknowledged | 3,000 |" in page
    assert "| acknowledged writes that a fault took, as it may | 12 |" in page
    assert "| broken promises | 0 |" in page
    assert "| seeds | 1-2, 5 |" in page
    assert "| kill master | 6 | 0.02 | 0.04 | 0.04 | 1.50 | 1.50 | 1.50 |" in page
    assert "| kill all | 0 | – | – | – | – | – | – |" in page
