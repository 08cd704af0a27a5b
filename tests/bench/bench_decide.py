"""What an idle pass of `decide` costs on a large store."""

from __future__ import annotations

import time
from typing import Any

from shardcluster.actions import Reason
from shardcluster.decide import decide
from shardcluster.names import node_name, shard_name
from shardcluster.observed import Address, NodeView, Observed, ObservedNode, PeerView, Role
from shardcluster.ring import plan_ownership
from shardcluster.slots import SlotSet
from shardcluster.spec import parse

__all__ = ["run"]

SHARDS = 100
NODES_PER_SHARD = 3
PASSES = 5000


def run() -> list[dict[str, Any]]:
    """The row of the table."""
    spec = parse(
        {
            "apiVersion": "shardcluster.io/v1alpha1",
            "kind": "ShardCluster",
            "metadata": {"name": "bench"},
            "spec": {
                "shards": SHARDS,
                "replicasPerShard": NODES_PER_SHARD - 1,
                "storage": {"size": "1Gi"},
            },
        }
    )
    observed = _observed()
    assert decide(spec, observed).reason is Reason.IDLE
    began_s = time.perf_counter()
    for _ in range(PASSES):
        decide(spec, observed)
    took_s = time.perf_counter() - began_s
    return [
        {
            "measure": f"{PASSES} idle passes of decide, {SHARDS} shards × {NODES_PER_SHARD} nodes",
            "value": f"{took_s:.1f} s",
            "limit": "reported",
            "ok": True,
            "detail": f"{took_s / PASSES * 1000:.2f} ms a pass",
        }
    ]


def _observed() -> Observed:
    shards = [shard_name(number) for number in range(SHARDS)]
    ownership = plan_ownership(dict.fromkeys(shards, 1.0), {})
    peers = []
    for number, shard in enumerate(shards):
        peers += [
            _peer(number, ordinal, ownership[shard] if ordinal == 0 else SlotSet())
            for ordinal in range(NODES_PER_SHARD)
        ]
    nodes = []
    for index, peer in enumerate(peers):
        number, ordinal = divmod(index, NODES_PER_SHARD)
        view = NodeView(
            node_id=peer.node_id,
            role=Role.REPLICA if ordinal else Role.MASTER,
            master_id=peer.master_id,
            peers=(*peers[:index], _myself(peer), *peers[index + 1 :]),
            offset=1,
            acked=() if ordinal else (1,) * (NODES_PER_SHARD - 1),
            config=(("cluster-node-timeout", "2000"),),
        )
        nodes.append(
            ObservedNode(node_name(shards[number], ordinal), shards[number], ordinal,
                         peer.address, view=view)
        )  # fmt: skip
    return Observed(tuple(nodes), now_ms=1, formed_before=True)


def _peer(number: int, ordinal: int, slots: SlotSet) -> PeerView:
    return PeerView(
        node_id=f"{number:020x}{ordinal:020x}",
        address=Address("10.0.0.1", 7000 + number * NODES_PER_SHARD + ordinal),
        flags=frozenset({"slave" if ordinal else "master"}),
        master_id=f"{number:020x}{0:020x}" if ordinal else None,
        pong_ms=1,
        config_epoch=number,
        link_up=True,
        slots=slots,
    )


def _myself(peer: PeerView) -> PeerView:
    return PeerView(
        peer.node_id, peer.address, peer.flags | {"myself"}, peer.master_id, 0,
        peer.config_epoch, link_up=True, slots=peer.slots,
    )  # fmt: skip


if __name__ == "__main__":
    for row in run():
        print(row)
