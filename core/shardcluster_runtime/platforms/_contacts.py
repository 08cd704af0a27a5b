"""One open connection to every address at which a node may be: who is there, with what.

Law: what is reported was said in this look, over a connection that is open.  An address that did
not answer the last time is asked again, but not waited for.  Nodes that hold a place are only asked
for their id: the rest of them is the observer's business.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import hiredis

from shardcluster.cluster_nodes import ClusterNodes, parse_cluster_nodes
from shardcluster_runtime.wire import ConnectionLost, NodeConnection, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from shardcluster.observed import Address, PeerView
    from shardcluster_runtime.wire import Credentials

__all__ = ["Contact", "Contacts", "Said"]

LOOK_WAIT_S = 0.5
ANSWER_TIMEOUT_S = 5.0  # then the connection is given up and made anew
PARALLEL_MAX = 64


@dataclass(frozen=True, slots=True)
class Said:
    """What a node that holds no place said of itself, or one that was asked for all."""

    nodes: ClusterNodes
    keys: int

    @property
    def myself(self) -> PeerView:
        """Its line about itself."""
        return next(peer for peer in self.nodes.peers if "myself" in peer.flags)

    @property
    def node_id(self) -> str:
        """Its id."""
        return self.myself.node_id

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing and knows nobody who does: it can be put to use."""
        return (
            not self.keys
            and "master" in self.myself.flags
            and not self.nodes.importing
            and not any(peer.slots for peer in self.nodes.peers)
        )


@dataclass(slots=True)
class Contact:
    """One address."""

    address: Address
    connection: NodeConnection | None = None
    look: asyncio.Task[None] | None = None
    node_id: str | None = None  # None: it didn't answer in this look
    said: Said | None = None  # None: it was not asked, or did not answer
    answered: bool = True  # the last time; a new one is waited for as if it had
    refused: bool = False  # nobody listened, the last time
    last_id: str | None = None  # what it said last over the connection that is open now
    earlier_id: str | None = None  # what it said there before that: it was reset since

    @property
    def open(self) -> bool:
        """Whether the process behind it surely runs."""
        return self.connection is not None and not self.connection.closed

    def drop(self) -> None:
        """End it."""
        if self.look is not None:
            self.look.cancel()
        if self.connection is not None:
            self.connection.close()
        self.node_id = self.said = None

    def heard(self, said: Said | str) -> None:
        """Keep what it answered: all, or only its id."""
        node_id = said if isinstance(said, str) else said.node_id
        if self.last_id not in {None, node_id}:
            self.earlier_id = self.last_id
        self.node_id = self.last_id = node_id
        self.said = None if isinstance(said, str) else said


@dataclass(slots=True)
class Contacts:
    """All addresses."""

    credentials: Credentials
    wake: Callable[[], None]
    all: dict[Address, Contact] = field(default_factory=dict)
    _limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL_MAX))

    def follow(self, addresses: Iterable[Address]) -> None:
        """Have a contact for each of the addresses, and for others only while they are open."""
        listed = set(addresses)
        for address in listed - self.all.keys():
            self.all[address] = Contact(address)
        for address in self.all.keys() - listed:
            if not self.all[address].open:
                self.all.pop(address).drop()

    async def refresh(self, bound: AbstractSet[str]) -> None:
        """Ask everybody, in parallel; wait for those that answered the last time.

        `bound` are the ids that hold a place: they are asked for nothing but their id.
        """
        waited_for = []
        for contact in self.all.values():
            if contact.look is None or contact.look.done():
                contact.look = asyncio.create_task(self._look(contact, bound))
            if contact.answered:
                waited_for.append(contact.look)
        if not waited_for:
            return
        await asyncio.wait(waited_for, timeout=LOOK_WAIT_S)
        for contact in self.all.values():
            if contact.look is not None and not contact.look.done():
                contact.node_id = contact.said = None
                contact.answered = False

    def by_id(self) -> dict[str, Contact]:
        """The node ids that answer now; of an id at two addresses the first counts."""
        found: dict[str, Contact] = {}
        for address in sorted(self.all):
            contact = self.all[address]
            if contact.node_id is not None and contact.open:
                found.setdefault(contact.node_id, contact)
        return found

    async def close(self) -> None:
        """End all connections."""
        looks = [contact.look for contact in self.all.values() if contact.look is not None]
        for contact in self.all.values():
            contact.drop()
        await asyncio.gather(*looks, return_exceptions=True)
        self.all.clear()

    async def _look(self, contact: Contact, bound: AbstractSet[str]) -> None:
        was_silent = not contact.answered
        contact.refused = contact.answered = False
        async with self._limit:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    contact.heard(await self._heard(contact, bound))
                contact.answered = True
            except ConnectionRefusedError:
                contact.refused = True
            except TimeoutError:
                if contact.connection is not None:
                    contact.connection.close()
            except (OSError, ConnectionLost, NodeReplyError, Overloaded, ValueError):
                pass  # a node that loads, refuses or speaks in riddles is not known now
        if not contact.answered:
            contact.node_id = contact.said = None
        elif was_silent:
            self.wake()

    async def _heard(self, contact: Contact, bound: AbstractSet[str]) -> Said | str:
        if contact.connection is None or contact.connection.closed:
            contact.last_id = contact.earlier_id = None
            contact.connection = await NodeConnection.open(
                contact.address,
                timeout_s=ANSWER_TIMEOUT_S,
                credentials=self.credentials,
                on_closed=lambda _connection: self.wake(),
            )
        node_id = (await contact.connection.call("CLUSTER", "MYID")).decode()
        return node_id if node_id in bound else await self.ask(contact)

    async def ask(self, contact: Contact) -> Said:
        """Ask one node over its open connection.

        Raises ConnectionLost, NodeReplyError, TimeoutError, ValueError.
        """
        if contact.connection is None:
            message = f"no connection to {contact.address}"
            raise ConnectionLost(message, sent=False)
        replies = await contact.connection.calls(
            (("CLUSTER", "NODES"), ("DBSIZE",)), timeout_s=ANSWER_TIMEOUT_S
        )
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise NodeReplyError(str(reply))
        return Said(parse_cluster_nodes(replies[0].decode()), int(replies[1]))
