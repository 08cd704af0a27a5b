"""Which shard owns what, and which shall: the ring asked with a picture's data."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from shardcluster.ring import plan_ownership

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shardcluster.picture import Picture
    from shardcluster.slots import SlotSet
    from shardcluster.spec import Spec

__all__ = ["owned_by_shard", "wanted_ownership"]


def owned_by_shard(picture: Picture) -> dict[str, SlotSet]:
    """The slots of each shard of the platform, by shard name; a stranger's are nobody's here."""
    return {shard.name: shard.slots for shard in picture.shards}


def wanted_ownership(
    spec: Spec, shards: Iterable[str], owned: Mapping[str, SlotSet]
) -> dict[str, SlotSet]:
    """The ring's answer for `shards`, starting from what is `owned` now."""
    return _planned(
        tuple((name, spec.weight(name)) for name in shards),
        tuple(sorted((name, slots) for name, slots in owned.items() if slots)),
        spec.ring.virtual_nodes,
        spec.ring.load_bound,
    )


# An idle pass asks the same question each time, and planning costs tens of milliseconds.
@functools.lru_cache(maxsize=16)
def _planned(
    weights: tuple[tuple[str, float], ...],
    owned: tuple[tuple[str, SlotSet], ...],
    virtual_nodes: int,
    load_bound: float,
) -> dict[str, SlotSet]:
    return plan_ownership(
        dict(weights), dict(owned), virtual_nodes=virtual_nodes, load_bound=load_bound
    )
