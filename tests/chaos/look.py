"""What the nodes of a real store say of themselves now: who may be hit, and what it holds."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.cluster_nodes import parse_cluster_nodes, parse_info
from shardcluster.observed import Address
from shardcluster.slots import SLOT_COUNT, SlotSet, key_slot
from tests.chaos.reach import NodeRecord, Reach, Trouble, ask_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["NOBODY", "Seen", "keys_in", "look_at", "look_at_all", "why_not_owned"]

NOBODY = Address("", 0)

_ACKED = re.compile(r"^ip=.*,offset=(\d+)")
_ON_DISK = {
    "aof_enabled": "1",
    "aof_rewrite_in_progress": "0",
    "aof_rewrite_scheduled": "0",
    "aof_last_write_status": "ok",
    "loading": "0",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A node that answered."""

    record: NodeRecord
    is_master: bool
    master: Address  # of a replica; else NOBODY
    link_up: bool  # of a replica: it follows its master and is not copying
    on_disk: bool  # all it has; after a full copy that takes until its file is written anew
    slots: SlotSet  # that it says it owns
    open_slots: SlotSet
    offset: int = 0  # of its replication stream
    acked: frozenset[int] = frozenset()  # of a master: the offsets that its replicas have told of

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def shard(self) -> str:
        return self.record.shard


async def look_at_all(reach: Reach, records: Iterable[NodeRecord]) -> list[Seen]:
    """Those that answer, in their order."""
    found = await asyncio.gather(*(look_at(reach, record) for record in records))
    return [seen for seen in found if seen is not None]


async def look_at(reach: Reach, record: NodeRecord) -> Seen | None:
    """One node; None when it does not answer, or loads."""
    try:
        info_reply, nodes_reply = await ask_node(
            reach, record, ("INFO", "replication", "persistence"), ("CLUSTER", "NODES")
        )
        info = parse_info(info_reply.decode())
        view = parse_cluster_nodes(nodes_reply.decode())
    except (Trouble, AttributeError, ValueError):  # silent, or an error reply
        return None
    own = next((peer.slots for peer in view.peers if "myself" in peer.flags), SlotSet())
    is_master = info.get("role") == "master"
    master = Address(info.get("master_host", ""), int(info.get("master_port", 0)))
    return Seen(
        record,
        is_master,
        NOBODY if is_master else master,
        info.get("master_link_status") == "up" and info.get("master_sync_in_progress") == "0",
        all(info.get(name) == value for name, value in _ON_DISK.items()),
        own if is_master else SlotSet(),
        SlotSet.of(slot.slot for slot in (*view.migrating, *view.importing)),
        int(info.get("master_repl_offset" if is_master else "slave_repl_offset", 0)),
        frozenset(int(found[1]) for value in info.values() if (found := _ACKED.search(value))),
    )


def why_not_owned(nodes: Sequence[Seen]) -> str:
    """Owners as the masters themselves have it; empty when each slot has one."""
    claims = [0] * SLOT_COUNT
    for node in nodes:
        for slot in node.slots:
            claims[slot] += 1
    none, more = claims.count(0), sum(count > 1 for count in claims)
    still_open = sum(len(node.open_slots) for node in nodes)
    if none or more or still_open:
        return f"{none} slots have no owner, {more} have more than one, {still_open} are open"
    return ""


def keys_in(keys: Iterable[str], nodes: Iterable[Seen]) -> frozenset[str]:
    """Those that lie on one of the nodes, or are just being moved there or away."""
    slots = SlotSet()
    for node in nodes:
        slots |= node.slots | node.open_slots
    return frozenset(key for key in keys if key_slot(key.encode()) in slots)
