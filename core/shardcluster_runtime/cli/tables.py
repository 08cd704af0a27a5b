"""How a state document, a plan and a ring look in a terminal of 80 columns.

Everything here turns plain documents into rich renderables and reads nothing else, so that the
tables are the same in `status`, in `status --watch` and in a test.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.bar import Bar
from rich.console import Group
from rich.table import Table
from rich.text import Text

from shardcluster.slots import SLOT_COUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

__all__ = [
    "bench_table", "bytes_text", "count", "event_line", "events_table", "keys_table", "plan_view",
    "ring_table", "status_view",
]  # fmt: skip

BAR_COLUMNS = 8
PROGRESS_BAR_COLUMNS = 16
EVENTS_SHOWN_MAX = 5
MOVES_SHOWN_MAX = 12
BYTES_A_STEP = 1024

STYLES = {
    "Ready": "green", "Up": "green", "master": "bold", "Rebalancing": "cyan", "Draining": "cyan",
    "Forming": "cyan", "Starting": "cyan", "Loading": "cyan", "Pending": "yellow",
    "Waiting": "yellow", "Paused": "yellow", "Unknown": "yellow", "Degraded": "red",
    "FailingOver": "red", "Lost": "bold red", "Down": "bold red",
}  # fmt: skip

Document = dict[str, Any]


def status_view(state: Document) -> RenderableType:
    """The whole status: what it does, shards, nodes, progress, notes, last events."""
    parts: list[RenderableType] = [_headline(state)]
    if state.get("controller") == "unreachable":
        words = f"{state.get('controller_message', '')} What stands here may be old."
        parts.append(Text(words.strip(), style="red"))
    if state.get("progress"):
        parts.append(_progress(state["progress"]))
    parts += [Text(), _shards(state), Text(), _nodes(state)]
    notes = _notes(state)
    if notes:
        parts += [Text(), *notes]
    if state.get("events"):
        parts += [Text(), events_table(state["events"][-EVENTS_SHOWN_MAX:])]
    return Group(*parts)


def events_table(events: Sequence[Document]) -> RenderableType:
    """Events, the newest last."""
    table = _table()
    for title in ("at", "event", "what happened"):
        table.add_column(title, no_wrap=title != "what happened")
    for event in events:
        _add(
            table,
            Text(_local_time(event.get("at")), style="dim"),
            _styled(event.get("reason", "")),
            _event_message(event),
        )
    return table


def event_line(event: Document) -> str:
    """One event as one line, for a log that scrolls by."""
    return f"{_local_time(event.get('at'))}  {event.get('reason', '')}  {_event_message(event)}"


def keys_table(rows: Sequence[Document]) -> RenderableType:
    """Which slot, shard and node each key belongs to."""
    table = _table()
    table.add_column("key", overflow="fold")
    table.add_column("slot", justify="right")
    for title in ("shard", "master", "replicas"):
        table.add_column(title)
    for row in rows:
        _add(
            table,
            Text(row["key"]),
            count(row["slot"]),
            row["shard"] or "–",
            row["node"] or "–",
            _names(row["replicas"]),
        )
    return table


def plan_view(answer: Document) -> RenderableType:
    """What will happen, or what would: the sentence, the moves, the nodes."""
    plan = answer.get("plan") or {}
    parts: list[RenderableType] = [Text(answer.get("message", ""))]
    moves = plan.get("moves") or []
    if moves:
        table = _table()
        table.add_column("from")
        table.add_column("to")
        table.add_column("slots", justify="right")
        table.add_column("keys", justify="right")
        for move in moves[:MOVES_SHOWN_MAX]:
            _add(table, move["from"], move["to"], count(move["slots"]), count(move.get("keys")))
        left = moves[MOVES_SHOWN_MAX:]
        if left:
            slots = sum(move["slots"] for move in left)
            keys = sum(move.get("keys") or 0 for move in left)
            _add(table, f"… {len(left)} more", "", count(slots), count(keys))
        totals = ("in all", "", count(plan.get("slots")), count(plan.get("keys")))
        _add(table, *(Text(total, style="bold") for total in totals))
        parts += [Text(), table]
    for title, field in (("starts", "start_nodes"), ("stops", "stop_nodes")):
        if plan.get(field):
            parts.append(Text(f"{title} {_names(plan[field])}"))
    return Group(*parts)


def ring_table(rows: Sequence[Document]) -> RenderableType:
    """Who owns how much of the ring, who should, and why."""
    table = _table()
    for title in ("shard", "weight", "points", "arcs", "slots", "share", "fair", "why"):
        table.add_column(title, justify="right" if title not in {"shard", "why"} else "left")
    for row in rows:
        _add(
            table,
            row["shard"],
            f"{row['weight']:g}",
            count(row["points"]),
            count(row["arc_slots"]),
            count(row["slots"]),
            f"{row['slots'] / SLOT_COUNT:.2%}",
            count(row["fair_slots"]),
            row["why"],
        )
    return table


def bench_table(result: Document) -> RenderableType:
    """What the load generator measured."""
    table = _table()
    table.add_column("operation")
    for title in ("requests", "per second", "p50 ms", "p99 ms", "worst ms", "errors"):
        table.add_column(title, justify="right")
    for row in result["operations"]:
        _add(
            table,
            row["operation"],
            count(row["requests"]),
            count(row["per_second"]),
            *(f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "worst_ms")),
            Text(count(row["errors"]), style="red" if row["errors"] else ""),
        )
    return table


def count(value: float | None) -> str:
    """A number with thousands set apart; a dash for none."""
    return "–" if value is None else f"{value:,.0f}"


def bytes_text(value: int | None) -> str:
    """Bytes in the unit that people would say."""
    if value is None:
        return "–"
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < BYTES_A_STEP:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= BYTES_A_STEP
    return f"{amount:.1f} TB"


def _headline(state: Document) -> Text:
    phase = state.get("phase", "?")
    mark = "●" if state.get("healthy") else "▲"
    style = STYLES.get(phase, "") if state.get("healthy") else "red"
    line = Text.assemble((f"{mark} {phase}", f"bold {style}"), "  ")
    line.append(f"{state.get('cluster', '')}: {state.get('message', '')}")
    return line


def _progress(progress: Document) -> RenderableType:
    total = max(progress.get("total_slots") or 0, 1)
    moved = progress.get("moved_slots") or 0
    row = Table.grid(padding=(0, 2, 0, 0))
    words = [f"{count(moved)}/{count(total)} slots", f"{count(progress.get('moved_keys'))} keys"]
    rate, left_s = progress.get("keys_per_second"), progress.get("seconds_left")
    if rate:
        words.append(f"{count(rate)} keys/s")
    if left_s is not None:
        words.append(f"{left_s:.0f} s left")
    row.add_row(_bar(moved, total, PROGRESS_BAR_COLUMNS, "cyan"), Text(" · ".join(words)))
    return row


def _shards(state: Document) -> Table:
    shards = state.get("shards") or []
    most = max((shard["slots"] for shard in shards), default=0)
    table = _table()
    table.add_column("shard", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("slots", justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True)
    table.add_column("keys", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("master", overflow="fold")
    table.add_column("replicas", overflow="fold")
    for shard in shards:
        _add(
            table,
            shard["name"],
            _styled(shard["state"]),
            count(shard["slots"]),
            _bar(shard["slots"], max(most, 1), BAR_COLUMNS, STYLES.get(shard["state"], "")),
            count(shard["keys"]),
            bytes_text(shard["memory_bytes"]),
            shard["master"] or Text("none", style="red"),
            _names(shard["replicas"]),
        )
    return table


def _nodes(state: Document) -> Table:
    table = _table()
    for title in ("node", "role", "health", "address"):
        table.add_column(title, overflow="fold")
    for title in ("keys", "lag", "ops/s"):
        table.add_column(title, justify="right", no_wrap=True)
    for node in state.get("nodes") or []:
        address = f"{node['host']}:{node['port']}" if node.get("host") else "–"
        answers = node["health"] in {"Up", "Loading"}
        _add(
            table,
            node["name"],
            _styled(node["role"]),
            _styled(node["health"]),
            address,
            count(node["keys"]) if answers else "–",
            _lag(node) if answers else "–",
            count(node["ops_per_second"]) if answers else "–",
        )
    return table


def _lag(node: Document) -> RenderableType:
    if node["role"] != "replica":
        return ""
    if not node.get("link_up", True):
        return Text("broken", style="red")
    return bytes_text(node.get("lag_bytes"))


def _notes(state: Document) -> list[RenderableType]:
    found: list[RenderableType] = [
        Text(f"{node['name']}: {node['detail']}", style="yellow")
        for node in state.get("nodes") or []
        if node.get("detail")
    ]
    found += [Text(note, style="yellow") for note in state.get("notes") or []]
    if state.get("spare_nodes") is not None:
        found.append(Text(f"Spare nodes: {state['spare_nodes']}"))
    return found


def _event_message(event: Document) -> str:
    times = event.get("count", 1)
    again = f" (×{times})" if isinstance(times, int) and times > 1 else ""
    return f"{event.get('message', '')}{again}"


def _table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )


def _add(table: Table, *cells: RenderableType) -> None:
    """A row whose strings are shown as they are: rich would read `[…]` in them as markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _bar(value: float, most: float, columns: int, style: str) -> Bar:
    return Bar(most, 0, value, width=columns, color=style or "default")


def _styled(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""))


def _names(names: Sequence[str] | None) -> str:
    return ", ".join(names) if names else "–"


def _local_time(at: object) -> str:
    """The time of day where the reader sits."""
    try:
        moment = datetime.fromisoformat(str(at))
    except ValueError:
        return str(at)
    return moment.astimezone().strftime("%H:%M:%S")
