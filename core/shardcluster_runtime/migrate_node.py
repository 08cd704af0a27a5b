"""What the migrator says to one node, and what the node's answers mean.

A node here has its `Peer` connection for keys (MIGRATE holds it up while it runs) and, when it has
replicas, some more for CLUSTER SETSLOT: Valkey 8+ holds a client up in each SETSLOT until the
replicas have it.  64 of them on one connection cost 64 round trips and 64 writes of the node file,
on connections of their own about one.

WAIT is not used to learn what replicas have: it covers the writes of the *calling client*, and
moved keys are written to the target by the source's client.  INFO tells the target's offset after
the last moved key and the offset each replica acknowledged; comparing them covers every writer.
Replicas acknowledge once a second by themselves; a WAIT for more replicas than there are makes the
node ask them at once, and that is all it is used for.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster.cluster_nodes import parse_info
from shardcluster_runtime.wire import ConnectionLost, NodeConnection, NodeReplyError, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shardcluster.observed import Address
    from shardcluster_runtime.wire import Argument, Credentials

__all__ = [
    "LANES_OF_SOURCE", "LANES_OF_TARGET", "LanePool", "MigrationNode", "NodeTrouble", "Peer",
    "ReplicaOffsets", "read_offsets",
]  # fmt: skip

COMMAND_TIMEOUT_S = 2.0
SETSLOT_TIMEOUT_S = 5.0  # Valkey 8+ waits up to 2 s for replicas in each; two rounds and a bit
CONNECT_TIMEOUT_S = 1.0
LANES_OF_TARGET = 192  # connections for SETSLOT to a node with replicas: 16 gave 24k keys/s, 32
LANES_OF_SOURCE = 64  # 28k, 64 30k; more at a target mean fewer writes of every node's node file
LANES_MAX = 512  # of a pool: file descriptors are few (a usual limit is 1024 a process)
LANES_LEAST = 8  # even where that makes more than LANES_MAX
REPLICA_ACK_WAIT_S = 2.0
NUDGE_MS = 1  # how long a WAIT that can't be met may hold its connection up

# Size of each key, in the engine: one command a slot instead of one a key.  Yields the sum, then
# index and size of each key of at least ARGV[1] bytes.
_SIZES_SCRIPT = """
local found, sum, least = {0}, 0, tonumber(ARGV[1])
for index, key in ipairs(KEYS) do
  local size = redis.call('MEMORY', 'USAGE', key) or 0
  sum = sum + size
  if size >= least then
    found[#found + 1] = index
    found[#found + 1] = size
  end
end
found[1] = sum
return found
"""

_SLAVE = re.compile(r"slave\d+")


class NodeTrouble(Exception):
    """A node can't go on with any slot now; the message is a sentence."""


@dataclass(frozen=True)
class Peer:
    """A master to talk to."""

    name: str
    node_id: str
    address: Address  # as the other nodes reach it
    connection: NodeConnection


@dataclass(frozen=True, slots=True)
class ReplicaOffsets:
    """A master's own replication offset and what its replicas in step have acknowledged."""

    master: int
    online: tuple[int, ...]
    connected: int


def read_offsets(info: str) -> ReplicaOffsets:
    """Read an `INFO replication` reply."""
    fields = parse_info(info)
    replicas = [
        dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
        for name, value in fields.items()
        if _SLAVE.fullmatch(name)
    ]
    return ReplicaOffsets(
        int(fields["master_repl_offset"]),
        tuple(int(replica["offset"]) for replica in replicas if replica["state"] == "online"),
        len(replicas),
    )


class LanePool:
    """Connections for SETSLOT, kept from slice to slice; `close` it when no slots move any more."""

    def __init__(self, credentials: Credentials) -> None:
        """How to log in."""
        self.credentials = credentials
        self._lanes: dict[Address, list[NodeConnection]] = {}

    async def lanes(self, address: Address, count: int) -> list[NodeConnection]:
        """At least one and at most `count` connections to a node.

        Raises what `NodeConnection.open` raises when there is none to be had.
        """
        for lanes in self._lanes.values():
            lanes[:] = [lane for lane in lanes if not lane.closed]  # others may be adding to it
        kept = self._lanes.setdefault(address, [])
        taken = sum(len(lanes) for lanes in self._lanes.values())
        missing = min(count - len(kept), max(LANES_LEAST - len(kept), LANES_MAX - taken))

        async def add() -> None:  # kept at once: this call may be cancelled while others open
            kept.append(
                await NodeConnection.open(
                    address, timeout_s=CONNECT_TIMEOUT_S, credentials=self.credentials
                )
            )

        results = await asyncio.gather(*(add() for _ in range(missing)), return_exceptions=True)
        failed = [error for error in results if error is not None]
        if failed and not kept:
            raise failed[0]
        return kept[:count]

    def close(self) -> None:
        """End all of them; the pool can be used again."""
        for lanes in self._lanes.values():
            for lane in lanes:
                lane.close()
        self._lanes.clear()


class MigrationNode:
    """One node while slots move; `prepare` comes first."""

    def __init__(self, peer: Peer, turns: int) -> None:
        """`turns`: how many writes of MIGRATEs may be in the node's queue at once."""
        self.peer = peer
        self.name = peer.name
        self._turns = turns
        self._free_turns = asyncio.Semaphore(turns)
        self._alone = asyncio.Lock()
        self.held_up_until_s = 0.0
        self.lost = False  # it hung or its connection ended: nothing more is asked of it
        self.has_replicas = False
        self._lanes: list[NodeConnection] = []

    async def prepare(self, pool: LanePool, lanes: int) -> None:
        """Find out whether it has replicas and have connections for SETSLOT then."""
        self.has_replicas = (await self.offsets()).connected > 0
        if not self.has_replicas:
            return
        try:
            self._lanes = await pool.lanes(self.peer.connection.address, lanes)
        except (OSError, NodeReplyError, TimeoutError) as error:
            message = f"{self.name} takes no more connections: {error}"
            raise NodeTrouble(message) from error

    @asynccontextmanager
    async def turn(self, *, alone: bool) -> AsyncIterator[None]:
        """One of the turns to send MIGRATEs, or all of them."""
        if not alone:
            async with self._free_turns:
                yield
            return
        # The lock: two that gather places would each hold what the other needs.
        async with self._alone, AsyncExitStack() as places:
            for _ in range(self._turns):
                await places.enter_async_context(self._free_turns)
            yield

    def held_up(self, seconds: float) -> None:
        """It may answer nothing for so long: a big key is under way."""
        until_s = asyncio.get_running_loop().time() + seconds
        self.held_up_until_s = max(self.held_up_until_s, until_s)

    async def calls(
        self, commands: Sequence[tuple[Argument, ...]], timeout_s: float = COMMAND_TIMEOUT_S
    ) -> list[Any]:
        """Send all as one write; error replies stay values.  Raises NodeTrouble."""
        return await self._on([self.peer.connection], commands, timeout_s)

    async def call(self, *command: Argument, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """`calls` with one."""
        return (await self.calls([command], timeout_s))[0]

    async def set_slots(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """CLUSTER SETSLOT, many at once; error replies stay values.  Raises NodeTrouble."""
        lanes = [lane for lane in self._lanes if not lane.closed] or [self.peer.connection]
        replies = await self._on(lanes, commands, SETSLOT_TIMEOUT_S)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOREPLICAS"):
                message = f"The replicas of {self.name} do not follow, so no slot can change there."
                raise NodeTrouble(message)
        return replies

    def give_up(self) -> None:
        """Nothing more is asked of it: what it has not answered is not done any more.

        SETSLOTs wait for its replicas; it would do them as soon as these answer, a second later
        maybe, when another has taken the slots over by right.  It forgets what a client waits for
        whose connection ends.
        """
        for connection in (*self._lanes, self.peer.connection):
            if connection.waiting:
                connection.abort()

    async def _on(
        self,
        connections: Sequence[NodeConnection],
        commands: Sequence[tuple[Argument, ...]],
        timeout_s: float,
    ) -> list[Any]:
        if self.held_up_until_s:
            left_s = self.held_up_until_s - asyncio.get_running_loop().time()
            timeout_s += max(0.0, left_s)
        try:
            async with asyncio.timeout(timeout_s):
                futures = [
                    connections[index % len(connections)].send(*command)
                    for index, command in enumerate(commands)
                ]
                return [await future for future in futures]
        except TimeoutError as error:
            # Its late answers must not be taken for answers to something else.
            self.lost = True
            for connection in connections:
                connection.abort()
            message = f"{self.name} did not answer within {timeout_s:g} s."
            raise NodeTrouble(message) from error
        except ConnectionLost as error:
            self.lost = True
            message = f"The connection to {self.name} ended."
            raise NodeTrouble(message) from error
        except Overloaded as error:
            raise NodeTrouble(str(error)) from error

    async def offsets(self) -> ReplicaOffsets:
        """Its replication offsets now."""
        reply = await self.call("INFO", "replication")
        if isinstance(reply, hiredis.ReplyError):
            message = f"{self.name} refused INFO: {reply}"
            raise NodeTrouble(message)
        return read_offsets(reply.decode())

    async def replicated(self) -> None:
        """Return when a replica has all that was written until now; NodeTrouble if none gets it.

        A master whose replicas are all away has nothing to wait for: that is the loop's concern.
        """
        if not self._lanes:
            return
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + REPLICA_ACK_WAIT_S
        now = await self.offsets()
        wanted = now.master
        while now.online and max(now.online) < wanted:
            if loop.time() > deadline_s:
                message = f"The replicas of {self.name} do not follow: moved slots stay open."
                raise NodeTrouble(message)
            nudge = ("WAIT", now.connected + 1, NUDGE_MS)
            await self._on(self._lanes[:1], [nudge], COMMAND_TIMEOUT_S)
            now = await self.offsets()

    async def sizes(
        self, slots: Sequence[Sequence[bytes]], least_bytes: int
    ) -> list[tuple[int, dict[int, int]]]:
        """For the keys of each slot: bytes of all, and index: bytes of those of `least_bytes`."""
        replies = await self.calls(
            [("EVAL", _SIZES_SCRIPT, len(keys), *keys, least_bytes) for keys in slots]
        )
        return [
            await self._sizes_one_by_one(keys, least_bytes)
            if isinstance(reply, hiredis.ReplyError)
            else (
                reply[0],
                {index - 1: size for index, size in zip(reply[1::2], reply[2::2], strict=True)},
            )
            for keys, reply in zip(slots, replies, strict=True)
        ]

    async def _sizes_one_by_one(
        self, keys: Sequence[bytes], least_bytes: int
    ) -> tuple[int, dict[int, int]]:
        """Where scripts are not allowed, or the slot is open and a key has gone already."""
        replies = await self.calls([("MEMORY", "USAGE", key) for key in keys])
        known = [reply if isinstance(reply, int) else 0 for reply in replies]
        return sum(known), {i: size for i, size in enumerate(known) if size >= least_bytes}
