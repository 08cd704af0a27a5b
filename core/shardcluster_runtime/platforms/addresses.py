"""Where the nodes of the static platform may be: a fixed list, a file, or a DNS name.

Law: a look that fails says nothing.  It raises LookupFailed, and the caller goes on with what it
knew; an empty answer is never made up from a failure.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Protocol

from shardcluster.observed import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    Resolver = Callable[[str, int], Awaitable[Iterable[str]]]

__all__ = [
    "AddressFile", "AddressSource", "DnsName", "FixedAddresses", "LookupFailed", "parse_address",
]  # fmt: skip

ADDRESSES_MAX = 10_000
FILE_BYTES_MAX = 1024 * 1024
PORT_MAX = 65_535


class LookupFailed(Exception):
    """Where the nodes are can't be known now; the message is a sentence."""


class AddressSource(Protocol):
    """Says where nodes may be."""

    proves_absence: bool  # an address that is not listed any more has no process behind it

    async def look(self) -> tuple[Address, ...]:
        """All addresses, sorted, numeric hosts; raises LookupFailed."""
        ...

    def how_to_add(self, total: int) -> str:
        """What people can do so that there are `total` nodes; half a sentence."""
        ...


def parse_address(text: str) -> Address:
    """Read `host:port` (`[::1]:6379` for IPv6); raises ValueError with a sentence."""
    host, colon, port = text.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host):
        message = f"{text.strip()[:100]!r} is not an address like host:6379"
        raise ValueError(message)
    if not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) <= PORT_MAX:
        message = f"{text.strip()[:100]!r} has no port from 1 to {PORT_MAX}"
        raise ValueError(message)
    return Address(bare, int(port))


async def system_resolver(name: str, port: int) -> list[str]:
    """The addresses of a name as this machine's resolver gives them."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class FixedAddresses:
    """A list given once; names in it are looked up each time, for the engine wants numbers."""

    proves_absence = False

    def __init__(
        self, addresses: Iterable[Address], *, resolver: Resolver = system_resolver
    ) -> None:
        """`resolver` gives the numeric addresses of a name."""
        self._addresses = tuple(addresses)
        self._numbers = _Numbers(resolver)

    async def look(self) -> tuple[Address, ...]:
        """The list; names that can't be looked up now keep their last answer."""
        return await self._numbers.of(self._addresses)

    def how_to_add(self, total: int) -> str:
        """Half a sentence."""
        return f"start one more and list its address ({total} in all)"


class AddressFile:
    """A file with one address a line, read again at every look; `#` begins a comment."""

    proves_absence = False

    def __init__(self, path: Path, *, resolver: Resolver = system_resolver) -> None:
        """The file may change at any time; replace it whole."""
        self._path = path
        self._numbers = _Numbers(resolver)

    async def look(self) -> tuple[Address, ...]:
        """What stands in the file now; raises LookupFailed naming the line that can't be read."""
        try:
            with self._path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX).decode()
            lines = (line.partition("#")[0].strip() for line in text.splitlines())
            addresses = tuple(parse_address(line) for line in lines if line)
        except (OSError, ValueError) as error:
            message = f"The list of addresses {self._path} can't be read: {error}."
            raise LookupFailed(message) from error
        return await self._numbers.of(addresses)

    def how_to_add(self, total: int) -> str:
        """Half a sentence."""
        return f"start one more and add its address to {self._path} ({total} in all)"


class DnsName:
    """A name that stands for all nodes, as a scaled Compose service has."""

    proves_absence = True  # an ended container leaves the name; a failed lookup proves nothing

    def __init__(self, name: Address, *, resolver: Resolver = system_resolver) -> None:
        """`name` is the name and the port that all nodes have."""
        self._name = name
        self._resolver = resolver

    async def look(self) -> tuple[Address, ...]:
        """Every address that the name has now."""
        try:
            hosts = set(await self._resolver(self._name.host, self._name.port))
        except (OSError, UnicodeError) as error:
            message = f"The name {self._name.host} can't be looked up: {error}."
            raise LookupFailed(message) from error
        if not hosts:
            message = f"The name {self._name.host} has no addresses."
            raise LookupFailed(message)
        return _ordered(Address(host, self._name.port) for host in hosts)

    def how_to_add(self, total: int) -> str:
        """Half a sentence."""
        return f"start one more, e.g. docker compose up --scale {self._name.host}={total}"


class _Numbers:
    """Turns names into numeric hosts and remembers the last good answers."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._last: dict[str, str] = {}

    async def of(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        hosts = await asyncio.gather(*(self._number(address) for address in addresses))
        return _ordered(
            Address(host, address.port)
            for host, address in zip(hosts, addresses, strict=True)
            if host is not None
        )

    async def _number(self, address: Address) -> str | None:
        if _is_numeric(address.host):
            return address.host
        try:
            found = sorted(set(await self._resolver(address.host, address.port)), key=_host_order)
        except (OSError, UnicodeError):
            found = []  # not known now is not gone
        if found and self._last.get(address.host) not in found:
            self._last[address.host] = found[0]
        return self._last.get(address.host)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_order(host: str) -> tuple[int, int, str]:
    """IPv4 first, by number: 10.0.0.9 comes before 10.0.0.10."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return (9, 0, host)
    return (number.version, int(number), host)


def _ordered(addresses: Iterable[Address]) -> tuple[Address, ...]:
    unique = sorted(set(addresses), key=lambda address: (_host_order(address.host), address.port))
    return tuple(unique[:ADDRESSES_MAX])
