"""Masters spread over the machines, so that one machine's end is felt by as few shards as possible.

Law: a luxury: only in a store that is whole, one graceful hand-over at a time, and only where it
makes the most loaded machine less loaded, so that it comes to an end and never goes back and forth.
Platforms that know of no machines have none of this.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from shardcluster.actions import Decision, Failover, FailoverMode, Reason, Wait
from shardcluster.decide.timing import SOON_S

if TYPE_CHECKING:
    from shardcluster.picture import Picture

__all__ = ["spread"]

WORTH_IT = 2  # more masters on one machine than on the other; of 1 nothing would be won


def spread(picture: Picture) -> Decision | None:
    """The hand-over that wins most, if one wins anything."""
    nodes = picture.observed.nodes
    if any(
        node.view is None or not node.view.link_up or node.ending or node.machine is None
        for node in nodes
    ):
        return None
    machine = {node.name: str(node.machine) for node in nodes}
    masters = Counter(dict.fromkeys(machine.values(), 0))
    masters.update(machine[shard.master.name] for shard in picture.shards if shard.master)

    def wins(pair: tuple[str, str]) -> int:
        return masters[machine[pair[0]]] - masters[machine[pair[1]]]

    worth_it = [
        (shard, (shard.master.name, replica.name))
        for shard in picture.shards
        if shard.master is not None
        for replica in shard.replicas
        if wins((shard.master.name, replica.name)) >= WORTH_IT
    ]
    ready = [
        (master, heir)
        for shard, (master, heir) in worth_it
        if any(node.name == heir for node in picture.heirs(shard))
    ]
    if ready:
        master, heir = max(ready, key=wins)
        busy = machine[master]
        return Decision(
            Failover(heir, FailoverMode.GRACEFUL),
            Reason.SPREADING,
            f"{masters[busy]} masters run on {busy}: {heir} takes over from {master}.",
        )
    for shard, (master, heir) in worth_it:
        if not picture.fed(shard):  # for less than a second, and no event tells of its end
            return Decision(
                Wait(SOON_S), Reason.SPREADING, f"{heir} is to take over from {master}."
            )
    return None
