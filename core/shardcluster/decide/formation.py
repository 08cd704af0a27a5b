"""Give slots that nobody owns to masters: a new store, and nothing else by mistake.

Law: formation needs every wanted node to answer and to hold no key, and no silent node that might
own a slot.  A store that was formed before and has storage is never formed anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import AddSlots, Decision, Reason, Wait
from shardcluster.decide.ownership import owned_by_shard, wanted_ownership
from shardcluster.decide.timing import SOON_S
from shardcluster.decide.views import foreign_nodes, introductions

if TYPE_CHECKING:
    from shardcluster.picture import Picture

__all__ = ["formation"]


def formation(picture: Picture) -> Decision | None:
    """Assign the unowned slots by the ring, when that is safe; else say what stands in the way."""
    if not picture.unowned:
        return None
    spec = picture.spec
    wanted = spec.wanted_shards()
    silent = [node.name for node in picture.observed.nodes if node.view is None]
    if silent or any(picture.shard(name) is None for name in wanted):
        return _wait(f"{len(picture.unowned)} slots have no owner; waiting for every node to answer"
                     f" ({', '.join(silent[:3]) or 'starting'}).")  # fmt: skip
    if foreign_nodes(picture) or introductions(picture):
        return None  # those concerns told of it; slots go to nodes that know each other
    anew = picture.observed.formed_before and not picture.owned
    if anew and not spec.memory_only:
        return _stop(
            Reason.DATA_LOST,
            "Every node is empty although this store was formed before and has storage: nothing is"
            " formed anew over what may come back. Bring the volumes back, or remove the store.",
        )
    keys = sum(node.view.keys for node in picture.answering if node.view is not None)
    if keys and not (spec.memory_only and picture.observed.formed_before):
        return _stop(
            Reason.SHARD_LOST,
            f"{len(picture.unowned)} slots have no owner while the nodes hold {keys} keys: they are"
            " not given out, for their data may come back.",
        )
    targets = {name: picture.shard(name) for name in wanted}
    owned = owned_by_shard(picture)
    target = wanted_ownership(spec, wanted, owned)
    gifts = []
    for name in wanted:
        shard = targets[name]
        new = target[name] & picture.unowned
        if not new:
            continue
        if shard is None or shard.master is None:
            return _wait(f"{name} has no master to give slots to yet.")
        gifts.append((shard.master.name, new))
    return Decision(
        AddSlots(tuple(gifts)),
        Reason.DATA_LOST if anew else Reason.FORMING,
        "Every node came back empty and there is no storage: the store is formed anew, its data is"
        " lost."
        if anew
        else f"Giving {len(picture.unowned)} slots to {len(gifts)} shards by the ring.",
        healthy=not anew,
    )


def _wait(sentence: str) -> Decision:
    return Decision(Wait(SOON_S), Reason.FORMING, sentence)


def _stop(reason: Reason, sentence: str) -> Decision:
    return Decision(Wait(SOON_S), reason, sentence, healthy=False)
