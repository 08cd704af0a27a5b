"""The shortest way for the commonest requests: `GET` and `PUT` of one key.

A client on a kept-alive connection sends the same header lines again and again; only the request
line and the body differ.  So the bytes of a header block that the real parser (llhttp) has read
once are remembered with what they meant, and the next request with byte for byte the same block
needs no parser.  Such a request is sent to its node right away, and the node's reply is turned
into the answer in the callback that brings it: no task, no future, no timer of its own.

Law: this way is taken only when nothing is out of the ordinary.  A request that is not alone in
what arrived, an unknown block, a slot that moves, a node that is away, a client that doesn't read:
all go the long way, and so does a request whose node answers with an error, breaks or is slow
(only reads, and writes that surely were not applied).  Both ways give the same bytes.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import hiredis

from shardcluster.slots import key_slot
from shardcluster.spec_model import Durability
from shardcluster_api.access import Role
from shardcluster_api.answers import ascii_name
from shardcluster_api.errors import OutcomeUnknown
from shardcluster_api.flow import SMALL_ANSWER_BYTES
from shardcluster_api.limits import (
    HEDGE_AFTER_S,
    KEY_BYTES_MAX,
    REQUEST_DEADLINE_S,
    VALUE_BYTES_MAX,
)
from shardcluster_runtime.wire import ConnectionLost, Overloaded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster.buckets import Buckets
    from shardcluster_api.errors import ApiError
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.links import NodeLink
    from shardcluster_api.protocol import GatewayProtocol

__all__ = ["FastCycle", "FastLane"]

HEADS_MAX = 1024  # different header blocks remembered
HEAD_LEARNT_BYTES_MAX = 2048  # longer ones are read anew each time
SWEEP_S = 0.05  # how often what waits for a reply is looked at
TAILS_MAX = 4096  # of answers, one for each node and role; forgotten all at once

# Printable, without what begins a query or a fragment.
_REQUEST = re.compile(rb"(GET|PUT) /v1/keys/([!-\"$->@-~]+) HTTP/1\.1(?=\r\n)")
_END_OF_HEAD = b"\r\n\r\n"
_OTHERWISE = frozenset({b"origin", b"transfer-encoding", b"expect", b"upgrade"})
_READ, _WRITE = "get_key", "put_key"  # the operations that are meant
_VALUE, _STORED = 0, 1  # the kinds of answers: with a value, and without a body
_STARTS = (
    b"HTTP/1.1 200 OK\r\n%bcontent-type: application/octet-stream\r\ncontent-length: ",
    b"HTTP/1.1 204 No Content\r\n%b",
)


@dataclass(frozen=True, slots=True)
class _Head:
    """What a block of header lines means."""

    headers: Mapping[bytes, bytes]
    role: Role
    body_bytes: int


class _Never:
    """The event that nobody waits for: uvicorn sets it when a connection ends."""

    def set(self) -> None:
        """Nothing happens."""


class FastCycle:
    """One request on the short way: both uvicorn's cycle and the receiver of a node's reply."""

    __slots__ = (
        "began_s", "body", "disconnected", "head", "keep_alive", "key", "lane", "link", "method",
        "protocol", "response_complete", "role", "shard", "since_s", "slot", "taken_over",
    )  # fmt: skip
    message_event = _Never()
    link: NodeLink  # where it was sent, in which role and shard, for which slot and when
    role: str
    shard: str
    slot: int
    since_s: float

    def __init__(self, lane: FastLane, protocol: GatewayProtocol, head: _Head, method: str) -> None:
        """`lane` says the rest once it knows where to send it."""
        self.lane = lane
        self.protocol = protocol
        self.head = head
        self.method = method
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True  # uvicorn clears it when the server is to end
        self.taken_over = False  # by the long way
        self.began_s = perf_counter()
        self.key = b""
        self.body = b""

    def done(self) -> bool:
        """Whether a reply is of no use any more."""
        return self.taken_over

    def set_result(self, reply: Any) -> None:
        """The node's reply."""
        if self.method == "GET":
            self.lane.read_replied(self, reply)
        else:
            self.lane.write_replied(self, reply)

    def set_exception(self, error: BaseException) -> None:
        """The node's connection ended."""
        self.lane.lost(self, error)

    def exception(self) -> None:
        """For the wire, which asks a future so that nobody is warned."""


class FastLane:
    """One gateway's short way."""

    def __init__(self, gateway: Gateway) -> None:
        """Make it inside the gateway's event loop."""
        self._gateway = gateway
        self._router = gateway.router
        self._operations_max = gateway.limits.in_flight_max
        self._tokens = gateway.settings.tokens
        self._heads: dict[bytes, _Head] = {}
        self._roles_version = 0  # of which the heads' roles are
        self._tails: dict[tuple[str, str, str], bytes] = {}
        self._waiting: dict[FastCycle, None] = {}  # the oldest first
        self._loop = asyncio.get_running_loop()
        self._sweeping = False
        self._default_headers: object = None  # those that the two beginnings were made of
        self._starts: tuple[bytes, ...] = ()
        self._read_times = gateway.metrics.times(_READ, 200)
        self._write_times = gateway.metrics.times(_WRITE, 204)

    # -- learning --------------------------------------------------------------------------

    def learn(self, data: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """`data` was one whole request with these headers, as the parser has found."""
        line_end = data.find(b"\r\n")
        body_at = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        block = data[line_end:body_at]
        known = dict(headers)
        if (
            not data[:line_end].endswith(b" HTTP/1.1")
            or len(block) > HEAD_LEARNT_BYTES_MAX
            or not _OTHERWISE.isdisjoint(known)
            or len(known) != len(headers)
        ):
            return
        body_bytes = int(known.get(b"content-length", b"0"))
        if len(data) - body_at != body_bytes:
            return
        if len(self._heads) >= HEADS_MAX:
            del self._heads[next(iter(self._heads))]
        self._heads[block] = _Head(known, self._gateway.role_of(known, ""), body_bytes)

    # -- sending ---------------------------------------------------------------------------

    def take(self, protocol: GatewayProtocol, data: bytes) -> FastCycle | None:
        """Send the request on its way if this is one for the short way."""
        found = _REQUEST.match(data)
        if found is None or self._gateway.in_flight + len(self._waiting) >= self._operations_max:
            return None
        tokens = self._tokens
        if tokens is not None and self._roles_version != tokens.version:
            self._roles_version = tokens.version
            self._heads.clear()
        method, key = found.groups()
        if b"%" in key:
            key = unquote_to_bytes(key)
        if len(key) > KEY_BYTES_MAX:
            return None
        if method == b"GET":
            head = self._heads.get(data[found.end() :])
            if head is None or head.body_bytes or head.role < Role.READ:
                return None
            return self._read(protocol, head, key)
        body_at = data.find(_END_OF_HEAD, found.end()) + len(_END_OF_HEAD)
        head = self._heads.get(data[found.end() : body_at])
        if head is None or len(data) - body_at != head.body_bytes or head.role < Role.WRITE:
            return None
        if head.body_bytes > VALUE_BYTES_MAX:
            return None
        return self._write(protocol, head, key, data[body_at:])

    def _read(self, protocol: GatewayProtocol, head: _Head, key: bytes) -> FastCycle | None:
        now_s = self._loop.time()
        slot = key_slot(key)
        ready = self._router.reader_at_once(slot, now_s)
        if ready is None:
            return None
        cycle = FastCycle(self, protocol, head, "GET")
        route, cycle.link, connection = ready
        cycle.role = "master" if cycle.link is route.master else "replica"
        cycle.key, cycle.slot, cycle.shard, cycle.since_s = key, slot, route.name, now_s
        try:
            connection.send_packed_to(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key), cycle)
        except (ConnectionLost, Overloaded):
            return None
        self._wait(cycle)
        return cycle

    def _write(
        self, protocol: GatewayProtocol, head: _Head, key: bytes, value: bytes
    ) -> FastCycle | None:
        if self._router.policy.durability is not Durability.ASYNC:
            return None
        slot = key_slot(key)
        ready = self._router.writer_at_once(slot)
        if ready is None:
            return None
        cycle = FastCycle(self, protocol, head, "PUT")
        route, connection = ready
        cycle.link, cycle.role, cycle.shard = route.master, "master", route.name
        cycle.key, cycle.body, cycle.slot = key, value, slot
        cycle.since_s = self._loop.time()
        packed = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            len(key), key, len(value), value,
        )  # fmt: skip
        try:
            connection.send_packed_to(packed, cycle)
        except (ConnectionLost, Overloaded):
            return None
        self._wait(cycle)
        return cycle

    def _wait(self, cycle: FastCycle) -> None:
        self._router.hot_keys.saw(cycle.key)
        self._waiting[cycle] = None
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)

    # -- answering -------------------------------------------------------------------------

    def read_replied(self, cycle: FastCycle, reply: Any) -> None:
        """Turn the value into an answer; what is not a value goes the long way."""
        if type(reply) is not bytes:
            self._slowly(cycle)
            return
        if len(reply) > SMALL_ANSWER_BYTES:
            busy = cycle.protocol.unread.refusal(len(reply))
            if busy is not None:
                self._refuse(cycle, busy)
                return
        start = self._start(cycle, _VALUE)
        self._answer(
            cycle,
            self._read_times,
            b"%b%d\r\nx-shardcluster-slot: %d%b%b"
            % (start, len(reply), cycle.slot, self._tail(cycle), reply),
        )

    def write_replied(self, cycle: FastCycle, reply: Any) -> None:
        """Answer that it is stored; an error means that it was not, so the long way tries anew."""
        if isinstance(reply, hiredis.ReplyError):
            self._slowly(cycle)
            return
        if reply != b"OK":  # it may have been applied, so it must not be sent again
            # It may also be another command's, and then what comes after is no better.
            self._loop.call_soon(cycle.link.give_up)
            self._unknown(cycle, "its reply made no sense")
            return
        start = self._start(cycle, _STORED)
        answer = b"%bx-shardcluster-slot: %d%b" % (start, cycle.slot, self._tail(cycle))
        self._answer(cycle, self._write_times, answer)

    def lost(self, cycle: FastCycle, error: BaseException) -> None:
        """The connection ended: a write that left has an unknown fate, all else is tried anew."""
        if cycle.method == "GET" or not (isinstance(error, ConnectionLost) and error.sent):
            self._slowly(cycle)
        else:
            self._unknown(cycle, "its connection ended")

    def _unknown(self, cycle: FastCycle, why: str) -> None:
        self._gateway.metrics.unknown_outcomes.inc()
        self._refuse(cycle, OutcomeUnknown(cycle.link.name, why))

    def _refuse(self, cycle: FastCycle, error: ApiError) -> None:
        self._end(cycle)
        if not cycle.disconnected:
            cycle.protocol.go_on(cycle, error)

    def _slowly(self, cycle: FastCycle) -> None:
        self._end(cycle)
        if not cycle.disconnected:
            cycle.protocol.go_on(cycle, None)

    def _end(self, cycle: FastCycle) -> None:
        self._waiting.pop(cycle, None)
        cycle.taken_over = True

    def _answer(self, cycle: FastCycle, times: Buckets, answer: bytes) -> None:
        self._waiting.pop(cycle, None)
        # The loop's clock moves in milliseconds (uvloop), which is too coarse for what takes one.
        times.observe(perf_counter() - cycle.began_s)
        cycle.response_complete = True
        if not cycle.disconnected:
            cycle.protocol.answered(cycle, answer, self._loop.time())

    def _start(self, cycle: FastCycle, kind: int) -> bytes:
        """Status line, the headers that every answer has, and those of its kind."""
        default_headers = cycle.protocol.server_state.default_headers
        if default_headers is not self._default_headers:  # once a second: the date
            self._default_headers = default_headers
            common = b"".join(b"%b: %b\r\n" % header for header in default_headers)
            self._starts = tuple(start % common for start in _STARTS)
        if self._gateway.draining and cycle.protocol.leaving():
            cycle.keep_alive = False
        start = self._starts[kind]
        if cycle.keep_alive:
            return start
        line_end = start.index(b"\r\n") + 2
        return b"%bconnection: close\r\n%b" % (start[:line_end], start[line_end:])

    def _tail(self, cycle: FastCycle) -> bytes:
        """The headers that say where the key is, from the slot's number on, and the head's end."""
        place = (cycle.shard, cycle.link.name, cycle.role)
        known = self._tails.get(place)
        if known is None:
            if len(self._tails) >= TAILS_MAX:
                self._tails.clear()
            shard, node, role = map(ascii_name, place)
            lines = ("", f"x-shardcluster-shard: {shard}", f"x-shardcluster-node: {node}",
                     f"x-shardcluster-role: {role}", "", "")  # fmt: skip
            known = self._tails[place] = "\r\n".join(lines).encode("latin-1")
        return known

    # -- waiting ---------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Reads that wait too long are asked of another node, too; writes end at the deadline."""
        now_s = self._loop.time()
        for cycle in [c for c in self._waiting if now_s - c.since_s >= HEDGE_AFTER_S]:
            if cycle.method == "GET":
                self._gateway.metrics.hedges.inc()
                if cycle.role == "replica":
                    cycle.link.leave_out(now_s)
                self._slowly(cycle)
            elif now_s - cycle.since_s >= REQUEST_DEADLINE_S:
                self._unknown(cycle, f"it is silent for {REQUEST_DEADLINE_S:.0f} s")
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)

    @property
    def under_way(self) -> int:
        """How many requests wait for their node."""
        return len(self._waiting)
