"""Read what the engine says of a cluster: `CLUSTER NODES` and `INFO` (bytes in, plain data out).

Source of the formats: Valkey's command pages of CLUSTER NODES and INFO.  A line that can't be
read raises ValueError: a view that is half understood must not be decided upon.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from shardcluster.observed import Address, OpenSlot, PeerView
from shardcluster.slots import SlotSet

__all__ = ["ClusterNodes", "parse_cluster_nodes", "parse_info"]

_OPEN_SLOT = re.compile(r"\[(\d+)-([<>])-([0-9a-f]+)\]")


class ClusterNodes(NamedTuple):
    """One node's `CLUSTER NODES` reply."""

    peers: tuple[PeerView, ...]
    migrating: tuple[OpenSlot, ...]
    importing: tuple[OpenSlot, ...]


# A cluster of n nodes shows the same n slot lists in n views: each is parsed once.
_slots_of = functools.lru_cache(maxsize=8192)(SlotSet.parse)


def _address(field: str) -> Address:
    # `ip:port@bus[,hostname[,aux=value]…]`; ip may be IPv6 or empty (then nothing is known)
    host, _, port = field.partition(",")[0].partition("@")[0].rpartition(":")
    return Address(host, int(port))


def parse_cluster_nodes(text: str) -> ClusterNodes:
    """Read a whole `CLUSTER NODES` reply; raises ValueError for one that isn't."""
    peers: list[PeerView] = []
    migrating: list[OpenSlot] = []
    importing: list[OpenSlot] = []
    for line in text.splitlines():
        fields = line.split(" ", 8)
        if len(fields) < 8:
            message = f"not a line of CLUSTER NODES: {line[:120]!r}"
            raise ValueError(message)
        slot_text = fields[8] if len(fields) > 8 else ""
        if "[" in slot_text:
            for slot, arrow, other in _OPEN_SLOT.findall(slot_text):
                (migrating if arrow == ">" else importing).append(OpenSlot(int(slot), other))
            slot_text = _OPEN_SLOT.sub("", slot_text)
        peers.append(
            PeerView(
                node_id=fields[0],
                address=_address(fields[1]),
                flags=frozenset(fields[2].split(",")),
                master_id=None if fields[3] == "-" else fields[3],
                pong_ms=int(fields[5]),
                config_epoch=int(fields[6]),
                link_up=fields[7] == "connected",
                slots=_slots_of(slot_text.strip()),
            )
        )
    return ClusterNodes(tuple(peers), tuple(migrating), tuple(importing))


def parse_info(text: str) -> dict[str, str]:
    """`INFO` as a flat mapping of its `name:value` lines."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}
