"""Nodes that somebody else starts, found at fixed addresses or by a DNS name.

Law: nothing here starts or ends a process.  A node that can't be reached is unknown; it is ended
only when a DNS name proves it: two successful lookups in a row don't list its address any more,
its connection is closed, and none of the addresses that are listed could be it.
A spare is put to use only when it is verified empty in the very moment before.  A place whose node
is lost for good goes to a spare, once the old node owns no slot any more: otherwise a container
that came back without its volume would leave its shard without a replica for ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardcluster.names import node_name
from shardcluster_runtime.platforms._contacts import Contact, Contacts, Said
from shardcluster_runtime.platforms._folder import StateFolder, as_sentences
from shardcluster_runtime.platforms._members import Member, Members, adopted
from shardcluster_runtime.platforms.addresses import LookupFailed
from shardcluster_runtime.platforms.protocol import PlatformNode, PlatformUnable
from shardcluster_runtime.wire import ConnectionLost, Credentials, NodeReplyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shardcluster.observed import Address
    from shardcluster_runtime.platforms.addresses import AddressSource

__all__ = ["StaticPlatform"]

MEMBERS_FILE = "members.json"
LOOKUP_EVERY_S = 1.0
LOOKUP_EVERY_LOST_S = 0.2  # while a node is missing: a proof of its end, or its new address
LOOKUP_WAIT_S = 0.5  # a slower lookup goes on while the last answer is used
LOOKUP_TIMEOUT_S = 5.0
ABSENT_LOOKUPS_MIN = 2
REPLACE_AFTER_S = 30.0  # a container that restarts is back sooner, with its data
RESET_TIMEOUT_S = 2.0


@dataclass(slots=True)
class _Lookups:
    """What the address source said, and when."""

    addresses: tuple[Address, ...] = ()
    asked_s: float = float("-inf")
    successes: int = 0
    trouble: str = "No address was looked up yet."
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Absence:
    """Since when a place's node is not found."""

    since_s: float
    successes: int  # of lookups, then


class StaticPlatform:
    """Binds nodes that run elsewhere to the places of one store."""

    can_fence = False
    can_restart = False

    def __init__(
        self,
        folder: Path,
        source: AddressSource,
        *,
        credentials: Credentials | None = None,
        keeps_data: bool = True,
        replace_after_s: float = REPLACE_AFTER_S,
    ) -> None:
        """`keeps_data`: the nodes have volumes.  `folder` holds `members.json`."""
        self._folder = StateFolder(folder)
        self._source = source
        self.credentials = credentials or Credentials()
        self.keeps_data = keeps_data
        self._replace_after_s = replace_after_s
        self._members = Members(self._folder.path / MEMBERS_FILE)
        self._contacts = Contacts(self.credentials, lambda: None)
        self._lookups = _Lookups()
        self._absent: dict[str, _Absence] = {}  # by name of the place
        self.formed_before = False

    async def start(self, wake: Callable[[], None]) -> None:
        """Lock the folder and read who has which place; raises PlatformUnable."""
        with as_sentences():
            self._folder.lock()
            try:
                self._members.load()
            except PlatformUnable:
                self._folder.unlock()
                raise
            self.formed_before = self._folder.formed()
        self._contacts = Contacts(self.credentials, wake)

    async def nodes(self) -> tuple[PlatformNode, ...]:
        """All places, each at the address where its node is now."""
        await self._refresh()
        by_id = self._contacts.by_id()
        return tuple(self._seen(member, by_id) for member in self._members.in_order())

    async def spare_nodes(self) -> int | None:
        """How many verified empty nodes hold no place."""
        return len(self._spares())

    async def scale_shard(self, shard: str, nodes: int) -> None:
        """Let go of places that are too many; give missing ones to spares."""
        await self._refresh()
        with as_sentences():
            for member in reversed(self._members.of_shard(shard)):
                if member.ordinal >= nodes:
                    del self._members.all[member.name]
                    self._members.save()
            missing = [
                name
                for name in (node_name(shard, ordinal) for ordinal in range(nodes))
                if name not in self._members.all
            ]
            if not missing:
                return
            self._check_first_binding()
            spares = len(self._spares())
            for name in missing:
                if not await self._bind(name, shard):
                    raise PlatformUnable(self._too_few(shard, nodes, len(missing), spares))

    async def restart(self, node: str, *, fresh: bool) -> None:
        """Not possible here."""
        del fresh
        message = f"{node} is started again by whoever runs it, not from here."
        raise PlatformUnable(message)

    async def replace(self, node: str) -> None:
        """Not possible here."""
        message = f"{node} can't be started again from here: do it where it runs."
        raise PlatformUnable(message)

    async def fence(self, node: str) -> None:
        """Not possible here."""
        message = f"{node} can't be ended for certain from here: stop it where it runs."
        raise PlatformUnable(message)

    async def mark_formed(self) -> None:
        """Leave a marker in the folder."""
        with as_sentences():
            self._folder.mark_formed()
        self.formed_before = True

    async def kill(self, node: str, signal_name: str) -> None:
        """Not possible here."""
        message = (
            f"{node} runs elsewhere and no signal can be sent to it from here: use, for example, "
            f"docker compose kill -s SIG{signal_name}."
        )
        raise PlatformUnable(message)

    async def close(self, *, stop_nodes: bool) -> None:
        """Let go; the nodes are somebody else's to stop."""
        del stop_nodes
        if self._lookups.task is not None:
            self._lookups.task.cancel()
            await asyncio.gather(self._lookups.task, return_exceptions=True)
        await self._contacts.close()
        self._folder.unlock()

    # -- looking ----------------------------------------------------------------------------

    async def _refresh(self) -> None:
        await self._look_up()
        self._contacts.follow(self._lookups.addresses)
        await self._contacts.refresh(self._members.ids())
        if not self._members.all:
            self._adopt()
        self._follow_members()
        await self._replace_lost()

    async def _look_up(self) -> None:
        lookups = self._lookups
        now_s = asyncio.get_running_loop().time()
        pause_s = LOOKUP_EVERY_LOST_S if self._absent else LOOKUP_EVERY_S
        if lookups.task is None or lookups.task.done():
            if now_s - lookups.asked_s < pause_s:
                return
            lookups.asked_s = now_s
            lookups.task = asyncio.create_task(self._ask_source())
        await asyncio.wait([lookups.task], timeout=LOOKUP_WAIT_S)

    async def _ask_source(self) -> None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                addresses = await self._source.look()
        except LookupFailed as error:
            self._lookups.trouble = str(error)
        except TimeoutError:
            self._lookups.trouble = f"The lookup takes longer than {LOOKUP_TIMEOUT_S:g} s."
        else:
            self._lookups.addresses = addresses
            self._lookups.successes += 1
            self._lookups.trouble = ""

    def _adopt(self) -> None:
        """With no place known, take over the cluster that the nodes carry, if they carry one."""
        found = adopted(self._said())
        if found:
            self._members.all = {member.name: member for member in found}
            with as_sentences():
                self._members.save()
                self._folder.mark_formed()
            self.formed_before = True

    def _said(self) -> dict[Address, Said]:
        return {
            contact.address: contact.said
            for contact in self._contacts.by_id().values()
            if contact.said is not None
        }

    def _follow_members(self) -> None:
        """Keep each place's id through a reset, its last address, and since when it is missing."""
        by_id = self._contacts.by_id()
        reset = {contact.earlier_id: node_id for node_id, contact in by_id.items()}
        changed = False
        for member in self._members.all.values():
            if member.node_id in reset and member.node_id not in by_id:
                # The same connection says another id now: the same process, after a reset.
                member.node_id = reset[member.node_id]
                changed = True
            contact = by_id.get(member.node_id)
            if contact is None:
                now_s = asyncio.get_running_loop().time()
                self._absent.setdefault(member.name, _Absence(now_s, self._lookups.successes))
                continue
            self._absent.pop(member.name, None)
            if contact.address != member.address:
                member.address = contact.address
                changed = True
        for contact in by_id.values():
            contact.earlier_id = None
        for name in self._absent.keys() - self._members.all.keys():
            del self._absent[name]
        if changed:
            with as_sentences():
                self._members.save()

    def _seen(self, member: Member, by_id: dict[str, Contact]) -> PlatformNode:
        contact = by_id.get(member.node_id)
        there = self._contacts.all.get(member.address)
        # Another node at its old address must not be taken for it.
        other = contact is None and there is not None and there.node_id is not None
        return PlatformNode(
            name=member.name,
            shard=member.shard,
            ordinal=member.ordinal,
            address=None if other else (contact.address if contact else member.address),
            ended=contact is None and self._proven_gone(member),
            known_id=member.node_id,
        )

    def _proven_gone(self, member: Member) -> bool:
        absence = self._absent.get(member.name)
        lookups = self._lookups
        if absence is None or not self._source.proves_absence or lookups.trouble:
            return False
        there = self._contacts.all.get(member.address)
        return (
            member.address not in lookups.addresses
            and (there is None or not there.open)
            and lookups.successes - absence.successes >= ABSENT_LOOKUPS_MIN
            and all(self._is_somebody(address) for address in lookups.addresses)
        )

    def _is_somebody(self, address: Address) -> bool:
        """Whether the address is known not to be a lost node that is about to answer."""
        contact = self._contacts.all.get(address)
        return contact is not None and (contact.node_id is not None or contact.refused)

    # -- binding ----------------------------------------------------------------------------

    def _spares(self) -> list[Contact]:
        bound = self._members.ids()
        return [
            contact
            for node_id, contact in self._contacts.by_id().items()
            if node_id not in bound and contact.said is not None and contact.said.is_empty
        ]

    def _check_first_binding(self) -> None:
        """The first place is given only when it is sure that no cluster is here already."""
        if self._members.all:
            return
        if self._lookups.trouble:
            raise PlatformUnable(self._lookups.trouble)
        silent = [
            str(address) for address in self._lookups.addresses if not self._is_somebody(address)
        ]
        if silent:
            message = (
                f"{len(silent)} of the nodes that are listed don't answer ({', '.join(silent[:3])})"
                ": a new store is begun only when it is sure that none of them holds an old one."
            )
            raise PlatformUnable(message)
        if adopted(self._said()) is None:
            message = (
                "The nodes that are listed belong to a cluster whose other nodes don't answer or "
                "are not listed: it is neither taken over by halves nor is a new one begun."
            )
            raise PlatformUnable(message)

    async def _bind(self, name: str, shard: str) -> bool:
        """Give the place to the best spare; False when there is none."""
        mates = [member.address.host for member in self._members.of_shard(shard)]
        everyone = [member.address.host for member in self._members.all.values()]

        def crowded(contact: Contact) -> tuple[int, int, Address]:
            # A shard's nodes on different hosts first, then the emptier host.
            host = contact.address.host
            return (mates.count(host), everyone.count(host), contact.address)

        for contact in sorted(self._spares(), key=crowded):
            node_id = await self._made_ready(contact)
            if node_id is not None:
                self._members.all[name] = Member(name, node_id, contact.address)
                self._members.save()
                self._absent.pop(name, None)
                return True
        return False

    async def _made_ready(self, contact: Contact) -> str | None:
        """The id of a spare that is empty and knows nobody, after a reset if need be."""
        connection = contact.connection
        if connection is None:
            return None
        try:
            said = await self._contacts.ask(contact)
            if said.is_empty and len(said.nodes.peers) > 1:
                await connection.call("CLUSTER", "RESET", "HARD", timeout_s=RESET_TIMEOUT_S)
                said = await self._contacts.ask(contact)
        except (TimeoutError, ConnectionLost, NodeReplyError, OSError, ValueError):
            return None
        contact.heard(said)
        contact.earlier_id = None  # it held no place before: there is nothing to carry over
        return said.node_id if said.is_empty else None

    async def _replace_lost(self) -> None:
        """Give the places of nodes that are lost for good, and own nothing any more, to spares."""
        now_s = asyncio.get_running_loop().time()
        for name, absence in list(self._absent.items()):
            if now_s - absence.since_s < self._replace_after_s or not self._spares():
                continue
            member = self._members.all[name]
            there = self._contacts.all.get(member.address)
            displaced = there is not None and there.node_id is not None
            gone = displaced or self._proven_gone(member)
            if gone and await self._owns_nothing(member.node_id):
                del self._members.all[name]
                with as_sentences():
                    if not await self._bind(name, member.shard):
                        self._members.all[name] = member

    async def _owns_nothing(self, node_id: str) -> bool:
        """Whether all nodes of the store that answer say so, and own something themselves."""
        by_id = self._contacts.by_id()
        asked = [self._contacts.ask(by_id[one]) for one in self._members.ids() & by_id.keys()]
        views = await asyncio.gather(*asked, return_exceptions=True)
        said = [view for view in views if isinstance(view, Said)]
        return (
            len(said) == len(views)
            and any(one.myself.slots for one in said)
            and not any(
                peer.slots for one in said for peer in one.nodes.peers if peer.node_id == node_id
            )
        )

    def _too_few(self, shard: str, nodes: int, missing: int, spares: int) -> str:
        more = "more " if missing < nodes else ""
        needed = f"{missing} {more}node{'' if missing == 1 else 's'}"
        have = f"only {spares} spare node{' is' if spares == 1 else 's are'} there"
        total = len(self._lookups.addresses) + missing - spares
        trouble = f" ({self._lookups.trouble})" if self._lookups.trouble else ""
        return f"{shard} needs {needed} and {have}: {self._source.how_to_add(total)}{trouble}."
