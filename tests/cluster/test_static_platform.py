"""Nodes that somebody else runs: found again by id, spares verified, ends proven or not claimed."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from shardcluster.observed import Address
from shardcluster_runtime.platforms.addresses import (
    AddressFile,
    DnsName,
    FixedAddresses,
)
from shardcluster_runtime.platforms.protocol import PlatformUnable
from tests.cluster.plain_nodes import PlainNodes, until_true
from tests.cluster.ports import HOST, free_block

if TYPE_CHECKING:
    from pathlib import Path


from tests.cluster.static_platforms import Maker, Names, formed, knows, seen, until


class TestFinding:
    """A place is held by an id, wherever that is now."""

    async def test_nodes_restarted_on_other_ports_are_found_again(
        self, make: Maker, start_plain_node: PlainNodes, tmp_path: Path
    ) -> None:
        """All at once, the list of addresses rewritten."""
        nodes = [start_plain_node() for _ in range(3)]
        listing = tmp_path / "addresses"
        listing.write_text("".join(f"{node.address}  # a node\n" for node in nodes))
        platform = await make(AddressFile(listing))
        await platform.scale_shard("shard-0", 3)
        before = await seen(platform)
        for node in nodes:
            node.kill()
        for node in nodes:
            node.start(free_block())
        listing.write_text("\n# moved\n" + "".join(f"{node.address}\n" for node in nodes))
        ports = {node.port for node in nodes}
        await until(
            platform, lambda now: {one.address.port for one in now.values() if one.address} == ports
        )
        now = await seen(platform)
        assert {name: node.known_id for name, node in now.items()} == {
            name: node.known_id for name, node in before.items()
        }
        assert {(node.address, node.known_id) for node in now.values()} == {
            (node.address, node.node_id) for node in nodes
        }

    async def test_a_stranger_at_a_nodes_address_is_not_taken_for_it(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """The node is nowhere then, under the id it had; the stranger is a spare."""
        nodes = [start_plain_node() for _ in range(2)]
        platform = await make(nodes)
        await platform.scale_shard("shard-0", 2)
        before = await seen(platform)
        victim = next(node for node in nodes if node.address == before["shard-0-1"].address)
        victim.kill()
        victim.wipe()
        victim.start(victim.port)
        await until(platform, lambda now: now["shard-0-1"].address is None)
        now = await seen(platform)
        assert now["shard-0-1"].known_id == before["shard-0-1"].known_id
        assert not now["shard-0-1"].ended
        assert now["shard-0-0"] == before["shard-0-0"]
        assert await platform.spare_nodes() == 1

    async def test_a_silent_node_keeps_its_address_and_is_not_ended(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """A fixed address proves nothing."""
        node = start_plain_node()
        platform = await make([node])
        await platform.scale_shard("shard-0", 1)
        before = await seen(platform)
        node.kill()
        for _ in range(5):
            assert await seen(platform) == before

    async def test_a_node_that_was_reset_keeps_its_place(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """The same connection says another id: it is the same process."""
        node = start_plain_node()
        platform = await make([node])
        await platform.scale_shard("shard-0", 1)
        before = (await seen(platform))["shard-0-0"]
        node.call("CLUSTER RESET", "HARD")
        after = (await seen(platform))["shard-0-0"]
        assert after.address == before.address
        assert after.known_id == node.node_id != before.known_id


class TestSpares:
    """Only what is verified empty is put to use."""

    async def test_nodes_with_keys_slots_or_ties_to_owners_are_no_spares(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """And nothing is changed on them."""
        owner, tied, spare = (start_plain_node() for _ in range(3))
        formed(owner)
        owner.call("CLUSTER MEET", HOST, tied.port)
        until_true(lambda: owner.node_id in str(tied.call("CLUSTER NODES")), "the meeting")
        until_true(
            lambda: any(line["slots"] for line in tied.call("CLUSTER NODES").values()), "the slots"
        )
        mine = start_plain_node()
        platform = await make([mine])
        await platform.scale_shard("shard-0", 1)
        await platform.close(stop_nodes=False)
        platform = await make([mine, owner, tied, spare])
        await platform.nodes()
        assert await platform.spare_nodes() == 1
        with pytest.raises(PlatformUnable, match="shard-1 needs 2 nodes and only 1 spare node is"):
            await platform.scale_shard("shard-1", 2)
        assert (await seen(platform))["shard-1-0"].address == spare.address
        assert owner.node_id in str(tied.call("CLUSTER NODES"))

    async def test_leftover_peers_of_a_spare_are_wiped_off(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """By a hard reset: it has another id then."""
        first, second = start_plain_node(), start_plain_node()
        first.call("CLUSTER MEET", HOST, second.port)
        until_true(lambda: knows(first, second) and knows(second, first), "the meeting")
        ids = {first.node_id, second.node_id}
        platform = await make([first, second])
        await platform.scale_shard("shard-0", 2)
        assert ids.isdisjoint({node.known_id for node in (await seen(platform)).values()})

    async def test_too_few_spares_say_what_to_do(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """With the very number for Compose."""
        node = start_plain_node()
        source = DnsName(Address("valkey", node.port), resolver=Names([HOST]))
        platform = await make(source)
        with pytest.raises(PlatformUnable) as refusal:
            await platform.scale_shard("shard-0", 2)
        assert str(refusal.value) == (
            "shard-0 needs 2 nodes and only 1 spare node is there: start one more, e.g. "
            "docker compose up --scale valkey=2."
        )
        assert list(await seen(platform)) == ["shard-0-0"]
        with pytest.raises(PlatformUnable, match="needs 1 more node and only 0 spare nodes are"):
            await platform.scale_shard("shard-0", 2)

    async def test_a_shard_is_spread_over_hosts(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """As far as there are hosts."""
        nodes = [start_plain_node("--bind", HOST, "127.0.0.2") for _ in range(4)]
        addresses = [
            Address(host, node.port)
            for host, node in zip((HOST, HOST, "127.0.0.2", "127.0.0.2"), nodes, strict=True)
        ]
        platform = await make(FixedAddresses(addresses))
        await platform.scale_shard("shard-0", 2)
        await platform.scale_shard("shard-1", 2)
        now = await seen(platform)
        for shard in ("shard-0", "shard-1"):
            hosts = {
                node.address.host for node in now.values() if node.shard == shard and node.address
            }
            assert hosts == {HOST, "127.0.0.2"}

    async def test_a_store_is_begun_only_when_every_listed_node_answers_or_refuses(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """One that hangs may hold an older store."""
        spare, hung = start_plain_node(), start_plain_node()
        platform = await make([spare, hung])
        assert hung.process is not None
        hung.process.send_signal(signal.SIGSTOP)
        with pytest.raises(PlatformUnable, match="1 of the nodes that are listed don't answer"):
            await platform.scale_shard("shard-0", 1)
        hung.process.send_signal(signal.SIGCONT)
        await platform.nodes()


class TestAdoption:
    """Without `members.json` the cluster itself says who belongs together."""

    async def test_a_running_cluster_is_taken_over(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """Shards by their lowest slot, masters first, spares left out; then it is remembered."""
        high, low, replica, spare = (start_plain_node() for _ in range(4))
        formed(low, high, replicas=[(replica, high)])
        platform = await make([high, low, replica, spare])
        now = await seen(platform)
        assert {name: node.address for name, node in now.items()} == {
            "shard-0-0": low.address,
            "shard-1-0": high.address,
            "shard-1-1": replica.address,
        }
        assert platform.formed_before
        assert await platform.spare_nodes() == 1
        await platform.close(stop_nodes=False)
        assert await seen(await make([spare, replica, low, high])) == now

    async def test_half_a_cluster_is_not_taken_over_nor_a_new_one_begun_beside_it(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """An owner of slots is not listed: these may be the wrong nodes."""
        listed, unlisted, spare = (start_plain_node() for _ in range(3))
        formed(listed, unlisted)
        platform = await make([listed, spare])
        assert await platform.nodes() == ()
        with pytest.raises(PlatformUnable, match="neither taken over by halves"):
            await platform.scale_shard("shard-0", 1)

    async def test_a_file_that_cannot_be_read_stops_the_start(self, make: Maker) -> None:
        """With the way out; the folder is not left locked."""
        members = make.folder / "members.json"
        for text in ("", "[]", '{"members": {"bad": {}}}', '{"members": {"shard-0-0": {}}}'):
            members.write_text(text)
            with pytest.raises(PlatformUnable, match=r"members\.json can't be read"):
                await make([])
        members.unlink()
        await make([])


class TestReplacing:
    """A container that comes back without its volume."""

    async def test_the_place_of_a_node_lost_for_good_goes_to_a_spare(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """Here to the new node at its old address; never while the old id owns slots."""
        master, replica = start_plain_node(), start_plain_node()
        formed(master, replicas=[(replica, master)])
        platform = await make([master, replica], replace_after_s=0.0)
        before = await seen(platform)
        replica.kill()
        replica.wipe()
        replica.start(replica.port)
        await until(platform, lambda now: now["shard-0-1"].known_id != before["shard-0-1"].known_id)
        now = await seen(platform)
        assert now["shard-0-1"].known_id == replica.node_id
        assert now["shard-0-1"].address == replica.address
        document = json.loads((make.folder / "members.json").read_text())
        assert document["members"]["shard-0-1"]["node_id"] == replica.node_id

    async def test_the_place_of_a_slot_owner_is_kept(
        self, make: Maker, start_plain_node: PlainNodes
    ) -> None:
        """Its data may come back."""
        first, second = start_plain_node(), start_plain_node()
        formed(first, second)
        platform = await make([first, second], replace_after_s=0.0)
        before = await seen(platform)
        second.kill()
        second.wipe()
        second.start(second.port)
        await until(platform, lambda now: now["shard-1-0"].address is None)
        assert await platform.spare_nodes() == 1
        for _ in range(5):
            assert (await seen(platform))["shard-1-0"].known_id == before["shard-1-0"].known_id
