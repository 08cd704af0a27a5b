"""The real `decide` on the simulated cluster: a few rounds here, many by `make chaos`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.minimise import minimised
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import load, save, schedule
from tests.chaos.run import play

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = tuple(range(8, 20))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_promise_is_kept(seed: int) -> None:
    """Forty faults, then calm: what was acknowledged is there and the spec is reached."""
    report = play(schedule(seed))
    assert not [str(violation) for violation in report.violations]
    assert report.counts.total() > 0
    assert report.figures["acknowledged"] > 0


def test_a_seed_is_the_same_round_each_time() -> None:
    """Every sentence at the same moment, every request with the same outcome."""
    first, again = play(schedule(SEEDS[0]), tell=True), play(schedule(SEEDS[0]), tell=True)
    assert first.told == again.told
    assert first.figures == again.figures
    assert first.excused == again.excused


def test_a_schedule_that_was_written_down_is_the_same_schedule(tmp_path: Path) -> None:
    """So it can be replayed."""
    path = tmp_path / "seed.json"
    save(schedule(3), path)
    assert load(path) == schedule(3)


def test_a_failing_schedule_is_made_smaller_and_still_fails() -> None:
    """Most of its faults have nothing to do with it."""
    plot, _ = MUTANTS["a store is formed anew over its data"]
    plan = schedule(0)
    rules = {violation.rule for violation in play(plan, plot).violations}
    smaller = minimised(plan, rules, plot, rounds_max=25)
    assert len(smaller.faults) < len(plan.faults) / 2
    assert rules & {violation.rule for violation in play(smaller, plot).violations}
