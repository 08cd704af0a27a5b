"""uvicorn's HTTP protocol with the hot operations answered right in the event loop.

A request for an operation marked `hot` becomes a `_HotCycle` in place of uvicorn's own
request-response cycle: no ASGI messages, no thread, one write for the whole answer.  All else goes
uvicorn's way, to the Flask app behind a2wsgi.  Both kinds share uvicorn's pipeline, so that answers
leave in the order of their requests, and its keep-alive and shutdown.

Law: what a client sends is bounded before it is held: the head by `HEAD_BYTES_MAX`, a body by its
operation's limit, all bodies together by `Limits.buffered_bytes_max`, requests sent ahead by
`PIPELINE_MAX`.  What a slow reader costs is in flow.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
)

from shardcluster_api.answers import Answer, Request, error_answer
from shardcluster_api.errors import ApiError, TooLarge
from shardcluster_api.flow import Unread, bodies_too_large, body_timeout
from shardcluster_api.guards import refusal_of_origin
from shardcluster_api.limits import HEAD_BYTES_MAX, RECEIVE_TIMEOUT_S
from shardcluster_api.operations import KEY_PATH, KEY_PREFIX, OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardcluster_api.fast import FastCycle
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.operations import Operation

__all__ = ["GatewayProtocol"]

LINGER_S = 1.0  # after a refusal, for the client to read it while it still sends
PIPELINE_MAX = 64  # requests that a client sent ahead and that are parsed already; then ...
PARSED_BYTES_MAX = 16 * 1024  # ... no further piece of so many bytes is
IDLE_LOOK_S = 0.05  # at the end, for requests on their way here to be seen
_KEY_PREFIX = KEY_PREFIX.encode()
_HOT = {(o.method.encode(), o.path.encode()): o for o in OPERATIONS if o.hot}
_HOT_KEY = {o.method.encode(): o for o in OPERATIONS if o.hot and o.path == KEY_PATH}
_NO_BODY_STATUSES = frozenset({204, 304})


class _Head(NamedTuple):
    """What a request's head says."""

    method: str
    path: bytes
    query: str
    headers: Mapping[bytes, bytes]


class _HotCycle:
    """One hot request; the public attributes are those that uvicorn's protocol looks at."""

    def __init__(
        self, protocol: GatewayProtocol, operation: Operation, head: _Head, key: bytes
    ) -> None:
        self.response_complete = False
        self.disconnected = False
        self.more_body = True
        self.keep_alive = True
        self.message_event = asyncio.Event()
        self.body = bytearray()
        self.operation = operation
        self.refusal: ApiError | None = None
        self._protocol = protocol
        self._head = head
        self._key = key

    async def run_asgi(self, _app: Any) -> None:
        """Wait for the body, carry out, answer."""
        protocol = self._protocol
        if protocol.flow.write_paused and not self.disconnected:
            await protocol.flow.drain()  # nothing is carried out for who doesn't read the answers
        if self.more_body and self.refusal is None:
            await self._receive()
        if self.disconnected or (self.more_body and self.refusal is None):
            return
        if self.refusal is None:
            method, path, query, headers = self._head
            role = protocol.gateway.role_of(headers, query)
            request = Request(bytes(self.body), query, self._key, method, path, headers, role)
            answer = await protocol.gateway.answer(self.operation, request)
        else:
            self.keep_alive = False
            answer = error_answer(self.refusal)
            protocol.gateway.metrics.answered(self.operation.name, answer.status, 0.0)
            protocol.gateway.metrics.failed(self.operation.name, self.refusal.code)
        self.release()
        if not self.disconnected:
            busy = protocol.unread.refusal(len(answer.body))
            self.respond(answer if busy is None else error_answer(busy))

    async def _receive(self) -> None:
        if self._protocol.expect_100_continue:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                while self.more_body and self.refusal is None and not self.disconnected:
                    self.message_event.clear()
                    await self.message_event.wait()
        except TimeoutError:
            self.refusal = body_timeout()

    def take(self, body: bytes) -> None:
        """A piece of the body came."""
        if self.refusal is not None:
            return
        gateway = self._protocol.gateway
        if len(self.body) + len(body) > self.operation.body_bytes_max:
            self.refuse(_too_large(self.operation))
        elif gateway.buffered_bytes + len(body) > gateway.limits.buffered_bytes_max:
            self.refuse(bodies_too_large())
        else:
            gateway.buffered_bytes += len(body)
            self.body += body

    def refuse(self, error: ApiError) -> None:
        """Answer with an error, whatever else comes."""
        self.release()
        self.refusal = error
        self.message_event.set()

    def release(self) -> None:
        """Give the body's memory back."""
        self._protocol.gateway.buffered_bytes -= len(self.body)
        self.body = bytearray()

    def respond(self, answer: Answer) -> None:
        """Write the answer."""
        protocol = self._protocol
        bodiless = self.operation.method == "HEAD" or answer.status in _NO_BODY_STATUSES
        head = [STATUS_LINE[answer.status]]
        for name, value in protocol.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        if answer.status not in _NO_BODY_STATUSES:
            head.append(f"content-type: {answer.content_type}\r\n".encode("latin-1"))
            head.append(b"content-length: %d\r\n" % len(answer.body))
        for header, text in answer.headers:
            head.append(f"{header.lower()}: {text}\r\n".encode("latin-1"))
        leaving = protocol.leaving()
        self.keep_alive = self.keep_alive and not leaving
        head.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if not bodiless:
            head.append(answer.body)
        protocol.transport.write(b"".join(head))
        self.response_complete = True
        if not self.keep_alive:
            protocol.finish(lingering=self.more_body or leaving)
        protocol.on_response_complete()


class GatewayProtocol(HttpToolsProtocol):
    """One client connection."""

    cycle: Any  # uvicorn's own or one of ours; it looks only at what all of them have

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        """`options` are uvicorn's."""
        super().__init__(**options)
        self.gateway = gateway
        self._head_bytes: int | None = None  # received of a head that is not complete
        self._unparsed = b""  # what came after more requests than `PIPELINE_MAX`
        self._parsing = False
        self._finished = False
        self._between = True  # the parser is not amid a request
        self._messages = 0  # requests begun
        self._fast: FastCycle | None = None  # the last request on the short way
        self._answered_s = 0.0  # when the last answer of the short way left
        self._app, self.app = self.app, self._run_app
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Asyncio's callback."""
        super().connection_made(transport)
        self.unread = Unread(self.gateway, transport)

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
        if at_rest and not (self._unparsed or self.flow.write_paused or self.gateway.draining):
            fast = self.gateway.fast.take(self, data)
            if fast is not None:
                self.cycle = self._fast = fast
                return
        messages = self._messages
        self._unparsed += data
        self._parse()
        if at_rest and self._messages == messages + 1 and self._between:
            self._learn(data)

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
            super().data_received(piece)
            if self._head_bytes is not None and self.parser is not None:
                self._head_bytes += len(piece)
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse_connection(_head_too_large())
        self._parsing = False

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
        self.loop.call_later(IDLE_LOOK_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and self.leaving():
            self.transport.close()

    def _learn(self, data: bytes) -> None:
        """`data` was a whole request; if it was a plain one, the next like it can be quicker."""
        cycle = self.cycle
        if isinstance(cycle, _HotCycle) and cycle.refusal is None and cycle.keep_alive:
            self.gateway.fast.learn(data, self.headers)

    def answered(self, cycle: FastCycle, answer: bytes, now_s: float) -> None:
        """Write an answer of the short way and go on with what came meanwhile."""
        self.transport.write(answer)
        self._answered_s = now_s
        if not cycle.keep_alive:
            self.finish(lingering=True)
        if self.pipeline or self.flow.read_paused or self._finished:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def go_on(self, cycle: FastCycle, error: ApiError | None) -> None:
        """The long way takes over from the short one, or says what went wrong there."""
        path = KEY_PREFIX + quote(cycle.key, safe="")
        head = _Head(cycle.method, path.encode(), "", cycle.head.headers)
        slow = _HotCycle(self, _HOT_KEY[cycle.method.encode()], head, cycle.key)
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
        if not self.cycle.response_complete:
            return  # it is set when this one is answered
        left_s = self._answered_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(
                left_s, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's callback."""
        if self._linger is not None:
            self._linger.cancel()
        self.unread.read()
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, _HotCycle):
                cycle.disconnected = cycle.disconnected or not cycle.response_complete
                cycle.release()
        if self._fast is not None:
            self._fast.disconnected = True
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP, in place of uvicorn's plain text."""
        self._refuse_connection(ApiError(400, "BadRequest", msg))

    def _refuse_connection(self, error: ApiError) -> None:
        self.gateway.metrics.failed("none", error.code)
        answer = error_answer(error)
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(answer.body)
        )
        self.transport.write(STATUS_LINE[answer.status] + head + answer.body)
        self.finish(lingering=True)

    def finish(self, *, lingering: bool) -> None:
        """Close; `lingering` gives a client that still sends the time to read the answer."""
        self._finished = True
        if not lingering:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger = self.loop.call_later(LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        """Parser's callback."""
        self._head_bytes = 0
        self._between = False
        self._messages += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Parser's callback: take a hot request, leave the others to uvicorn."""
        self._head_bytes = None
        path, _, query = self.url.partition(b"?")
        method = self.parser.get_method()
        hot = _HOT.get((method, path))
        key = b""
        if hot is None and path.startswith(_KEY_PREFIX):
            hot = _HOT_KEY.get(method)
            key = unquote_to_bytes(path[len(_KEY_PREFIX) :])
        if hot is None or b"#" in self.url or self.parser.should_upgrade():
            super().on_headers_complete()
            return
        head = _Head(method.decode(), path, query.decode("latin-1"), dict(self.headers))
        cycle = _HotCycle(self, hot, head, key)
        version = self.parser.get_http_version()
        cycle.keep_alive = version != "1.0" and self.parser.should_keep_alive()
        cycle.refusal = self._refusal(hot)
        previous = self.cycle  # None before the first request
        self.cycle = cycle
        if previous is None or previous.response_complete:
            self._run(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _run(self, cycle: _HotCycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _refusal(self, operation: Operation) -> ApiError | None:
        """What the head alone is reason enough to refuse."""
        size = len(self.url)
        length, origin, host = b"0", None, None
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                length = value
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"host":
                host = value.decode("latin-1")
        if size > HEAD_BYTES_MAX:
            return _head_too_large()
        if int(length) > operation.body_bytes_max:
            return _too_large(operation)
        return refusal_of_origin(operation.method, origin, host)

    def on_body(self, body: bytes) -> None:
        """Parser's callback."""
        if isinstance(self.cycle, _HotCycle):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser's callback."""
        self._between = True
        if isinstance(self.cycle, _HotCycle):
            self.cycle.more_body = False
            self.cycle.message_event.set()
        else:
            super().on_message_complete()


def _too_large(operation: Operation) -> ApiError:
    return TooLarge(f"The body is longer than {operation.body_bytes_max} bytes.")


def _head_too_large() -> ApiError:
    return ApiError(431, "TooLarge", f"The request's head is longer than {HEAD_BYTES_MAX} bytes.")
