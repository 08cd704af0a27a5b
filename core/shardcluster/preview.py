"""What a changed spec would lead to, without changing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.decide.ownership import owned_by_shard, wanted_ownership
from shardcluster.names import node_name

if TYPE_CHECKING:
    from shardcluster.picture import Picture
    from shardcluster.slots import SlotSet
    from shardcluster.spec import Spec

__all__ = ["Preview", "preview"]


@dataclass(frozen=True, slots=True)
class Preview:
    """Slots that will change shards, and nodes that will come and go."""

    moves: tuple[tuple[str, str, SlotSet], ...]  # (from shard, to shard, slots)
    start_nodes: tuple[str, ...]
    stop_nodes: tuple[str, ...]

    @property
    def slots(self) -> int:
        """How many slots move."""
        return sum(len(slots) for _, _, slots in self.moves)


def preview(picture: Picture, spec: Spec) -> Preview:
    """Compare what stands there with what `spec` asks for."""
    owned = {name: slots for name, slots in owned_by_shard(picture).items() if slots}
    target = wanted_ownership(spec, spec.wanted_shards(), owned)
    moves = tuple(
        (source, name, moving)
        for source, slots in owned.items()
        for name, wanted in target.items()
        if name != source and (moving := slots & wanted)
    )
    have = {node.name for node in picture.observed.nodes}
    want = {
        node_name(shard, ordinal)
        for shard in spec.wanted_shards()
        for ordinal in range(1 + spec.replicas_per_shard)
    }
    return Preview(moves, tuple(sorted(want - have)), tuple(sorted(have - want)))
