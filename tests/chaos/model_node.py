"""A node of the simulated cluster: a paper node that holds values and believes what it was told.

A key's state is the tuple of the numbers of the writes that made it: a register's value is the
last, a counter's the length, a list's the tuple itself. So what a copy lacks can be told exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.scenarios.paper import FIRST_OFFSET
from tests.scenarios.paper_node import PaperNode, slot_of_key

if TYPE_CHECKING:
    from shardcluster.observed import PeerView
    from shardcluster.slots import SlotSet
    from tests.chaos.gossip import Message

__all__ = ["ModelNode", "State"]

State = tuple[int, ...]


@dataclass(slots=True)
class ModelNode(PaperNode):
    """Its data, its replication stream, and its part in gossip and votes.  Times in ms."""

    data: dict[int, State] = field(default_factory=dict)  # `keys` are kept the same as its keys
    log: list[tuple[int, State | None]] = field(default_factory=list)  # of this stream
    log_start: int = 0  # the offset before the first entry
    stream: int = 0  # the replication id
    stream_before: int = 0  # the one that it goes on from, since it was promoted
    sent_offset: int = 0  # of a master: what its replicas were sent until the last beat
    sync_until_ms: int = 0
    known_epoch: int = 0
    voted_epoch: int = 0
    voted_ms: dict[str, int] = field(default_factory=dict)  # master id -> when for its heir
    reports: dict[str, dict[str, int]] = field(default_factory=dict)  # id -> who says fail?, when
    suspects: frozenset[str] = frozenset()  # whom it flagged at its last beat
    failed_ms: dict[str, int] = field(default_factory=dict)  # id -> since when `fail`
    election_ms: int = 0  # when its next campaign may begin; 0: none is planned
    campaign_ms: int = 0  # the engine holds no other election for it before
    paused_until_ms: int = 0  # of a master that is handing over
    island: int = 0  # nodes of different islands don't hear each other
    stalled_until_ms: int = 0  # of a replica: nothing of the stream is applied till then
    header: PeerView | None = None  # what it said of itself last
    heard: dict[str, PeerView] = field(default_factory=dict)  # the last header from each
    deposed: bool = False  # a fault ended its reign, which it may not have heard yet
    inbox: list[tuple[int, int]] = field(default_factory=list)  # (write, key) sent while it hung
    buffered: list[tuple[int, State | None]] = field(default_factory=list)  # of its master, hung
    unread: list[Message] = field(default_factory=list)  # packets that came while it hung
    last_data: dict[int, State] = field(default_factory=dict)  # what it held when it ended
    last_alive_ms: int = 0
    last_island: int = 0  # when it ended or hung
    cut_since_ms: int = 0  # 0: it is not
    woke_ms: int = 0  # when it went on that hung
    linked_ms: int = 0  # of a replica: until when its connection with its master held
    proclaimed: bool = True  # most masters know that it leads since its master was lost

    def become_replica(self, master_id: str) -> None:
        """Follow another node from now on."""
        PaperNode.become_replica(self, master_id)
        self.deposed = False

    def wipe(self) -> None:
        """Its data is gone."""
        self.keys.clear()
        self.data.clear()
        self.log.clear()
        self.log_start = self.offset = self.sent_offset = 0
        self.stream = self.stream_before = 0  # a new one begins with the first replica

    def put(self, key: int, state: State) -> None:
        """Set a key and tell the replicas."""
        self._store(key, state)
        self.log.append((key, state))
        self.offset += 1

    def drop(self, keys: set[int]) -> None:
        """Delete keys and tell the replicas."""
        for key in sorted(keys & self.keys):
            self._store(key, None)
            self.log.append((key, None))
            self.offset += 1

    def drop_slots(self, slots: SlotSet) -> None:
        """What the engine does with keys in slots that another owns."""
        self.drop({key for key in self.keys if slot_of_key(key) in slots})

    def take(self, key: int, state: State | None) -> None:
        """Of a replica: apply one command of the stream."""
        self._store(key, state)
        self.offset += 1

    def _store(self, key: int, state: State | None) -> None:
        if state is None:
            self.data.pop(key, None)
            self.keys.discard(key)
        else:
            self.data[key] = state
            self.keys.add(key)

    def begin_stream(self, stream: int) -> None:
        """Be a master of a history of one's own from the present offset on."""
        self.stream_before = self.stream
        self.stream, self.log, self.log_start = stream, [], self.offset
        self.sent_offset = self.offset

    @property
    def streams(self) -> tuple[int, int]:
        """The replication id, and the one before it."""
        return self.stream, self.stream_before

    def copy_all(self, master: ModelNode) -> None:
        """A full copy, just finished; offsets count from the first replica on."""
        if master.offset < FIRST_OFFSET:
            shift = FIRST_OFFSET - master.offset
            master.offset += shift
            master.log_start += shift
            master.sent_offset += shift
        self.data, self.keys = dict(master.data), set(master.keys)
        self.stream, self.stream_before, self.offset = master.stream, 0, master.offset
        self.log, self.log_start = [], self.offset

    def follow_stream(self, master: ModelNode) -> None:
        """Apply what was sent until the master's last beat."""
        for key, state in master.log[self.offset - master.log_start :
                                     master.sent_offset - master.log_start]:  # fmt: skip
            self._store(key, state)
        self.offset = max(self.offset, master.sent_offset)
