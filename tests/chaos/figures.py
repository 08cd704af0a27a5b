"""The figures of campaigns: summed up, written as JSON, and rendered as one page for the docs."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.rounds import RoundReport, Tier

__all__ = ["Figures", "markdown"]

Document = dict[str, Any]

_HEAD = """\
# Faults

What the store was put through, and what became of it. Made by the campaign itself:
`python -m tests.chaos --report build/chaos-process.json build/chaos-k8s.json build/soak.json`.
What is promised, and what a fault may take, stands at the top of `tests/chaos/checker.py`.
"""

_SECTIONS = {
    "process": """\
## On processes

`make chaos TIER=process`: a store as `shardctl up` starts it, 3 shards with a replica each, and
more or fewer as people change their minds; half of the rounds with storage, half in memory; 24
clients write through the gateway and directly.
""",
    "k8s": """\
## On Kubernetes

`make chaos TIER=k8s`: the operator as `deploy/` installs it and a ShardCluster of 3 shards with a
replica each, and more or fewer as people change their minds; half of the rounds with volumes, half
in memory; 24 clients in a pod write through two gateways, directly, and by redis-py. Without a rig
that cuts networks and power, the faults that need one befall nobody.
""",
}


_SOAK = """\
## Under load

`make soak`: wrk at a steady share of what the gateway took right before, nine GETs to one PUT, and
a fault every 20 s. The nodes have disks; neither the gateway nor the controller is killed, so that
what they hold can be followed.
"""


def _spread(values: Sequence[int]) -> Document:
    """Count, median, 99th percentile and most."""
    found = sorted(values)
    last = len(found) - 1
    return {
        "count": len(found),
        "p50": found[last // 2],
        "p99": found[min(last, round(last * 0.99))],
        "max": found[-1],
    }


@dataclass
class Figures:
    """The sums of all rounds."""

    tier: Tier
    began_s: float = field(default_factory=time.monotonic)
    seeds: list[int] = field(default_factory=list)
    failed_seeds: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    writes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    calms: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, report: RoundReport) -> None:
        """One round more."""
        self.seeds.append(report.schedule.seed)
        self.counts += report.counts
        self.under_way += report.under_way
        self.outcomes += report.outcomes
        self.statuses += report.statuses
        for kind, ms in report.recoveries:
            self.writes[kind].append(ms)
        for kind, ms in report.calms:
            self.calms[kind].append(ms)
        if report.violations:
            self.failed_seeds.append(report.schedule.seed)
            self.violations += [f"seed {report.schedule.seed}: {it}" for it in report.violations]
        else:
            self.lost["excused"] += report.excused_lost

    def faults(self) -> int:
        """How many faults befell somebody; wishes aside."""
        return sum(count for kind, count in self.counts.items() if kind in self.tier.faults)

    def document(self) -> Document:
        """As it is written down."""
        return {
            "tier": self.tier.name,
            "seeds": self.seeds,
            "failed_seeds": self.failed_seeds,
            "seconds": round(time.monotonic() - self.began_s),
            "faults": {kind: self.counts[kind] for kind in self.tier.faults},
            "wishes": {kind: self.counts[kind] for kind in self.tier.wishes},
            "under_way": dict(self.under_way.most_common()),
            "writes": dict(self.outcomes),
            "http_statuses": {str(status): count for status, count in self.statuses.items()},
            "lost_where_promised": len(self.violations),
            "lost_by_faults": self.lost["excused"],
            "violations": self.violations,
            "first_write_ms": {kind: _spread(found) for kind, found in self.writes.items()},
            "calm_ms": {kind: _spread(found) for kind, found in self.calms.items()},
        }

    def write(self) -> None:
        """To its file."""
        path = self.tier.figures_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=1) + "\n")


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _seconds(spread: Document | None) -> list[str]:
    if spread is None:
        return ["–", "–", "–"]
    return [f"{spread[name] / 1000:.2f}" for name in ("p50", "p99", "max")]


def _seeds(seeds: Sequence[int]) -> str:
    """As ranges."""
    ranges: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ", ".join(f"{a}-{b}" if a != b else f"{a}" for a, b in ranges)


def _sums(found: Mapping[str, Any]) -> list[str]:
    writes, rounds = found["writes"], len(found["seeds"])
    return [
        _row("", ""),
        _row("---", "---"),
        _row("rounds", f"{rounds} in {found['seconds'] / 60:.0f} minutes"),
        _row("faults", sum(found["faults"].values())),
        _row("wishes of people meanwhile", sum(found["wishes"].values())),
        _row("writes acknowledged", f"{writes.get('ok', 0):,}"),
        _row("writes refused", f"{writes.get('failed', 0):,}"),
        _row("writes of unknown fate", f"{writes.get('unknown', 0):,}"),
        _row("acknowledged writes that a fault took, as it may", found["lost_by_faults"]),
        _row("broken promises", found["lost_where_promised"]),
        _row("seeds", _seeds(found["seeds"])),
    ]


def markdown(campaigns: Iterable[Mapping[str, Any]]) -> str:
    """What campaigns and a soak have found, as the page of the docs."""
    sections = (_soak(found) if "windows" in found else _section(found) for found in campaigns)
    return "\n".join([_HEAD, *("\n".join([*lines, ""]) for lines in sections)]).rstrip("\n")


def _soak(found: Mapping[str, Any]) -> list[str]:
    kinds = Counter(fault["kind"] for fault in found["faults"])
    return [
        _SOAK,
        _row("measure", "value", "limit", "", "detail"),
        _row(*["---"] * 5),
        *(
            _row(
                row["measure"].strip(), row["value"], row["limit"], "ok" if row["ok"] else "MISSED",
                row["detail"],
            )
            for row in found["rows"]
        ),
        "",
        f"Faults from seed {found['seed']} on: "
        + ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common()) + ".",
        "",
        "![Latency, requests, failures, memory and open files over time](soak.svg)",
    ]  # fmt: skip


def _section(found: Mapping[str, Any]) -> list[str]:
    first, calm = found["first_write_ms"], found["calm_ms"]
    lines = [_SECTIONS[found["tier"]], *_sums(found), ""]
    lines += [
        "Seconds from a fault to the first acknowledged write to the shard that it hit (through",
        "the gateway, where that was hit; of pods that were deleted, which end slowly: the longest",
        "time without one that begins in the 20 s after), and from a round's last fault to the",
        "whole spec being reached. Faults overlap, so a recovery may have waited for several.",
        "",
        _row("fault", "times", "write p50", "p99", "max", "calm p50", "p99", "max"),
        _row(*["---"] * 8),
    ]
    for kind, count in found["faults"].items():
        lines.append(_row(kind, count, *_seconds(first.get(kind)), *_seconds(calm.get(kind))))
    lines += ["", _row("wish", "times"), _row("---", "---")]
    lines += [_row(kind, count) for kind, count in found["wishes"].items()]
    lines += ["", _row("what the controller was at when a fault came", "faults")]
    lines.append(_row("---", "---"))
    lines += [_row(reason, count) for reason, count in found["under_way"].items()]
    if found["violations"]:
        lines += ["", "Broken promises:", ""]
        lines += [f"* {violation}" for violation in found["violations"]]
    return lines
