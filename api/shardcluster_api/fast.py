"""The shortest way for the commonest requests: `GET` and `PUT` of one key.

A client on a kept-alive connection sends the same header lines again and again; only the request
line and the body differ.  So the bytes of a header block that the real parser (llhttp) has read
once are remembered with what they meant, and the next request with byte for byte the same block
needs no parser.  Such a request is sent to its node right away, and the node's reply is turned
into the answer in the callback that brings it: no task, no future, no timer of its own.  What is
the same for all requests of one turn of the event loop is found once a turn (fast_turn.py).

Law: this way is taken only when nothing is out of the ordinary.  A request that is not alone in
what arrived, an unknown block, a slot that moves, a node that is away, a client that doesn't read:
all go the long way, and so does a request whose node answers with an error, breaks or is slow
(only reads, and writes that surely were not applied).  Both ways give the same bytes.

Every call costs a tenth of a microsecond here, so `take` and `set_result` are longer than is usual.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import hiredis

from shardcluster.slots import SLOT_COUNT, key_slot
from shardcluster_api.access import Role
from shardcluster_api.answers import DIGITS
from shardcluster_api.errors import OutcomeUnknown
from shardcluster_api.fast_turn import Turn
from shardcluster_api.flow import SMALL_ANSWER_BYTES
from shardcluster_api.known_heads import END_OF_HEAD, HEADS_MAX, VERSION, plain_block
from shardcluster_api.limits import (
    HEDGE_AFTER_S,
    KEY_BYTES_MAX,
    REQUEST_DEADLINE_S,
    VALUE_BYTES_MAX,
)
from shardcluster_runtime.wire import ConnectionLost, Overloaded

if TYPE_CHECKING:
    from shardcluster_api.errors import ApiError
    from shardcluster_api.fast_turn import Way
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.known_heads import Block
    from shardcluster_api.protocol import GatewayProtocol

__all__ = ["FastCycle", "FastLane"]

SWEEP_S = 0.05  # how often what waits for a reply is looked at

_GET, _PUT = b"GET /v1/keys/", b"PUT /v1/keys/"
_KEY_AT = len(_GET)
# Printable, without what begins a query or a fragment, stands for another byte or a hash tag.
_PLAIN = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"?#%{')
_ODD = b"%{"  # not plain, but known here, too
_READ, _WRITE = "get_key", "put_key"  # the operations that are meant
_VALUE_START = b"HTTP/1.1 200 OK\r\n%bcontent-type: application/octet-stream\r\ncontent-length: "
_STORED_START = b"HTTP/1.1 204 No Content\r\n%bx-shardcluster-slot: "
_SLOT_IS = b"\r\nx-shardcluster-slot: "
_GET_SHORT = tuple(b"*2\r\n$3\r\nGET\r\n$%d\r\n" % length for length in range(256))  # by the key's


class _Never:
    """The event that nobody waits for: uvicorn sets it when a connection ends."""

    def set(self) -> None:
        """Nothing happens."""


class FastCycle:
    """A client's request on the short way: both uvicorn's cycle and the receiver of the reply.

    A client has one at a time there, so the same object serves its next one, unless the long way
    took this one over: a node may owe it a reply still.
    """

    __slots__ = (
        "began_s", "body", "disconnected", "head", "keep_alive", "key", "lane", "protocol",
        "response_complete", "slot", "taken_over", "way", "writing",
    )  # fmt: skip
    message_event = _Never()
    began_s: float  # when its turn began, by `perf_counter`
    body: bytes  # empty once it is stored
    head: Block
    key: bytes
    slot: int
    way: Way  # where it was sent
    writing: bool

    def __init__(self, lane: FastLane, protocol: GatewayProtocol) -> None:
        """`FastLane.take` says the rest."""
        self.lane = lane
        self.protocol = protocol
        self.response_complete = True
        self.disconnected = False
        self.keep_alive = True  # uvicorn clears it when the server is to end
        self.taken_over = False  # by the long way

    @property
    def method(self) -> str:
        """Of the request."""
        return "PUT" if self.writing else "GET"

    def done(self) -> bool:
        """Whether nobody waits for it here."""
        return self.taken_over

    def set_result(self, reply: Any) -> None:
        """The node's reply, turned into the answer; what is out of the ordinary goes elsewhere."""
        if self.taken_over:
            return
        lane, protocol = self.lane, self.protocol
        if self.writing:
            if reply != b"OK":
                lane.not_stored(self, reply)
                return
        elif type(reply) is not bytes:
            lane.slowly(self)
            return
        elif len(reply) > SMALL_ANSWER_BYTES and lane.refuses(self, len(reply)):
            return
        if protocol.server_state.default_headers is not lane.common or lane.gateway.draining:
            lane.begin_answers(self)
        if self.writing:
            times, self.body = lane.write_times, b""  # an idle client must not hold its value
            answer = b"".join((lane.stored_start, DIGITS[self.slot], self.way.tail))
        else:
            times, size = lane.read_times, len(reply)
            length = DIGITS[size] if size < SLOT_COUNT else b"%d" % size
            answer = b"".join(
                (lane.value_start, length, _SLOT_IS, DIGITS[self.slot], self.way.tail, reply)
            )
        lane.under_way -= 1
        self.response_complete = True
        now_s = perf_counter()
        times.observe(now_s - self.began_s)
        if not self.disconnected:
            protocol.answered(self, answer, now_s)

    def set_exception(self, error: BaseException) -> None:
        """The node's connection ended."""
        self.lane.lost(self, error)

    def exception(self) -> None:
        """For the wire, which asks a future so that nobody is warned."""


class FastLane:
    """One gateway's short way; what is public is for its cycles."""

    def __init__(self, gateway: Gateway) -> None:
        """Make it inside the gateway's event loop."""
        self.gateway = gateway
        self.under_way = 0  # requests that wait for their node
        self.read_times = gateway.metrics.times(_READ, 200)
        self.write_times = gateway.metrics.times(_WRITE, 204)
        self.common: object = None  # the headers of every answer that the two beginnings are of
        self.value_start = self.stored_start = b""
        self._router = gateway.router
        self._map = gateway.topology.map
        self._owners = gateway.topology.map.owners
        self._tokens = gateway.settings.tokens
        self._roles_version = 0  # of which the heads are
        self._read_heads: dict[bytes, Block] = {}  # by block, of those who may read
        self._write_heads: dict[bytes, Block] = {}
        self._turn: Turn | None = None  # this one, once a request came
        self._last_turn: Turn | None = None
        # When a turn began, and what was sent in it; the oldest first.
        self._sent: deque[tuple[float, list[FastCycle]]] = deque()
        self._late_writes: list[tuple[FastCycle, float]] = []  # and when they began
        self._loop = asyncio.get_running_loop()
        self._sweeping = False

    # -- learning --------------------------------------------------------------------------

    def learn(self, data: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """`data` was one whole request with these headers, as the parser has found."""
        writing = data.startswith(_PUT)
        if not (writing or data.startswith(_GET)):
            return
        block = plain_block(data, headers)
        if block is None or block.body_bytes > (VALUE_BYTES_MAX if writing else 0):
            return
        if self.gateway.role_of(block.headers, "") < (Role.WRITE if writing else Role.READ):
            return
        heads = self._write_heads if writing else self._read_heads
        if len(heads) >= HEADS_MAX:
            del heads[next(iter(heads))]
        heads[block.lines] = block

    # -- sending ---------------------------------------------------------------------------

    def take(self, protocol: GatewayProtocol, data: bytes) -> FastCycle | None:
        """Send the request on its way if this is one for the short way."""
        start = data[:_KEY_AT]
        writing = start == _PUT
        if not writing and start != _GET:
            return None
        turn = self._turn or self._begin_turn()
        line, _, block = data.partition(VERSION)
        if writing:
            body_at = block.find(END_OF_HEAD) + len(END_OF_HEAD)
            ways, head, body = turn.writers, self._write_heads.get(block[:body_at]), block[body_at:]
        else:
            ways, head, body = turn.readers, self._read_heads.get(block), b""
        if head is None or head.body_bytes != len(body) or self.under_way >= turn.under_way_max:
            return None
        key = line[_KEY_AT:]
        if odd := key.translate(None, _PLAIN):
            if odd.strip(_ODD):
                return None
            key = unquote_to_bytes(key)
            slot = key_slot(key)
        else:
            slot = crc_hqx(key, 0) % SLOT_COUNT  # `key_slot` without the look for a hash tag
        way = ways[self._owners[slot]]
        if way is None or not 0 < len(key) <= KEY_BYTES_MAX:
            return None
        if not turn.quiet and not writing and self._map.is_on_its_way(slot, turn.now_s):
            return None
        cycle = protocol.fast_cycle
        if cycle is None:
            cycle = protocol.fast_cycle = FastCycle(self, protocol)
        try:
            way.send(_packed(key, body) if writing else _packed_get(key), cycle)
        except (ConnectionLost, Overloaded):
            return None
        cycle.response_complete = False
        cycle.began_s = turn.began_s
        cycle.writing, cycle.body = writing, body
        cycle.key, cycle.slot = key, slot
        cycle.way, cycle.head = way, head
        self.under_way += 1
        turn.cycles.append(cycle)
        return cycle

    def _begin_turn(self) -> Turn:
        """The first request of this turn of the event loop is here."""
        self._loop.call_soon(self._end_turn)
        tokens = self._tokens
        if tokens is not None and self._roles_version != tokens.version:
            self._roles_version = tokens.version
            self._read_heads.clear()
            self._write_heads.clear()
        room = self.gateway.limits.in_flight_max - self.gateway.in_flight
        under_way_max = 0 if self.gateway.draining else room
        turn = Turn(self._router, self._loop.time(), under_way_max, self._last_turn)
        self._turn = self._last_turn = turn
        return turn

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is None or not turn.cycles:
            return
        self._router.hot_keys.saw_all([cycle.key for cycle in turn.cycles])
        self._sent.append((turn.began_s, turn.cycles))
        turn.cycles = []  # the turn itself is kept until the next one
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)

    # -- answering -------------------------------------------------------------------------

    def begin_answers(self, cycle: FastCycle) -> None:
        """Write the beginnings of answers anew: the date is another, or the gateway ends."""
        headers = cycle.protocol.server_state.default_headers
        self.common, common = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        if self.gateway.draining and cycle.protocol.leaving():
            cycle.keep_alive = False
            common = b"connection: close\r\n" + common
            self.common = None  # the next answer may be another client's
        self.value_start, self.stored_start = _VALUE_START % common, _STORED_START % common

    def not_stored(self, cycle: FastCycle, reply: Any) -> None:
        """An error means that it was not applied, so the long way tries anew."""
        if isinstance(reply, hiredis.ReplyError):
            self.slowly(cycle)
            return
        # It may have been applied, so it must not be sent again.  It may also be another
        # command's reply, and then what comes after is no better.
        self._loop.call_soon(cycle.way.link.give_up)
        self._unknown(cycle, "its reply made no sense")

    def lost(self, cycle: FastCycle, error: BaseException) -> None:
        """The connection ended: a write that left has an unknown fate, all else is tried anew."""
        if cycle.writing and isinstance(error, ConnectionLost) and error.sent:
            self._unknown(cycle, "its connection ended")
        else:
            self.slowly(cycle)

    def refuses(self, cycle: FastCycle, size: int) -> bool:
        """Whether there is no room for so large an answer; then that is said in its place."""
        busy = cycle.protocol.unread.refusal(size)
        if busy is not None:
            self._hand_over(cycle, busy)
        return busy is not None

    def slowly(self, cycle: FastCycle) -> None:
        """The long way is to do it."""
        self._hand_over(cycle, None)

    def _unknown(self, cycle: FastCycle, why: str) -> None:
        self.gateway.metrics.unknown_outcomes.inc()
        self._hand_over(cycle, OutcomeUnknown(cycle.way.link.name, why))

    def _hand_over(self, cycle: FastCycle, error: ApiError | None) -> None:
        self.under_way -= 1
        cycle.taken_over = True
        if not cycle.disconnected:
            cycle.protocol.go_on(cycle, error)

    # -- waiting ---------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Reads that wait too long are asked of another node, too; writes end at the deadline."""
        now_s, sent = perf_counter(), self._sent
        while sent and now_s - sent[0][0] >= HEDGE_AFTER_S:
            began_s, cycles = sent.popleft()
            for cycle in cycles:
                if not _waits(cycle, began_s):
                    continue
                if cycle.writing:
                    self._late_writes.append((cycle, began_s))
                else:
                    self._hedge(cycle)
        if self._late_writes:
            self._late_writes = [late for late in self._late_writes if _waits(*late)]
            for cycle, began_s in self._late_writes:
                if now_s - began_s >= REQUEST_DEADLINE_S:
                    self._unknown(cycle, f"it is silent for {REQUEST_DEADLINE_S:.0f} s")
        self._sweeping = self.under_way > 0
        if self._sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)
        else:
            sent.clear()

    def _hedge(self, cycle: FastCycle) -> None:
        self.gateway.metrics.hedges.inc()
        if cycle.way.role == "replica":
            cycle.way.link.leave_out(self._loop.time())
        self.slowly(cycle)


def _waits(cycle: FastCycle, began_s: float) -> bool:
    """Whether the request that began then has no answer; the cycle may serve another one by now."""
    return not (cycle.response_complete or cycle.taken_over) and cycle.began_s == began_s


def _packed_get(key: bytes) -> bytes:
    length = len(key)
    if length < len(_GET_SHORT):
        return _GET_SHORT[length] + key + b"\r\n"
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (length, key)


def _packed(key: bytes, value: bytes) -> bytes:
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)
