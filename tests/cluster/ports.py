"""Ports for nodes of tests.

They and their bus ports lie below what Linux hands out to outgoing connections: else the port of a
node that was killed may be taken when it is started again.  Tests that run side by side (pytest
-n) each have a region of their own, for between the check and the node's start is time enough.
"""

from __future__ import annotations

import itertools
import os
import socket

__all__ = ["HOST", "free_block", "free_ports"]

HOST = "127.0.0.1"
BUS_PORT_OFFSET = 10_000
FIRST, LAST = 10_240, 21_600
REGIONS = 16
REGION_PORTS = (LAST - FIRST) // REGIONS
BLOCK_PORTS = 16  # the nodes of one store, with some to spare

_region = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % REGIONS
_first = FIRST + _region * REGION_PORTS
# Where the last run of tests left off is not known: begin anywhere in the region.
_next = itertools.count(os.getpid())


def _free(port: int) -> bool:
    for number in (port, port + BUS_PORT_OFFSET):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, number))
                probe.listen(1)
            except OSError:
                return False
    return True


def free_block(ports: int = BLOCK_PORTS) -> int:
    """The first of so many ports that are free, each with its bus port; not one of the last few."""
    for _ in range(REGION_PORTS):
        first = _first + next(_next) * BLOCK_PORTS % (REGION_PORTS - ports)
        if all(_free(port) for port in range(first, first + ports)):
            return first
    message = "no free ports"
    raise AssertionError(message)


def free_ports(count: int) -> list[int]:
    """So many ports in a row."""
    first = free_block(max(count, BLOCK_PORTS))
    return list(range(first, first + count))
