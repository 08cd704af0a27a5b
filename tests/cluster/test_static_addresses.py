"""Where the nodes of somebody else are: names, which are asked again, and files."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from shardcluster.observed import Address
from shardcluster_runtime.platforms.addresses import (
    AddressFile,
    DnsName,
    FixedAddresses,
    LookupFailed,
    parse_address,
)
from tests.cluster.ports import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from shardcluster_runtime.platforms.static import StaticPlatform
    from tests.cluster.plain_nodes import PlainNodes


from tests.cluster.static_platforms import Maker, Names, seen, until


class TestNames:
    """A DNS name that stands for all nodes."""

    @pytest.fixture
    def names(self) -> Names:
        """The answers of the resolver."""
        return Names([HOST, "127.0.0.2"])

    @pytest.fixture
    async def platform(
        self,
        make: Maker,
        names: Names,
        start_plain_node: PlainNodes,
        monkeypatch: pytest.MonkeyPatch,
    ) -> StaticPlatform:
        """Two nodes on one port, at two addresses."""
        monkeypatch.setattr("shardcluster_runtime.platforms.static.LOOKUP_EVERY_S", 0.0)
        monkeypatch.setattr("shardcluster_runtime.platforms.static.LOOKUP_EVERY_LOST_S", 0.0)
        first = start_plain_node()
        start_plain_node.beside(first, "127.0.0.2")
        platform = await make(DnsName(Address("valkey", first.port), resolver=names))
        await platform.scale_shard("shard-0", 2)
        return platform

    async def test_a_failed_lookup_says_nothing(
        self, platform: StaticPlatform, names: Names, start_plain_node: PlainNodes
    ) -> None:
        """All stay where they were; a silent one is not ended by it."""
        before = await seen(platform)
        names.hosts = None
        start_plain_node.all[1].kill()
        asked = names.asked
        for _ in range(5):
            assert await seen(platform) == before
        assert names.asked > asked

    async def test_a_node_whose_address_left_the_name_is_ended(
        self, platform: StaticPlatform, names: Names, start_plain_node: PlainNodes
    ) -> None:
        """Once its connection is closed too, and it is back when it is listed again."""
        names.hosts = [HOST]
        for _ in range(5):
            assert not any(node.ended for node in (await seen(platform)).values())
        start_plain_node.all[1].kill()
        await until(platform, lambda now: now["shard-0-1"].ended)
        assert not (await seen(platform))["shard-0-0"].ended
        start_plain_node.all[1].start()
        names.hosts = [HOST, "127.0.0.2"]
        await until(platform, lambda now: not now["shard-0-1"].ended)
        assert str((await seen(platform))["shard-0-1"].address).startswith("127.0.0.2:")

    async def test_a_listed_dead_node_is_not_ended(
        self, platform: StaticPlatform, start_plain_node: PlainNodes
    ) -> None:
        """Its container may only be restarting."""
        start_plain_node.all[1].kill()
        for _ in range(5):
            assert not any(node.ended for node in (await seen(platform)).values())

    async def test_a_node_may_be_the_one_that_does_not_answer_yet(
        self, platform: StaticPlatform, names: Names, start_plain_node: PlainNodes
    ) -> None:
        """A new address that hangs could be the missing node: no proof."""
        hung = start_plain_node.all[1]
        hung.kill()
        third = start_plain_node.beside(hung, "127.0.0.3")
        assert third.process is not None
        third.process.send_signal(signal.SIGSTOP)
        names.hosts = [HOST, "127.0.0.3"]
        for _ in range(5):
            assert not (await seen(platform))["shard-0-1"].ended
        third.process.send_signal(signal.SIGCONT)
        await until(platform, lambda now: now["shard-0-1"].ended)

    async def test_a_name_without_addresses_is_a_failed_lookup(self) -> None:
        """Never a store that has gone away."""
        for names in (Names([]), Names([HOST])):
            if names.hosts:
                names.hosts = None
            with pytest.raises(LookupFailed, match="valkey"):
                await DnsName(Address("valkey", 6379), resolver=names).look()


class TestAddresses:
    """Addresses as people write them."""

    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [
            ("10.0.0.1:6379", "10.0.0.1", 6379),
            (" node-1:1 ", "node-1", 1),
            ("[::1]:65535", "::1", 65535),
        ],
    )
    def test_a_good_one(self, text: str, host: str, port: int) -> None:
        """Numbers, names, IPv6 in brackets."""
        assert parse_address(text) == Address(host, port)

    @pytest.mark.parametrize(
        "text", ["", "host", "host:", ":6379", "host:0", "host:65536", "host:x", "::1:6379", "[]:1",
                 "host:٣", "host:99999999999999999999"],
    )  # fmt: skip
    def test_a_bad_one_is_named(self, text: str) -> None:
        """In a sentence."""
        with pytest.raises(ValueError, match=r"is not an address like|has no port from"):
            parse_address(text)

    async def test_names_become_numbers_and_keep_them_while_nobody_can_be_asked(self) -> None:
        """The engine's MEET takes no names."""
        names = Names(["10.0.0.10", "10.0.0.9"])
        source = FixedAddresses([Address("node", 1), Address("10.0.0.1", 2)], resolver=names)
        wanted = (Address("10.0.0.1", 2), Address("10.0.0.9", 1))
        assert await source.look() == wanted
        names.hosts = None
        assert await source.look() == wanted
        names.hosts = ["10.0.0.10"]
        assert await source.look() == (Address("10.0.0.1", 2), Address("10.0.0.10", 1))

    async def test_a_bad_file_is_a_failed_lookup(self, tmp_path: Path) -> None:
        """Missing, or with a line that is no address."""
        path = tmp_path / "addresses"
        with pytest.raises(LookupFailed, match="can't be read"):
            await AddressFile(path).look()
        path.write_bytes(b"10.0.0.1:1\nwhat?\n")
        with pytest.raises(LookupFailed, match="what"):
            await AddressFile(path).look()
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(LookupFailed, match="can't be read"):
            await AddressFile(path).look()
