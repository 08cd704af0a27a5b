"""Which node holds which place of the store, where somebody else starts the nodes.

Law: a place is held by a node *id*.  Addresses come and go with restarts; the id is on the node's
own disk.  The file is a memory aid: when it is lost, the cluster itself says who belongs together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardcluster.names import node_name, shard_name, shard_number, split_node_name
from shardcluster.observed import Address
from shardcluster_runtime.desired import write_atomically
from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from shardcluster.observed import PeerView
    from shardcluster.slots import SlotSet
    from shardcluster_runtime.platforms._contacts import Said

__all__ = ["Member", "Members", "adopted"]


@dataclass(slots=True)
class Member:
    """A place and the node that holds it."""

    name: str
    node_id: str
    address: Address  # where it was last seen

    @property
    def shard(self) -> str:
        """The place's shard."""
        return split_node_name(self.name)[0]

    @property
    def ordinal(self) -> int:
        """The place's number in its shard."""
        return split_node_name(self.name)[1]


@dataclass(slots=True)
class Members:
    """All places, kept in a file."""

    path: Path
    all: dict[str, Member] = field(default_factory=dict)

    def load(self) -> None:
        """Read the file if there is one; raises PlatformUnable when it can't be understood."""
        if not self.path.exists():
            return
        try:
            document: dict[str, Any] = json.loads(self.path.read_bytes())
            for name, kept in document["members"].items():
                split_node_name(name)
                address = Address(str(kept["host"]), int(kept["port"]))
                self.all[name] = Member(name, str(kept["node_id"]), address)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = (
                f"{self.path} can't be read ({error}): it says which node has which place. Mend "
                "it, or move it away; then the places are read off the cluster."
            )
            raise PlatformUnable(message) from error

    def save(self) -> None:
        """Write the file."""
        members = {
            member.name: {
                "node_id": member.node_id,
                "host": member.address.host,
                "port": member.address.port,
            }
            for member in self.in_order()
        }
        write_atomically(self.path, json.dumps({"members": members}, indent=2) + "\n")

    def in_order(self) -> list[Member]:
        """By number of the shard, then ordinal."""
        return sorted(
            self.all.values(), key=lambda member: (shard_number(member.shard), member.ordinal)
        )

    def of_shard(self, shard: str) -> list[Member]:
        """The shard's places, by ordinal."""
        return [member for member in self.in_order() if member.shard == shard]

    def ids(self) -> set[str]:
        """The ids that hold a place."""
        return {member.node_id for member in self.all.values()}


def adopted(said: Mapping[Address, Said]) -> list[Member] | None:
    """The places of a cluster that runs already: shards are a master with its replicas.

    Numbered by their lowest slot, the slotless after them by id; the master has ordinal 0.
    Empty when no node owns a slot; None when an owner doesn't answer, for half a cluster
    must not be taken for a whole one.
    """
    homes: dict[str, tuple[Address, Said]] = {}
    for address in sorted(said):
        homes.setdefault(said[address].node_id, (address, said[address]))
    if not any(one.myself.slots for one in said.values()):
        owners = {p.node_id for one in said.values() for p in one.nodes.peers if p.slots}
        return None if owners else []
    lines = _lines(homes)
    if any(
        line.slots and line.node_id not in homes and "fail" not in line.flags
        for line in lines.values()
    ):
        return None
    masters = [line for line in lines.values() if "master" in line.flags]
    masters.sort(key=lambda line: (_lowest(line.slots), line.node_id))
    return [member for number, line in enumerate(masters) for member in _shard(number, line, lines)]


def _lines(homes: Mapping[str, tuple[Address, Said]]) -> dict[str, PeerView]:
    """One line a node of the cluster: its own word, else what one who knows it says."""
    own = {node_id: one.myself for node_id, (_, one) in homes.items()}
    inside = _inside(homes, own)
    lines: dict[str, PeerView] = {}
    for node_id in sorted(inside & homes.keys()):
        for line in homes[node_id][1].nodes.peers:
            if not line.flags & {"handshake", "noaddr"}:
                lines.setdefault(line.node_id, line)
    lines.update({node_id: own[node_id] for node_id in inside & own.keys()})
    # A silent failed node without slots is nobody's hope: it is left to be forgotten.
    return {
        node_id: line
        for node_id, line in lines.items()
        if node_id in homes or line.slots or "fail" not in line.flags
    }


def _inside(homes: Mapping[str, tuple[Address, Said]], own: Mapping[str, PeerView]) -> set[str]:
    """Ids that own slots, follow such a one, or are known to one: spares are outside."""
    owners = {node_id for node_id, line in own.items() if line.slots}
    known = {line.node_id for owner in owners for line in homes[owner][1].nodes.peers}
    return owners | known


def _shard(number: int, master: PeerView, lines: Mapping[str, PeerView]) -> Iterable[Member]:
    replicas = [line for line in lines.values() if line.master_id == master.node_id]
    replicas.sort(key=lambda line: (line.address, line.node_id))
    for ordinal, line in enumerate((master, *replicas)):
        yield Member(node_name(shard_name(number), ordinal), line.node_id, line.address)


def _lowest(slots: SlotSet) -> int:
    return slots.ranges()[0][0] if slots else 1 << 20
