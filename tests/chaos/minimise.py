"""Make a failing schedule smaller: leave out what it fails without."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tests.chaos.run import play

if TYPE_CHECKING:
    from tests.chaos.checker import Rule
    from tests.chaos.nemesis import Fault, Schedule
    from tests.chaos.run import Plot

__all__ = ["minimised"]

ROUNDS_MAX = 300


def minimised(
    schedule: Schedule,
    rules: set[Rule],
    plot: Plot | None = None,
    *,
    rounds_max: int = ROUNDS_MAX,
) -> Schedule:
    """The schedule with as few faults as still break one of the same rules.

    Halves, quarters, … and single faults are left out in turn, as long as that goes on helping and
    at most `rounds_max` rounds are spent.
    """
    faults, rounds = list(schedule.faults), 0
    size = len(faults) // 2
    while size and rounds < rounds_max:
        start, shorter = 0, False
        while start < len(faults) and rounds < rounds_max:
            fewer = faults[:start] + faults[start + size :]
            rounds += 1
            if _fails(schedule, fewer, rules, plot):
                faults, shorter = fewer, True
            else:
                start += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return dataclasses.replace(schedule, faults=tuple(faults))


def _fails(schedule: Schedule, faults: list[Fault], rules: set[Rule], plot: Plot | None) -> bool:
    report = play(dataclasses.replace(schedule, faults=tuple(faults)), plot)
    return bool(rules & {violation.rule for violation in report.violations})
