"""Rounds of faults on real stores: disturb, wait for calm, judge; then the next.

A store is kept for a block of rounds, for it takes long to start.  A round that breaks a promise
leaves its schedule, its history, what happened when, and all that its stage keeps in build/chaos/;
the store is ended then, because what it lost would be missed in every later round.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.chaos.checker import check
from tests.chaos.history import History, Kind, Operation, Outcome, Readout
from tests.chaos.nemesis import save
from tests.chaos.reach import now_ms
from tests.chaos.recoveries import recoveries
from tests.chaos.taken import excuse, late

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from tests.chaos.befaller import Befaller
    from tests.chaos.checker import Violation
    from tests.chaos.nemesis import Schedule
    from tests.chaos.taken import Takeover
    from tests.chaos.writers import Written

__all__ = [
    "FOLDER", "CannotStart", "RoundReport", "Stage", "Tier", "campaign",
    "kept_folder",
]  # fmt: skip

FOLDER = Path("build/chaos")
CALM_RESTS_S = 0.3  # between the first calm and the end of the writers


class CannotStart(Exception):
    """The store did not come up; a sentence."""


class Stage(Protocol):
    """A store, its clients, and what is known of what it holds."""

    ballast: tuple[Operation, ...]

    async def begin(self, plan: Schedule) -> Befaller:
        """Clients write from now on."""
        ...

    async def calm(self) -> str:
        """Wait until the spec is reached; a sentence says what is missing when the time is up."""
        ...

    async def end_writing(self) -> tuple[Written, list[Takeover]]:
        """Clients stop: what they have done, and which masters were replaced meanwhile."""
        ...

    async def read_out(self, keys: Sequence[str], sentence: str) -> Readout:
        """What stands there."""
        ...

    async def forget(self, keys: Sequence[str]) -> None:
        """Delete them."""
        ...

    async def keep(self, folder: Path) -> None:
        """Write down all that helps to find out what happened."""
        ...


@dataclass(frozen=True, slots=True)
class Tier:
    """A kind of real store."""

    name: str
    faults: Mapping[str, int]  # weights by kind
    wishes: Mapping[str, int]
    schedule: Callable[[int], Schedule]  # by seed
    block: int  # rounds that share a store
    stage: Callable[[Schedule], AbstractAsyncContextManager[Stage]]
    # A request that a client gave up may be done when whoever has it goes on.
    late_ms: int

    @property
    def figures_path(self) -> Path:
        """Where its figures are written."""
        return Path(f"build/chaos-{self.name}.json")


@dataclass
class RoundReport:
    """What became of a round."""

    schedule: Schedule
    counts: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[str, int]] = field(default_factory=list)  # to the first write, ms
    calms: list[tuple[str, int]] = field(default_factory=list)  # by the last fault's kind, ms
    violations: list[Violation] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0
    excused_lost: int = 0


def kept_folder(tier: Tier, seed: int) -> Path:
    """Where a failing round is written down."""
    return FOLDER / f"{tier.name}-seed-{seed}"


async def _disturb(befaller: Befaller, plan: Schedule) -> None:
    """Let the schedule happen; all goes on again at the end.

    What comes late, because it had to wait for an API server, say, delays what follows: faults
    that come in a crowd find nobody whom they may befall.
    """
    began_ms = befaller.began_ms
    for fault in plan.faults:
        early_ms = began_ms + fault.at_ms - now_ms()
        began_ms += max(0, -early_ms)
        await asyncio.sleep(max(0, early_ms) / 1000)
        await befaller.befall(fault)
    await befaller.undone()


async def _round(tier: Tier, stage: Stage, plan: Schedule) -> RoundReport:
    """One round on a store that is calm."""
    report, began_s = RoundReport(plan), time.monotonic()
    befaller = await stage.begin(plan)
    try:
        await _disturb(befaller, plan)
        since_ms = now_ms()
        befaller.tell("the faults are over")
        sentence = await stage.calm()
        befaller.tell(sentence or "calm")
        if befaller.last_kind and not sentence:
            report.calms.append((befaller.last_kind, now_ms() - since_ms))
        await asyncio.sleep(CALM_RESTS_S)
    finally:
        written, takeovers = await stage.end_writing()
    history = History([*written.operations, *stage.ballast])
    excuse(history, (*befaller.taken, *late(takeovers, befaller.hits)))
    readout = await stage.read_out((*befaller.keys, *befaller.ballast), sentence)
    report.violations = check(history, readout, late_ms=tier.late_ms)
    _sum_up(report, written, befaller, readout)
    report.seconds = time.monotonic() - began_s
    _write_told(FOLDER / f"{tier.name}-last.txt", report)
    if report.violations:
        folder = kept_folder(tier, plan.seed)
        _keep(folder, report, history, readout)
        await stage.keep(folder)
    else:
        await stage.forget(befaller.keys)
    return report


def _sum_up(report: RoundReport, written: Written, befaller: Befaller, readout: Readout) -> None:
    report.counts, report.under_way = befaller.counts, befaller.under_way
    report.recoveries = recoveries(befaller.awaited, written)
    report.refusals, report.statuses = written.refusals, written.statuses
    report.told = befaller.told
    writes = [operation for operation in written.operations if operation.kind is not Kind.READ]
    report.outcomes = Counter(operation.outcome.value for operation in writes)
    report.excused_lost = _missing(writes, readout)


def _missing(writes: Sequence[Operation], readout: Readout) -> int:
    """Acknowledged increments and elements that are not there: what the excuses cost, or more."""
    missing = 0
    for key, value in readout.values.items():
        asked = [write for write in writes if write.key == key]
        acknowledged = {write.number for write in asked if write.outcome is Outcome.OK}
        if key.startswith("list") and isinstance(value, tuple):
            missing += len(acknowledged - set(value))
        elif key.startswith("counter"):
            missing += max(0, len(acknowledged) - (value if isinstance(value, int) else 0))
    return missing


def _write_told(path: Path, report: RoundReport) -> None:
    """What happened when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*report.told, "", *map(str, report.violations), ""]))


def _keep(folder: Path, report: RoundReport, history: History, readout: Readout) -> None:
    """What the campaign itself knows."""
    _write_told(folder / "told.txt", report)
    save(report.schedule, folder / "schedule.json")
    broken = {violation.where for violation in report.violations}
    with (folder / "history.txt").open("w") as file:
        for operation in history.operations:
            if operation.key in broken:
                file.write(f"{operation}\n")
        for key in sorted(broken & set(readout.values)):
            file.write(f"found {key} = {readout.values[key]}\n")
        file.writelines(f"{excuse}\n" for excuse in history.excuses)


async def campaign(
    tier: Tier,
    plans: Iterator[Schedule],
    on_report: Callable[[RoundReport], bool],
    until_s: float = 0.0,
) -> None:
    """Play the schedules until `on_report` says to stop or the time (monotonic) is up.

    With such a time no round is begun for which it would not do, as far as the last one tells.
    """
    plan = next(plans, None)
    while plan is not None:
        block, storage = plan.seed // tier.block, plan.world.storage
        async with tier.stage(plan) as stage:
            while plan is not None and (plan.seed // tier.block, plan.world.storage) == (
                block, storage,
            ):  # fmt: skip
                report = await _round(tier, stage, plan)
                late_s = time.monotonic() + report.seconds
                if not on_report(report) or (until_s and late_s > until_s):
                    return
                plan = next(plans, None)
                if report.violations:
                    break
