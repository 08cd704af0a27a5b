"""Rounds of faults: `python -m tests.chaos --tier model|process|k8s --rounds N --seed S`.

The rounds have the seeds S, S+1, …  What happened is printed as a table.  The first round that
breaks a promise is made smaller and written down, the command that replays it is printed, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.campaign import played, replayed
from tests.chaos.figures import markdown
from tests.chaos.k8s_stage import K8S_TIER
from tests.chaos.minimise import minimised
from tests.chaos.nemesis import WEIGHTS, WISHES, load, save, schedule
from tests.chaos.process_stage import PROCESS_TIER
from tests.chaos.run import play

if TYPE_CHECKING:
    from tests.chaos.rounds import Tier
    from tests.chaos.run import Report

FOLDER = Path("build/chaos")
TOLD_EVERY_S = 30.0
SEEDS_AT_ONCE = 4  # that a process is given
MODEL_ROUNDS = 100
TIERS = {PROCESS_TIER.name: (PROCESS_TIER, 20), K8S_TIER.name: (K8S_TIER, 4)}  # and their rounds


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


def _play(seed: int) -> Report:
    return play(schedule(seed))


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--tier", choices=["model", *TIERS], default="model")
    parser.add_argument("--rounds", type=int, help="unless told 100, on real stores all in SECONDS")
    parser.add_argument("--seed", type=int, help="unless told 0, on real stores a new one")
    parser.add_argument("--seconds", type=float, default=0.0, help="on real stores: how long")
    parser.add_argument(
        "--report", type=Path, nargs="+", help="print the figures in those files as Markdown"
    )
    parser.add_argument("--schedule", type=Path, help="a file that a failing run has written")
    parser.add_argument("--go-on", action="store_true", help="after a failure, too; not minimised")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    if options.report is not None:
        _say(markdown(json.loads(path.read_text()) for path in options.report))
        return 0
    if options.tier in TIERS:
        return _real(options, *TIERS[options.tier])
    return _models(options)


def _real(options: argparse.Namespace, tier: Tier, rounds: int) -> int:
    if options.schedule is not None:
        return replayed(tier, options.schedule)
    rounds = options.rounds or (0 if options.seconds else rounds)
    return played(
        tier, rounds=rounds, seed=options.seed, seconds=options.seconds, go_on=options.go_on
    )


def _models(options: argparse.Namespace) -> int:
    options.rounds = options.rounds or MODEL_ROUNDS
    options.seed = options.seed or 0
    if options.schedule is not None:
        report = play(load(options.schedule), tell=True)
        for line in (*report.told, *map(str, report.violations)):
            _say(line)
        return 1 if report.violations else 0
    seeds = range(options.seed, options.seed + options.rounds)
    _say(f"seeds {seeds.start} to {seeds.stop - 1}, {options.jobs} at a time")
    tally, bad = _Tally(), []
    with multiprocessing.Pool(options.jobs) as pool:
        for report in pool.imap(_play, seeds, chunksize=SEEDS_AT_ONCE):
            tally.add(report)
            if report.violations:
                bad.append(report)
                if not options.go_on:
                    break
                _say(f"FAILED: seed {report.schedule.seed}: {report.violations[0]}")
    tally.table()
    if bad and not options.go_on:
        _failed(bad[0])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
