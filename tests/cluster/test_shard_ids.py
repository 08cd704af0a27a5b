"""A replica whose file gives it another shard-id than its master starts all the same.

Valkey 8.1.1 may write such a file while it learns of a failover, and then ends at each start, with
"corrupted cluster config file".  Found by `make chaos TIER=k8s SEED=9`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster_runtime.platforms._node_file import agree_on_shards
from tests.cluster.script_nodes import ScriptNodes

if TYPE_CHECKING:
    from pathlib import Path

_MASTER, _REPLICA, _OTHER = ("a" * 40, "b" * 40, "c" * 40)
_RIGHT, _WRONG = "shard-id=" + "d" * 40, "shard-id=" + "e" * 40


def _lines(shard: str) -> str:
    """The file of a master with slots that knows a replica of its own and a blank node."""
    return (
        f"{_MASTER} 127.0.0.1:7000@17000,,tls-port=0,{_RIGHT} myself,master - 0 0 3 connected"
        f" 0-5 [7-<-{_OTHER}]\n"
        f"{_REPLICA} 127.0.0.1:7001@17001,,tls-port=0,{shard} slave,fail {_MASTER} 1 2 3"
        " disconnected\n"
        f"{_OTHER} 127.0.0.1:7002@17002 slave,fail - 0 0 0 disconnected\n"
        "vars currentEpoch 3 lastVoteEpoch 0\n"
    )


def test_a_replica_gets_its_master_s_shard(tmp_path: Path) -> None:
    """All else in the file stays; without a file nothing is done."""
    path = tmp_path / "nodes.conf"
    agree_on_shards(path)
    assert not path.exists()
    for shard in (_WRONG, _RIGHT):
        path.write_text(_lines(shard))
        agree_on_shards(path)
        assert path.read_text() == _lines(_RIGHT)


async def test_the_engine_starts_with_it(tmp_path: Path) -> None:
    """By the script of a pod, which mends it; Valkey 8.1.1 alone ends, 8.1.8 mends it itself."""
    nodes = ScriptNodes(tmp_path / "nodes")
    try:
        node = nodes.make("node")
        await node.up()
        node.kill()
        path = node.folder / "data/nodes.conf"
        own, *rest = path.read_text().splitlines()
        path.write_text(
            "\n".join([own, _line_of_a_replica(own.split()[0]), *rest, ""]), encoding="ascii"
        )
        await node.up()
        told = (await node.call("CLUSTER", "NODES")).decode()
        assert f"{_REPLICA} " in told
    finally:
        nodes.end()


def _line_of_a_replica(master_id: str) -> str:
    return (
        f"{_REPLICA} 127.0.0.1:7001@17001,,tls-port=0,{_WRONG} slave,fail {master_id} 1 2 3"
        " disconnected"
    )
