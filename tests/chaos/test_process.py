"""Faults on real processes: a sample here, many by `make chaos TIER=process`."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.chaos.nemesis import load, save
from tests.chaos.process_failovers import failovers
from tests.chaos.process_nemesis import BLOCK, FAULTS, LASTS, WISHES, process_schedule
from tests.chaos.process_stage import PROCESS_TIER
from tests.chaos.process_store import ProcessStore
from tests.chaos.reach import now_ms
from tests.chaos.rounds import RoundReport, campaign

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE_FAULTS = 8
STORED, IN_MEMORY = 2 * BLOCK, BLOCK  # seeds


@pytest.mark.parametrize("seed", [STORED, IN_MEMORY])
def test_the_promise_is_kept_by_real_processes(seed: int) -> None:
    """A few faults while clients write, then calm: all is there and the spec is reached."""
    plan = process_schedule(seed)
    plan = dataclasses.replace(plan, faults=plan.faults[:SAMPLE_FAULTS])
    assert plan.world.storage == (seed == STORED)
    reports: list[RoundReport] = []

    def one(report: RoundReport) -> bool:
        reports.append(report)
        return False

    asyncio.run(campaign(PROCESS_TIER, iter([plan]), one))
    (report,) = reports
    assert not report.violations, "\n".join([*report.told, *map(str, report.violations)])
    assert report.counts.total() > 0
    assert report.outcomes["ok"] > 0


def test_a_seed_is_the_same_schedule_each_time(tmp_path: Path) -> None:
    """Which can be written down and replayed."""
    plan = process_schedule(7)
    assert process_schedule(7) == plan != process_schedule(8)
    save(plan, tmp_path / "schedule.json")
    assert load(tmp_path / "schedule.json") == plan


def test_schedules_hold_every_kind_in_order() -> None:
    """Each fault and each wish is drawn; what lasts lasts within its limits."""
    plans = [process_schedule(seed) for seed in range(100)]
    drawn = [fault for plan in plans for fault in plan.faults]
    assert {fault.kind for fault in drawn} == FAULTS.keys() | WISHES.keys()
    for fault in drawn:
        low, high = LASTS.get(fault.kind, (0, 0))
        assert low <= fault.lasts <= high
        assert 0 <= fault.pick <= 1
    for plan in plans:
        assert [fault.at_ms for fault in plan.faults] == sorted(
            fault.at_ms for fault in plan.faults
        )


def test_half_of_the_stores_have_storage() -> None:
    """A block of seeds shares a store."""
    stored = [process_schedule(seed).world.storage for seed in range(4 * BLOCK)]
    assert stored == ([True] * BLOCK + [False] * BLOCK) * 2


def test_failovers_are_read_from_the_logs(tmp_path: Path) -> None:
    """With their moment on the campaign's own clock."""
    store = ProcessStore(tmp_path, storage=True)
    log = store.state_folder / "nodes/shard-2-1/valkey.log"
    log.parent.mkdir(parents=True)
    moment = datetime.now(tz=UTC).astimezone()
    text = moment.strftime("%d %b %Y %H:%M:%S.") + f"{moment.microsecond // 1000:03}"
    log.write_text(
        f"1:S {text} * Failover election won: I'm the new primary.\n"
        f"1:S {text} * Setting myself to primary in shard 13cd after failover\n"
    )
    (takeover,) = failovers(store)
    assert takeover.shard == "shard-2"
    assert abs(takeover.since_ms - now_ms()) < 2_000
