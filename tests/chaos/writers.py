"""Clients of a real store: each key has one writer, which asks for one thing after another.

Half of what they ask goes through the gateway, half directly to the nodes, by the project's own
connection: a client library that sends an INCR again after a timeout would spoil the history.
(A library may have a part of the registers: to set one twice is to set it once.)  Each request is
sent once; whether it was refused, or its fate is unknown, is told by who failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import hiredis

from shardcluster.observed import Address
from shardcluster.slots import key_slot
from shardcluster_runtime.wire import ConnectionLost, NodeConnection, NodeReplyError, Overloaded
from tests.chaos.history import Kind, Operation, Outcome, Value, kind_of
from tests.chaos.http_once import Http, NotSent, Unanswered
from tests.chaos.reach import now_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.reach import Command, Reach

__all__ = [
    "FIRST_NUMBER", "Answer", "Direct", "Door", "Writers", "Written", "command_of", "delete_keys",
    "keys_of", "value_of", "write_ballast",
]  # fmt: skip

KEY_COUNT = 24
KINDS = ("register", "counter", "list")
PAUSE_S = 0.03
READ_PART, DELETE_PART, GATEWAY_PART, PUT_PART = 0.15, 0.1, 0.5, 0.5
LIBRARY_PART = 0.5  # of what is asked directly of registers
CONNECT_TIMEOUT_S = 1.0
NODE_TIMEOUT_S = 1.5  # of a direct request
GATEWAY_TIMEOUT_S = 7.0  # its own deadline is 5 s
HOPS_MAX = 5
REDIRECTS = ("MOVED", "ASK")
BALLAST_PREFIX = "register-ballast"
FIRST_NUMBER = 1_000_000  # of a round's writes; what is below is ballast

Answer = tuple[Outcome, Any]


def keys_of(round_name: str) -> tuple[str, ...]:
    """Keys of their own, so that one round's don't meet another's."""
    return tuple(
        f"{KINDS[number % len(KINDS)]}-{round_name}-{number}" for number in range(KEY_COUNT)
    )


def command_of(kind: Kind, key: str, number: int) -> Command:
    """How the engine is asked for it."""
    if kind is Kind.READ:
        return ("LRANGE", key, 0, -1) if key.startswith("list") else ("GET", key)
    return {
        Kind.SET: ("SET", key, number),
        Kind.DELETE: ("DEL", key),
        Kind.INCREMENT: ("INCR", key),
        Kind.APPEND: ("RPUSH", key, number),
    }[kind]


def value_of(key: str, reply: Any) -> Value:
    """A reply to a READ, over either way, as a value."""
    if key.startswith("list"):
        return tuple(int(element) for element in reply or ())
    if reply is None:
        return 0 if key.startswith("counter") else None
    return int(reply)


class Door(Protocol):
    """A way in."""

    async def ask(self, kind: Kind, key: str, number: int) -> Answer:
        """One request."""
        ...

    def close(self) -> None:
        """End its connections."""
        ...


class Direct:
    """Asks the nodes themselves; follows redirects, never sends twice what may have been done."""

    def __init__(self, reach: Reach) -> None:
        """Nobody is asked yet."""
        self._reach = reach
        self._owners: dict[int, Address] = {}  # by slot
        self._connections: dict[Address, NodeConnection] = {}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    async def ask(self, kind: Kind, key: str, number: int) -> Answer:
        slot, command = key_slot(key.encode()), command_of(kind, key, number)
        whom = self._owners.get(slot) or self._anybody()
        asking = False
        for _ in range(HOPS_MAX):
            if whom is None:
                return Outcome.FAILED, "no node"
            try:
                reply = await self._at(whom, command, asking=asking)
            except ConnectionLost as error:
                self._owners.pop(slot, None)
                return (Outcome.UNKNOWN if error.sent else Outcome.FAILED), str(error)
            except TimeoutError:
                self._owners.pop(slot, None)
                return Outcome.UNKNOWN, "no answer in time"
            except (OSError, Overloaded, NodeReplyError) as error:
                self._owners.pop(slot, None)
                return Outcome.FAILED, str(error)
            if not isinstance(reply, hiredis.ReplyError):
                self._owners.setdefault(slot, whom)
                return Outcome.OK, reply
            words = str(reply).split()
            if words[0] not in REDIRECTS:
                self._owners.pop(slot, None)
                return Outcome.FAILED, str(reply)
            host, _, port = words[2].rpartition(":")
            whom, asking = Address(host or whom.host, int(port)), words[0] == "ASK"
            if not asking:
                self._owners[slot] = whom
        return Outcome.FAILED, "sent on too often"

    def _anybody(self) -> Address | None:
        nodes = self._reach.nodes()
        return random.choice(nodes).address if nodes else None

    async def _at(self, whom: Address, command: Command, *, asking: bool) -> Any:
        connection = self._connections.get(whom)
        if connection is None or connection.closed:
            try:
                connection = await NodeConnection.open(
                    whom, timeout_s=CONNECT_TIMEOUT_S, credentials=self._reach.credentials
                )
            except (TimeoutError, ConnectionLost) as error:  # it hangs or ends; nothing was sent
                raise OSError(str(whom)) from error
            self._connections[whom] = connection
        if asking:
            connection.send("ASKING")  # leaves in one write with what follows
        async with asyncio.timeout(NODE_TIMEOUT_S):
            return await connection.send(*command)


class _Gateway:
    """Asks over HTTP: ShardCluster's own way and Upstash's."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._http = Http(reach.gateway)
        self.statuses: Counter[int] = Counter()

    def close(self) -> None:
        self._http.close()

    async def ask(self, kind: Kind, key: str, number: int) -> Answer:
        put = kind is Kind.SET and random.random() < PUT_PART
        method, path = ("PUT", f"/v1/keys/{key}") if put else ("POST", "/")
        body = str(number) if put else json.dumps(command_of(kind, key, number))
        if self._http.address != self._reach.gateway:  # it was made anew
            self._http.close()
            self._http = Http(self._reach.gateway)
        try:
            status, answer = await self._http.ask(
                method, path, body.encode(), timeout_s=GATEWAY_TIMEOUT_S
            )
        except NotSent as error:
            return Outcome.FAILED, str(error)
        except Unanswered as error:
            return Outcome.UNKNOWN, str(error)
        self.statuses[status] += 1
        if status < 300:
            return Outcome.OK, None if put else json.loads(answer).get("result")
        return _outcome(status, answer), f"{status} {answer[:200]!r}"


def _outcome(status: int, answer: bytes) -> Outcome:
    """The gateway says what became of a failed write; one that crashed says nothing."""
    found = json.loads(answer or b"null")
    said = found.get("outcome") if isinstance(found, dict) else None
    if said is None and isinstance(found, dict) and isinstance(found.get("error"), dict):
        said = found["error"].get("outcome")
    if said in {"unknown", "applied"} or status == 500:
        return Outcome.UNKNOWN
    return Outcome.FAILED


@dataclass
class Written:
    """What all writers of a round have done."""

    operations: list[Operation] = field(default_factory=list)
    through_gateway: set[int] = field(default_factory=set)  # numbers
    refusals: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)


@dataclass
class Writers:
    """All of a round."""

    reach: Reach
    keys: tuple[str, ...]
    numbers: list[int]  # the last number given; shared by all rounds
    library: Door | None = None  # asked for registers, too
    pause_s: float = PAUSE_S
    written: Written = field(default_factory=Written)
    _ending: bool = False

    async def run(self) -> None:
        """Write until `end` is called."""
        direct = Direct(self.reach)
        try:
            async with asyncio.TaskGroup() as group:
                for key in self.keys:
                    group.create_task(self._write(key, direct))
        finally:
            direct.close()

    def end(self) -> None:
        """Each writer stops after what it is at."""
        self._ending = True

    async def _write(self, key: str, direct: Direct) -> None:
        gateway = _Gateway(self.reach)
        try:
            while not self._ending:
                await asyncio.sleep(self.pause_s * (0.5 + random.random()))
                kind = kind_of(key, random.random(), reads=READ_PART, deletions=DELETE_PART)
                door: Door = gateway if random.random() < GATEWAY_PART else direct
                if door is direct and self.library is not None and key.startswith("register"):
                    door = self.library if random.random() < LIBRARY_PART else direct
                self.numbers[0] += 1
                number, began_ms = self.numbers[0], now_ms()
                if door is gateway:
                    self.written.through_gateway.add(number)
                outcome, reply = await door.ask(kind, key, number)
                self._note(number, key, kind, (outcome, reply), began_ms)
        finally:
            gateway.close()
            self.written.statuses += gateway.statuses

    def _note(self, number: int, key: str, kind: Kind, answer: Answer, began_ms: int) -> None:
        outcome, reply = answer
        seen: Value = None
        if outcome is not Outcome.OK:
            self.written.refusals[" ".join(str(reply).split()[:3])] += 1
        elif kind is Kind.READ:
            seen = value_of(key, reply)
        self.written.operations.append(
            Operation(number, key, kind, outcome, began_ms, now_ms(), seen)
        )


async def write_ballast(reach: Reach, count: int) -> list[Operation]:
    """Registers that are written once: a move takes its time, and old data can be missed.

    The first one that is refused is the last.
    """
    direct, found = Direct(reach), []
    try:
        for number in range(1, count + 1):
            key, began_ms = f"{BALLAST_PREFIX}-{number}", now_ms()
            outcome, _ = await direct.ask(Kind.SET, key, number)
            found.append(Operation(number, key, Kind.SET, outcome, began_ms, now_ms()))
            if outcome is not Outcome.OK:
                break
    finally:
        direct.close()
    return found


async def delete_keys(reach: Reach, keys: Iterable[str]) -> None:
    """Make room for the next round's; what can't be deleted stays."""
    direct = Direct(reach)
    try:
        for key in keys:
            with contextlib.suppress(ConnectionLost, OSError, TimeoutError):
                await direct.ask(Kind.DELETE, key, 0)
    finally:
        direct.close()
