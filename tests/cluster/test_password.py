"""A password that changes while nodes, operator and gateways run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardcluster_api.gateway import Gateway
from shardcluster_api.settings import Settings
from shardcluster_operator.password import change_password
from shardcluster_runtime.wire import Credentials, NodeConnection, NodeReplyError
from tests.cluster.mini_cluster import mini_cluster
from tests.unit.api_fakes import ask, until

if TYPE_CHECKING:
    from pathlib import Path

    from shardcluster.observed import Address

OLD, NEW = "the old one", "the new one"
KEY = b"k"


async def _log_in(address: Address, password: str) -> None:
    connection = await NodeConnection.open(
        address, timeout_s=2.0, credentials=Credentials(password)
    )
    connection.close()


async def test_a_new_password_is_good_beside_the_old_one(tmp_path: Path) -> None:
    """No client is cut off, replication goes on, and a gateway takes the new one from its file."""
    file = tmp_path / "password"
    file.write_text(f"{OLD}\n", encoding="utf-8")
    async with mini_cluster(1, owners=1, replicas=1, password=OLD) as cluster:
        addresses = [node.address for node in cluster.nodes]
        seeds = ",".join(str(address) for address in addresses)
        gateway = Gateway(Settings.read(None, seeds, {"SHARDCLUSTER_PASSWORD_FILE": str(file)}))
        gateway.start()
        try:
            await until(lambda: not gateway.unready(), "it is ready")
            assert await change_password(addresses, OLD, NEW) == []
            assert await change_password(addresses, OLD, NEW) == []  # told twice is no harm
            for address in addresses:
                await _log_in(address, OLD)
                await _log_in(address, NEW)
            file.write_text(NEW, encoding="utf-8")
            for node in cluster.nodes:  # as if started with the new one alone
                node.password = NEW
                await node.call("CONFIG", "SET", "requirepass", NEW)
                await node.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            query = "durability=replica"
            await until(lambda: not gateway.unready(), "it is back")
            answer = await ask(gateway, "put_key", key=KEY, body=b"v", query=query)
            assert answer.status == 204
        finally:
            await gateway.close()


async def test_nodes_that_can_not_be_told_are_named() -> None:
    """With neither password known nothing is changed."""
    async with mini_cluster(1, owners=1, password=OLD) as cluster:
        addresses = [node.address for node in cluster.nodes]
        assert await change_password(addresses, "wrong", "wrong, too") == addresses
        with pytest.raises(NodeReplyError):
            await _log_in(addresses[0], "wrong, too")
