"""uvicorn's HTTP protocol with the hot operations answered right in the event loop.

A request for an operation marked `hot` becomes a `HotCycle` in place of uvicorn's own
request-response cycle: no ASGI messages, no thread, one write for the whole answer.  All else goes
uvicorn's way, to the Flask app behind a2wsgi.  Both kinds share uvicorn's pipeline, so that answers
leave in the order of their requests, and its keep-alive and shutdown.

Law: what a client sends is bounded before it is held: the head by `HEAD_BYTES_MAX`, a body by its
operation's limit, all bodies together by `Limits.buffered_bytes_max`, requests sent ahead by
`PIPELINE_MAX`.  What a slow reader costs is in flow.py.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
)

from shardcluster_api.answers import error_answer
from shardcluster_api.cycle import HotCycle, RequestHead, too_large
from shardcluster_api.errors import ApiError, TooBusy
from shardcluster_api.flow import Unread
from shardcluster_api.guards import refusal_of_origin
from shardcluster_api.heads import Framing, Head, head_too_large, read_head
from shardcluster_api.limits import (
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    HEAD_TIMEOUT_S,
)
from shardcluster_api.operations import KEY_PATH, KEY_PREFIX, OPERATIONS, by_first_word

if TYPE_CHECKING:
    import asyncio

    from shardcluster_api.fast import FastCycle
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.guards import Cors
    from shardcluster_api.operations import Operation

__all__ = ["GatewayProtocol"]

LINGER_S = 1.0  # after a refusal, for the client to read it while it still sends
PIPELINE_MAX = 64  # requests that a client sent ahead and that are parsed already; then ...
PARSED_BYTES_MAX = 16 * 1024  # ... no further piece of so many bytes is
IDLE_LOOK_S = 0.05  # at the end, for requests on their way here to be seen
_KEY_PREFIX = KEY_PREFIX.encode()
_HOT = {(o.method.encode(), o.path.encode()): o for o in OPERATIONS if o.hot}
_HOT_KEY = {o.method.encode(): o for o in OPERATIONS if o.hot and o.path == KEY_PATH}
_REFUSED = replace(OPERATIONS[0], name="none")  # stands for a request that is not understood


_NO_HEAD = RequestHead("", b"", "", {})


class GatewayProtocol(HttpToolsProtocol):
    """One client connection."""

    cycle: Any  # uvicorn's own or one of ours; it looks only at what all of them have

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        """`options` are uvicorn's."""
        super().__init__(**options)
        self.gateway = gateway
        self._fast = gateway.fast
        self._head_bytes: int | None = None  # received of a head that is not complete
        self._unparsed = b""  # what came after more requests than `PIPELINE_MAX`
        self._parsing = False
        self._finished = False
        self._framing: Framing | None = None  # of a chunked body that is not complete
        self._refusal: ApiError | None = None  # why the parser was stopped
        self._between = True  # the parser is not amid a request
        self._messages = 0  # requests begun
        self.fast_cycle: FastCycle | None = None  # of the requests on the short way
        self._answered_s = 0.0  # when the last answer of the short way left, by `perf_counter`
        self._app, self.app = self.app, self._run_app
        self._linger: asyncio.TimerHandle | None = None
        self._waiting_for_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Asyncio's callback."""
        super().connection_made(transport)
        self.unread = Unread(self.gateway, transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse_connection(TooBusy(f"{CONNECTIONS_MAX} clients are connected already."))
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def pause_writing(self) -> None:
        """Asyncio's callback: the client is slow to read."""
        super().pause_writing()
        self.unread.piled_up()

    def resume_writing(self) -> None:
        """Asyncio's callback: it has read."""
        super().resume_writing()
        self.unread.read()

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        if self._finished:
            return  # refused and on its way out
        previous = self.cycle  # None before the first request
        at_rest = self._between and (previous is None or previous.response_complete)
        if at_rest and not (self._unparsed or self.flow.write_paused):
            taken = self._fast.take(self, data) or self._take_known(data)
            if taken is not None:
                self.cycle = taken
                if self._waiting_for_head is not None:
                    self._head_is_there()
                return
        messages = self._messages
        self._unparsed += data
        self._parse()
        if at_rest and self._messages == messages + 1 and self._between:
            self._learn(data)

    def _take_known(self, data: bytes) -> HotCycle | None:
        """Begin the request if it is a whole one that needs no parser."""
        known = self.gateway.known_heads.request(data)
        if known is None or self.gateway.draining:
            return None
        operation, head, body = known
        cycle = HotCycle(self, operation, head, b"")
        cycle.more_body = False
        cycle.take(body)
        self._run(cycle)
        return cycle

    def _parse(self) -> None:
        """Take in what came, but not all when it is many requests at once."""
        if self._parsing:
            return
        self._parsing = True
        data, self._unparsed = self._unparsed, b""
        start = 0
        # After a refusal the connection is on its way out, and nothing counts any more.
        while start < len(data) and not self._finished and self.parser is not None:
            if len(self.pipeline) >= PIPELINE_MAX:
                self._unparsed = data[start:]
                self.flow.pause_reading()
                break
            piece = data[start : start + PARSED_BYTES_MAX]
            start += len(piece)
            framing = self._framing
            super().data_received(piece)
            if framing is not None and framing is self._framing and framing.endless(len(piece)):
                message = "The chunks of the body are mostly extensions."
                self._refuse_connection(ApiError(400, "BadRequest", message))
            if self._head_bytes is not None and self.parser is not None:
                self._head_bytes += len(piece)
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse_connection(head_too_large())
        self._parsing = False
        if self._waiting_for_head is None and (self.cycle is None or self.cycle.response_complete):
            # uvicorn has no timer now, whether a part of a head came or only empty lines.
            self._waiting_for_head = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _head_is_late(self) -> None:
        message = f"The head did not arrive within {HEAD_TIMEOUT_S:.0f} s."
        self._refuse_connection(ApiError(408, "RequestTimeout", message))

    def _head_is_there(self) -> None:
        self._head_bytes = None
        if self._waiting_for_head is not None:
            self._waiting_for_head.cancel()
            self._waiting_for_head = None

    def on_response_complete(self) -> None:
        """Uvicorn's callback, which reads on and begins the next request that was sent ahead."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self.flow.pause_reading()  # the client gets no further ahead
        elif self._unparsed:
            self._parse()

    async def _run_app(self, scope: Any, receive: Any, send: Any) -> None:
        """What isn't hot; tells the client, too, when its connection ends because we shut down."""

        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start" and self.leaving():
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_on)

    def leaving(self) -> bool:
        """Whether the answer that is sent now is the last on this connection: we shut down."""
        return self.gateway.draining and not (
            self.pipeline or self._unparsed or self._head_bytes is not None
        )

    def shutdown(self) -> None:
        """Uvicorn's call at the end of accepting; requests under way are answered first."""
        if isinstance(self.cycle, HotCycle):
            self.cycle.end_stream()
        self.loop.call_later(IDLE_LOOK_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and self.leaving():
            self.transport.close()

    def _learn(self, data: bytes) -> None:
        """`data` was a whole request; if it was a plain one, the next like it can be quicker."""
        cycle = self.cycle
        if isinstance(cycle, HotCycle) and cycle.refusal is None and cycle.keep_alive:
            self._fast.learn(data, self.headers)
            self.gateway.known_heads.learn(data, self.headers)

    def answered(self, cycle: FastCycle, answer: bytes, now_s: float) -> None:
        """Write an answer of the short way and go on with what came meanwhile."""
        self.transport.write(answer)
        self._answered_s = now_s
        if not cycle.keep_alive:
            self.finish(lingering=True)
        if self.pipeline or self.flow.read_paused or self._finished:
            self.on_response_complete()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def go_on(self, cycle: FastCycle, error: ApiError | None) -> None:
        """The long way takes over from the short one, or says what went wrong there."""
        self.fast_cycle = None
        path = KEY_PREFIX + quote(cycle.key, safe="")
        head = RequestHead(cycle.method, path.encode(), "", cycle.head.headers)
        slow = HotCycle(self, _HOT_KEY[cycle.method.encode()], head, cycle.key)
        slow.keep_alive, slow.more_body = cycle.keep_alive, False
        if self.cycle is cycle:  # else the next request is being read already
            self.cycle = slow
        if error is not None:
            answer = error_answer(error)
            self.gateway.metrics.answered(slow.operation.name, answer.status, 0.0)
            self.gateway.metrics.failed(slow.operation.name, error.code)
            slow.respond(answer)
            return
        slow.take(cycle.body)
        self._run(slow)

    def timeout_keep_alive_handler(self) -> None:
        """The timer of uvicorn; the short way doesn't set it anew for each answer."""
        self.timeout_keep_alive_task = None
        if self.cycle is not None and not self.cycle.response_complete:
            return  # it is set when this one is answered
        left_s = self._answered_s + self.timeout_keep_alive - perf_counter()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(
                left_s, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's callback."""
        self._head_is_there()
        if self._linger is not None:
            self._linger.cancel()
        self.unread.read()
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, HotCycle):
                cycle.disconnected = cycle.disconnected or not cycle.response_complete
                cycle.release()
                cycle.end_stream()
        if self.fast_cycle is not None:
            self.fast_cycle.disconnected = True
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP, in place of uvicorn's plain text."""
        self._refuse_connection(self._refusal or ApiError(400, "BadRequest", msg))

    def _refuse_connection(self, error: ApiError) -> None:
        """Answer with an error when its turn comes, and read nothing more."""
        if self._finished:
            return
        self._finished = True
        cycle = self.cycle
        if self._framing is not None:
            if cycle.response_complete or getattr(cycle, "response_started", False):
                self.transport.close()  # it has its answer already
                return
            if isinstance(cycle, HotCycle):
                cycle.refuse(error)  # it is this request that is broken
                return
            # The Flask app gets half a body: as if the client had gone.
            cycle.disconnected = cycle.response_complete = True
            cycle.message_event.set()
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
                cycle.response_complete = False  # others are before it
        refused = HotCycle(self, _REFUSED, _NO_HEAD, b"")
        refused.refusal = error
        self._enqueue(refused)

    def finish(self, *, lingering: bool) -> None:
        """Close; `lingering` gives a client that still sends the time to read the answer."""
        self._finished = True
        if not lingering:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger = self.loop.call_later(LINGER_S, self.transport.close)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser's callback."""
        if self._head_bytes is None:
            self._refusal = ApiError(
                400, "BadRequest", "Headers after the body are not taken here."
            )
            raise self._refusal
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """Parser's callback."""
        self._head_bytes = 0
        self._between = False
        self._messages += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Parser's callback: take a hot request, leave the others to uvicorn."""
        self._head_is_there()
        version = self.parser.get_http_version()
        head = read_head(version, self.url, self.headers)
        if head.refusal is None and self.parser.should_upgrade():
            head.refusal = ApiError(
                400, "BadRequest", "This gateway upgrades to no other protocol."
            )
        if head.refusal is not None:
            self._refusal = head.refusal
            raise head.refusal  # the parser ends with it, and uvicorn calls `send_400_response`
        self._framing = Framing() if head.body_bytes is None else None
        path, _, query = self.url.partition(b"?")
        method = self.parser.get_method()
        hot = _HOT.get((method, path))
        key = b""
        if hot is None and path.startswith(_KEY_PREFIX):
            hot = _HOT_KEY.get(method)
            key = unquote_to_bytes(path[len(_KEY_PREFIX) :])
        hot = hot or by_first_word(method, path)
        if hot is None:
            super().on_headers_complete()
            return
        parts = RequestHead(method.decode(), path, query.decode("latin-1"), dict(self.headers))
        cycle = HotCycle(self, hot, parts, key)
        cycle.keep_alive = version != "1.0" and self.parser.should_keep_alive()
        cycle.refusal = _refusal(hot, head, self.gateway.settings.cors)
        self._enqueue(cycle)

    def _enqueue(self, cycle: HotCycle) -> None:
        previous = self.cycle  # None before the first request
        self.cycle = cycle
        if previous is None or previous.response_complete:
            self._run(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _run(self, cycle: HotCycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        """Parser's callback."""
        if self._framing is not None:
            self._framing.took(len(body))
        if isinstance(self.cycle, HotCycle):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser's callback."""
        self._framing = None
        self._between = True
        if isinstance(self.cycle, HotCycle):
            self.cycle.more_body = False
            self.cycle.message_event.set()
        else:
            super().on_message_complete()


def _refusal(operation: Operation, head: Head, cors: Cors) -> ApiError | None:
    """What the head alone is reason enough to refuse."""
    if head.body_bytes is not None and head.body_bytes > operation.body_bytes_max:
        return too_large(operation)
    return refusal_of_origin(operation.method, head.origin, head.host, cors)
