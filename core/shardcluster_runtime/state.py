"""The state document that everybody reads, its version, and the log of what happened.

Law: the board holds one plain JSON document.  `publish` gives it the next version only when its
content changed, and every waiter of a lower version is answered then; so a long poll costs
nothing while nothing happens.  A waiter that knows a *higher* version than ours has met an
earlier controller and is answered at once.

`publish` is a plain call, not a coroutine, so that the loop can publish between any two lines;
the asyncio.Condition is notified by a task of its own.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardcluster.slots import SlotSet

__all__ = [
    "Event", "EventLog", "NodeHealth", "NodePart", "Phase", "ProgressMeter", "ShardPart",
    "ShardState", "StateBoard", "StateParts", "assemble", "timestamp",
]  # fmt: skip

EVENTS_MAX = 200  # kept in memory; older ones are dropped
EVENTS_SHOWN_MAX = 50  # in the state document
COLLAPSE_LOOK_BACK_EVENTS = 4  # a repetition among the last few becomes a count
WAIT_MAX_S = 60.0  # the longest a long poll may be held

Document = dict[str, Any]


class Phase(enum.Enum):
    """What the store as a whole is doing, for people."""

    FORMING = "Forming"
    READY = "Ready"
    REBALANCING = "Rebalancing"
    UPDATING = "Updating"
    FAILING_OVER = "FailingOver"
    DEGRADED = "Degraded"
    PAUSED = "Paused"
    WAITING = "Waiting"


class ShardState(enum.Enum):
    """What a shard is doing."""

    READY = "Ready"
    STARTING = "Starting"
    DRAINING = "Draining"
    LOST = "Lost"
    FAILING_OVER = "FailingOver"


class NodeHealth(enum.Enum):
    """What is known of a node; UNKNOWN is not DOWN."""

    UP = "Up"
    LOADING = "Loading"
    UNKNOWN = "Unknown"
    DOWN = "Down"
    PENDING = "Pending"


@dataclass(slots=True)
class Event:
    """Something that happened, `count` times, first and last at these (Unix time)."""

    first_at_s: float
    at_s: float
    reason: str
    message: str
    count: int = 1

    def document(self) -> Document:
        """As the state document shows it."""
        return {
            "first_at": timestamp(self.first_at_s),
            "at": timestamp(self.at_s),
            "reason": self.reason,
            "message": self.message,
            "count": self.count,
        }


class EventLog:
    """The last `EVENTS_MAX` events; a repetition of a recent one raises its count instead."""

    def __init__(self, now_s: Callable[[], float], limit: int = EVENTS_MAX) -> None:
        """`now_s` gives Unix time, s."""
        self._now_s = now_s
        self._events: deque[Event] = deque(maxlen=limit)

    def add(self, reason: str, message: str) -> Event:
        """Note that something happened now."""
        now_s = self._now_s()
        for event in list(self._events)[-COLLAPSE_LOOK_BACK_EVENTS:]:
            if (event.reason, event.message) == (reason, message):
                event.at_s = now_s
                event.count += 1
                self._events.remove(event)
                self._events.append(event)  # the log stays in order of time
                return event
        event = Event(now_s, now_s, reason, message)
        self._events.append(event)
        return event

    def __len__(self) -> int:
        """How many events are kept."""
        return len(self._events)

    def documents(self, last: int = EVENTS_SHOWN_MAX) -> list[Document]:
        """The last events, the newest last."""
        return [event.document() for event in list(self._events)[-last:]]


class ProgressMeter:
    """How far one piece of work is: totals from the plan, the rate over the whole work."""

    def __init__(self, action: str, total_slots: int, now_s: float) -> None:
        """`action` is the word people see; `now_s` is any steady clock."""
        self.action = action
        self.total_slots = total_slots
        self.moved_slots = 0
        self.moved_keys = 0
        self._began_s = now_s

    def moved(self, slots: int, keys: int) -> None:
        """So many more are done."""
        self.moved_slots += slots
        self.moved_keys += keys
        self.total_slots = max(self.total_slots, self.moved_slots)

    def replanned(self, slots_left: int) -> None:
        """The plan is made anew in every pass; the total follows it."""
        self.total_slots = self.moved_slots + slots_left

    def document(self, now_s: float) -> Document:
        """As the state document shows it; `seconds_left` is null until a rate is known."""
        elapsed_s = max(now_s - self._began_s, 1e-3)
        slots_left = self.total_slots - self.moved_slots
        seconds_left = (
            round(slots_left * elapsed_s / self.moved_slots, 1) if self.moved_slots else None
        )
        return {
            "action": self.action,
            "moved_slots": self.moved_slots,
            "total_slots": self.total_slots,
            "moved_keys": self.moved_keys,
            "keys_per_second": round(self.moved_keys / elapsed_s),
            "seconds_left": seconds_left,
        }


@dataclass(frozen=True, slots=True)
class ShardPart:
    """One shard for the state document."""

    name: str
    state: ShardState
    slots: SlotSet
    keys: int = 0
    memory_bytes: int = 0
    master: str | None = None  # node names
    replicas: tuple[str, ...] = ()
    moving_out: tuple[tuple[SlotSet, str], ...] = ()  # (slots, shard they go to)

    def document(self) -> Document:
        """As the state document shows it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "slots": len(self.slots),
            "slot_ranges": str(self.slots),
            "keys": self.keys,
            "memory_bytes": self.memory_bytes,
            "master": self.master,
            "replicas": list(self.replicas),
            "moving_out": [[str(slots), shard] for slots, shard in self.moving_out],
        }


@dataclass(frozen=True, slots=True)
class NodePart:
    """One node for the state document."""

    name: str
    shard: str
    role: str  # master, replica or unknown
    health: NodeHealth
    host: str | None = None
    port: int | None = None
    node_id: str | None = None
    keys: int = 0
    memory_bytes: int = 0
    offset: int = 0
    lag_bytes: int = 0
    link_up: bool = True
    ops_per_second: int = 0
    process_id: int | None = None
    detail: str = ""

    def document(self) -> Document:
        """As the state document shows it."""
        shown: Document = {name: getattr(self, name) for name in self.__slots__}
        shown["health"] = self.health.value
        return shown


@dataclass(frozen=True, slots=True)
class StateParts:
    """Everything the state document is made of, but for its version."""

    cluster: str
    phase: Phase
    reason: str
    message: str
    healthy: bool
    spec: Document
    shards: Sequence[ShardPart] = ()
    nodes: Sequence[NodePart] = ()
    progress: Document | None = None
    spare_nodes: int | None = None
    notes: Sequence[str] = ()
    events: Sequence[Document] = ()


def assemble(parts: StateParts) -> Document:
    """The state document, without its version: `StateBoard.publish` gives it that."""
    return {
        "cluster": parts.cluster,
        "phase": parts.phase.value,
        "reason": parts.reason,
        "message": parts.message,
        "healthy": parts.healthy,
        "spec": parts.spec,
        "shards": [shard.document() for shard in parts.shards],
        "nodes": [node.document() for node in parts.nodes],
        "progress": parts.progress,
        "spare_nodes": parts.spare_nodes,
        "notes": list(parts.notes),
        "events": list(parts.events),
    }


class StateBoard:
    """Holds the present state document and answers those who wait for the next one."""

    def __init__(self, document: Document) -> None:
        """Start at version 1 with `document`."""
        self._document = {**document, "version": 1}
        self._condition = asyncio.Condition()
        self._notifying: set[asyncio.Task[None]] = set()

    @property
    def version(self) -> int:
        """Counts the changes since this controller started."""
        version: int = self._document["version"]
        return version

    def document(self) -> Document:
        """The present document; treat it as read-only."""
        return self._document

    def publish(self, document: Document) -> bool:
        """Show `document` from now on; False when nothing in it changed."""
        new = {**document, "version": self.version}
        if new == self._document:
            return False
        new["version"] += 1
        self._document = new
        task = asyncio.get_running_loop().create_task(self._notify())
        self._notifying.add(task)  # asyncio itself keeps only a weak reference
        task.add_done_callback(self._notifying.discard)
        return True

    async def wait(self, since: int, wait_s: float) -> Document:
        """The document once its version is not `since`, or as it is after `wait_s`."""
        try:
            async with asyncio.timeout(min(wait_s, WAIT_MAX_S)), self._condition:
                await self._condition.wait_for(lambda: self.version != since)
        except TimeoutError:
            pass
        return self._document

    async def _notify(self) -> None:
        async with self._condition:
            self._condition.notify_all()


def timestamp(at_s: float) -> str:
    """Unix time as RFC 3339 in UTC with milliseconds."""
    return (
        datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
