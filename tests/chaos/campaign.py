"""`make chaos TIER=process|k8s`: rounds on real stores for a number of rounds or of seconds.

Without a seed a new one is drawn and printed.  The figures are written after each round, so that a
campaign that is ended early still has them.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from typing import TYPE_CHECKING

from tests.chaos.figures import Figures
from tests.chaos.nemesis import load
from tests.chaos.rounds import CannotStart, campaign, kept_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.nemesis import Schedule
    from tests.chaos.rounds import RoundReport, Tier

__all__ = ["played", "replayed"]

NEW_SEEDS = 100_000


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tell(tier: Tier, report: RoundReport) -> None:
    plan, outcomes = report.schedule, report.outcomes
    kind = "on disk" if plan.world.storage else "in memory"
    calm = f", calm after {report.calms[0][1] / 1000:.1f} s" if report.calms else ""
    _say(
        f"seed {plan.seed} ({kind}): {report.counts.total()} faults and wishes,"
        f" {outcomes['ok']} writes acknowledged, {outcomes['unknown']} unknown,"
        f" {report.excused_lost} taken{calm}, {report.seconds:.1f} s"
    )
    for violation in report.violations[:10]:
        _say(f"  BROKEN: {violation}")
    if report.violations:
        path = kept_folder(tier, plan.seed)
        _say(f"  what happened, the history and all logs: {path}/")
        _say(f"  again: make chaos TIER={tier.name} ROUNDS=1 SEED={plan.seed}")
        _say(f"  or: python -m tests.chaos --tier {tier.name} --schedule {path}/schedule.json")


class _Rounds:
    """Takes the reports; says when to stop."""

    def __init__(self, tier: Tier, *, go_on: bool) -> None:
        self.figures = Figures(tier)
        self._tier = tier
        self._go_on = go_on

    def __call__(self, report: RoundReport) -> bool:
        _tell(self._tier, report)
        self.figures.add(report)
        self.figures.write()
        return self._go_on or not report.violations


def played(tier: Tier, *, rounds: int, seed: int | None, seconds: float, go_on: bool) -> int:
    """Play; the exit code. `rounds` of 0: as many as fit in `seconds`."""
    until_s = time.monotonic() + seconds if seconds else 0.0
    first = random.SystemRandom().randrange(NEW_SEEDS) if seed is None else seed
    _say(f"seeds from {first} on")
    numbers = itertools.count(first) if not rounds else range(first, first + rounds)
    return _play(tier, map(tier.schedule, numbers), until_s, go_on=go_on)


def replayed(tier: Tier, path: Path) -> int:
    """Play a schedule that was written down; the exit code."""
    return _play(tier, iter([load(path)]), 0.0, go_on=False)


def _play(tier: Tier, plans: Iterator[Schedule], until_s: float, *, go_on: bool) -> int:
    on_report = _Rounds(tier, go_on=go_on)
    try:
        asyncio.run(campaign(tier, plans, on_report, until_s))
    except CannotStart as error:
        _say(f"the store does not start: {error}")
        return 1
    figures = on_report.figures
    taken_s = time.monotonic() - figures.began_s
    _say(
        f"{len(figures.seeds)} rounds, {figures.faults()} faults in {taken_s:.0f} s;"
        f" writes: {dict(figures.outcomes)}; {figures.lost['excused']} taken by faults,"
        f" {len(figures.violations)} promises broken; {tier.figures_path}"
    )
    return 1 if figures.violations else 0
