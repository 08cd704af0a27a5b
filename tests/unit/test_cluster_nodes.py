"""`CLUSTER NODES` and `INFO` as engines write them."""

from __future__ import annotations

import pytest

from shardcluster.cluster_nodes import parse_cluster_nodes, parse_info
from shardcluster.observed import Address, OpenSlot
from shardcluster.slots import SlotSet

A, B, C = "a" * 40, "b" * 40, "c" * 40
REPLY = f"""\
{A} 127.0.0.1:7100@1,,shard-id=77 myself,master - 0 0 3 connected 0-5460 5462 [5->-{B}] [7-<-{B}]
{B} 127.0.0.1:7101@1,a.example,tls-port=0 master,fail? - 1 1700000000123 2 disconnected 5463-10922
{C} ::1:7102@17102 slave,noaddr {A} 0 5 3 connected
{"d" * 40} :0@0 handshake - 1 0 0 disconnected
"""


def test_a_whole_reply_is_read() -> None:
    """Old and new address forms, IPv6, roles, epochs, links, slots, open slots."""
    nodes = parse_cluster_nodes(REPLY)
    mine, other, replica, shaking = nodes.peers
    assert mine.node_id == A
    assert mine.flags == {"myself", "master"}
    assert mine.master_id is None
    assert mine.slots == SlotSet.parse("0-5460 5462")
    assert (mine.config_epoch, mine.link_up) == (3, True)
    assert other.address == Address("127.0.0.1", 7101)
    assert (other.pong_ms, other.link_up) == (1_700_000_000_123, False)
    assert replica.address == Address("::1", 7102)
    assert replica.master_id == A
    assert not replica.slots
    assert shaking.address == Address("", 0)
    assert nodes.migrating == (OpenSlot(5, B),)
    assert nodes.importing == (OpenSlot(7, B),)


def test_the_older_form_without_a_bus_port_is_read() -> None:
    """`ip:port` alone."""
    (peer,) = parse_cluster_nodes(f"{A} 10.0.0.1:6379 myself,master - 0 0 0 connected\n").peers
    assert peer.address == Address("10.0.0.1", 6379)


def test_an_empty_reply_is_no_node() -> None:
    """Not even an error."""
    assert parse_cluster_nodes("") == ((), (), ())


@pytest.mark.parametrize(
    "text",
    [
        "-LOADING",
        f"{A} 127.0.0.1:7100@17100 master - 0 0",
        f"{A} 127.0.0.1:x master - 0 0 0 connected",
        f"{A} 127.0.0.1:7100@17100 master - 0 zero 0 connected",
        f"{A} 127.0.0.1:7100@17100 master - 0 0 0 connected 99999",
        f"{A} 127.0.0.1:7100@17100 master - 0 0 0 connected [5->-",
    ],
)
def test_what_cannot_be_read_is_an_error(text: str) -> None:
    """A view that is half understood must not be decided upon."""
    with pytest.raises(ValueError, match=r"."):
        parse_cluster_nodes(text)


def test_info_is_a_flat_mapping() -> None:
    """Headings and empty lines are left out; a value may hold colons."""
    text = "# Server\r\nvalkey_version:8.1.8\r\n\r\n# Replication\r\nslave0:ip=::1,port=1\r\n"
    assert parse_info(text) == {"valkey_version": "8.1.8", "slave0": "ip=::1,port=1"}
