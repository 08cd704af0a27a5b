"""Rounds of faults: `python -m tests.chaos --tier model --rounds N --seed S`.

The rounds have the seeds S, S+1, …  What happened is printed as a table.  The first round that
breaks a promise is made smaller and written down, the command that replays it is printed, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.minimise import minimised
from tests.chaos.nemesis import WEIGHTS, WISHES, load, save, schedule
from tests.chaos.run import play

if TYPE_CHECKING:
    from tests.chaos.run import Report

FOLDER = Path("build/chaos")
TOLD_EVERY_S = 30.0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _Tally:
    """The sums of all rounds."""

    def __init__(self) -> None:
        self.began_s = self.told_s = time.monotonic()
        self.rounds = self.simulated_ms = 0
        self.counts: Counter[str] = Counter()
        self.figures: Counter[str] = Counter()
        self.excused: Counter[str] = Counter()

    def add(self, report: Report) -> None:
        self.rounds += 1
        self.simulated_ms += report.simulated_ms
        self.counts += report.counts
        self.figures += report.figures
        self.excused += Counter({cause.value: count for cause, count in report.excused.items()})
        if time.monotonic() - self.told_s > TOLD_EVERY_S:
            self.told_s = time.monotonic()
            _say(f"  {self.rounds} rounds after {self.told_s - self.began_s:.0f} s")

    def faults(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind not in WISHES)

    def table(self) -> None:
        taken_s = time.monotonic() - self.began_s
        for kind in WEIGHTS:
            _say(f"  {kind:<18}{self.counts[kind]:>10}{'  (a wish)' if kind in WISHES else ''}")
        for what, count in sorted(self.figures.items()):
            _say(f"  {what:<18}{count:>10}")
        for cause, count in sorted(self.excused.items()):
            _say(f"  excused: {cause}, {count} acknowledged writes")
        _say(
            f"{self.rounds} rounds, {self.faults()} faults, {self.simulated_ms / 3_600_000:.1f} h"
            f" simulated in {taken_s:.0f} s: {self.faults() / taken_s:.0f} faults/s,"
            f" {self.simulated_ms / 1000 / taken_s:.0f} s simulated per second"
        )


def _failed(report: Report) -> None:
    """Tell of it, make it smaller, and say how to see it again."""
    plan = report.schedule
    _say(f"FAILED: seed {plan.seed}, {plan.world}")
    for violation in report.violations[:10]:
        _say(f"  {violation}")
    _say(f"again: python -m tests.chaos --tier model --rounds 1 --seed {plan.seed}")
    smaller = minimised(plan, {violation.rule for violation in report.violations})
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"seed-{plan.seed}.json"
    save(smaller, path)
    _say(f"minimised from {len(plan.faults)} faults to {len(smaller.faults)}:")
    for fault in smaller.faults:
        _say(f"  {fault}")
    for line in play(smaller, tell=True).told:
        _say(line)
    _say(f"smaller: python -m tests.chaos --tier model --schedule {path}")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--tier", choices=["model"], default="model")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedule", type=Path, help="a file that a failing run has written")
    parser.add_argument("--go-on", action="store_true", help="after a failure, too; not minimised")
    options = parser.parse_args()
    if options.schedule is not None:
        report = play(load(options.schedule), tell=True)
        for line in (*report.told, *map(str, report.violations)):
            _say(line)
        return 1 if report.violations else 0
    _say(f"seeds {options.seed} to {options.seed + options.rounds - 1}")
    tally, bad = _Tally(), []
    for seed in range(options.seed, options.seed + options.rounds):
        report = play(schedule(seed))
        tally.add(report)
        if report.violations:
            bad.append(report)
            if not options.go_on:
                break
            _say(f"FAILED: seed {seed}: {report.violations[0]}")
    tally.table()
    if bad and not options.go_on:
        _failed(bad[0])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
