"""uvicorn's HTTP protocol with the hot operations answered right in the event loop.

A request for an operation marked `hot` becomes a `_HotCycle` in place of uvicorn's own
request-response cycle: no ASGI messages, no thread, one write for the whole answer.  All else goes
uvicorn's way, to the Flask app behind a2wsgi.  Both kinds share uvicorn's pipeline, so that answers
leave in the order of their requests, and its keep-alive and shutdown.

Law: what a client sends is bounded before it is held: the head by `HEAD_BYTES_MAX`, a body by its
operation's limit, all bodies together by `BUFFERED_BYTES_MAX`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from shardcluster_api.answers import Answer, Request, error_answer
from shardcluster_api.errors import ApiError, TooBusy, TooLarge
from shardcluster_api.guards import refusal_of_origin
from shardcluster_api.heads import Head, head_too_large, read_head
from shardcluster_api.limits import (
    BUFFERED_BYTES_MAX,
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    HEAD_TIMEOUT_S,
    RECEIVE_TIMEOUT_S,
)
from shardcluster_api.operations import KEY_PATH, KEY_PREFIX, OPERATIONS

if TYPE_CHECKING:
    from shardcluster_api.gateway import Gateway
    from shardcluster_api.guards import Cors
    from shardcluster_api.operations import Operation

__all__ = ["GatewayProtocol"]

FRAMING_FACTOR = 16  # a chunk of one byte has five around it
LINGER_S = 1.0  # after a refusal, for the client to read it while it still sends
_KEY_PREFIX = KEY_PREFIX.encode()
_HOT = {(o.method.encode(), o.path.encode()): o for o in OPERATIONS if o.hot}
_HOT_KEY = {o.method.encode(): o for o in OPERATIONS if o.hot and o.path == KEY_PATH}
_REFUSED = replace(OPERATIONS[0], name="refused")  # stands for a request that is not understood
_Parts = tuple[str, bytes, str, bytes, dict[bytes, bytes]]  # of a Request, between body and role
_NO_BODY_STATUSES = frozenset({204, 304})


class _HotCycle:
    """One hot request; the public attributes are those that uvicorn's protocol looks at."""

    def __init__(self, protocol: GatewayProtocol, operation: Operation, parts: _Parts) -> None:
        self.response_complete = False
        self.disconnected = False
        self.more_body = True
        self.keep_alive = True
        self.message_event = asyncio.Event()
        self.body = bytearray()
        self.operation = operation
        self.refusal: ApiError | None = None
        self._protocol = protocol
        self._parts = parts

    async def run_asgi(self, _app: Any) -> None:
        """Wait for the body, carry out, answer."""
        protocol = self._protocol
        if self.more_body and self.refusal is None:
            await self._receive()
        if self.disconnected or (self.more_body and self.refusal is None):
            return
        if self.refusal is None:
            query, _, _, _, headers = self._parts
            role = protocol.gateway.role_of(headers, query)
            request = Request(bytes(self.body), *self._parts, role)
            answer = await protocol.gateway.answer(self.operation, request)
        else:
            self.keep_alive = False
            answer = error_answer(self.refusal)
            protocol.gateway.metrics.answered(self.operation.name, answer.status, 0.0)
        self.release()
        if protocol.flow.write_paused and not self.disconnected:
            await protocol.flow.drain()
        if not self.disconnected:
            self._respond(answer)

    async def _receive(self) -> None:
        if self._protocol.expect_100_continue:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                while self.more_body and self.refusal is None and not self.disconnected:
                    self.message_event.clear()
                    await self.message_event.wait()
        except TimeoutError:
            message = f"The body did not arrive within {RECEIVE_TIMEOUT_S:.0f} s."
            self.refusal = ApiError(408, "RequestTimeout", message)

    def take(self, body: bytes) -> None:
        """A piece of the body came."""
        if self.refusal is not None:
            return
        gateway = self._protocol.gateway
        if len(self.body) + len(body) > self.operation.body_bytes_max:
            self.refuse(_too_large(self.operation))
        elif gateway.buffered_bytes + len(body) > BUFFERED_BYTES_MAX:
            self.refuse(TooBusy("The bodies of all requests under way take too much memory."))
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

    def _respond(self, answer: Answer) -> None:
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
        head.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if not bodiless:
            head.append(answer.body)
        protocol.transport.write(b"".join(head))
        self.response_complete = True
        if not self.keep_alive:
            protocol.finish(lingering=self.more_body)
        protocol.on_response_complete()


class GatewayProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(self, gateway: Gateway, **options: Any) -> None:
        """`options` are uvicorn's."""
        super().__init__(**options)
        self.gateway = gateway
        self._head_bytes: int | None = None  # received of a head that is not complete
        self._finished = False
        self._in_body = False
        self._piece_bytes = 0  # of the body, in the data that is parsed just now
        self._body_bytes = self._framing_bytes = 0  # of the body, and of what stands around it
        self._refusal: ApiError | None = None  # why the parser was stopped
        self._linger: asyncio.TimerHandle | None = None
        self._waiting_for_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Asyncio's callback."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse_connection(TooBusy(f"{CONNECTIONS_MAX} clients are connected already."))
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        if self._finished:
            return  # refused and on its way out
        body_of = self.cycle if self._in_body else None
        self._piece_bytes = 0
        super().data_received(data)
        if self._in_body and body_of is self.cycle:
            self._check_framing(len(data))
        if self._head_bytes is not None and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse_connection(head_too_large())
        cycle: Any = self.cycle  # None before the first request
        if self._waiting_for_head is None and (cycle is None or cycle.response_complete):
            # uvicorn has no timer now, whether a part of a head came or only empty lines.
            self._waiting_for_head = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _check_framing(self, size: int) -> None:
        """Refuse a chunked body that is mostly what stands between the chunks.

        Extensions of chunks may be of any length for the parser, and say nothing to us.
        """
        self._framing_bytes += size - self._piece_bytes
        if self._framing_bytes > HEAD_BYTES_MAX + FRAMING_FACTOR * self._body_bytes:
            message = "The chunks of the body are mostly extensions."
            self._refuse_connection(ApiError(400, "BadRequest", message))

    def _head_is_late(self) -> None:
        message = f"The head did not arrive within {HEAD_TIMEOUT_S:.0f} s."
        self._refuse_connection(ApiError(408, "RequestTimeout", message))

    def _head_is_there(self) -> None:
        self._head_bytes = None
        if self._waiting_for_head is not None:
            self._waiting_for_head.cancel()
            self._waiting_for_head = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's callback."""
        self._head_is_there()
        if self._linger is not None:
            self._linger.cancel()
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, _HotCycle):
                cycle.disconnected = cycle.disconnected or not cycle.response_complete
                cycle.release()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP, in place of uvicorn's plain text."""
        self._refuse_connection(self._refusal or ApiError(400, "BadRequest", msg))

    def _refuse_connection(self, error: ApiError) -> None:
        """Answer with an error when its turn comes, and read nothing more."""
        if self._finished:
            return
        self._finished = True
        cycle: Any = self.cycle  # None before the first request
        if self._in_body and cycle is not None:
            if cycle.response_complete or getattr(cycle, "response_started", False):
                self.transport.close()  # it has its answer already
                return
            if isinstance(cycle, _HotCycle):
                cycle.refuse(error)  # it is this request that is broken
                return
            # The Flask app gets half a body: as if the client had gone.
            cycle.disconnected = cycle.response_complete = True
            cycle.message_event.set()
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
                cycle.response_complete = False  # others are before it
        refused = _HotCycle(self, _REFUSED, ("", b"", "", b"", {}))
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
        self._in_body, self._framing_bytes, self._body_bytes = True, 0, 0
        path, _, query = self.url.partition(b"?")
        method = self.parser.get_method()
        hot = _HOT.get((method, path))
        key = b""
        if hot is None and path.startswith(_KEY_PREFIX):
            hot = _HOT_KEY.get(method)
            key = unquote_to_bytes(path[len(_KEY_PREFIX) :])
        if hot is None:
            super().on_headers_complete()
            return
        text = query.decode("latin-1")
        cycle = _HotCycle(self, hot, (text, key, method.decode(), path, dict(self.headers)))
        cycle.keep_alive = version != "1.0" and self.parser.should_keep_alive()
        cycle.refusal = _refusal(hot, head, self.gateway.settings.cors)
        self._enqueue(cycle)

    def _enqueue(self, cycle: _HotCycle) -> None:
        previous: RequestResponseCycle | None = self.cycle  # None before the first request
        # uvicorn's protocol looks only at what _HotCycle has, too
        self.cycle = cycle  # type: ignore[assignment]
        if previous is None or previous.response_complete:
            self._run(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _run(self, cycle: _HotCycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        """Parser's callback."""
        self._piece_bytes += len(body)
        self._body_bytes += len(body)
        if isinstance(self.cycle, _HotCycle):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser's callback."""
        self._in_body = False
        if isinstance(self.cycle, _HotCycle):
            self.cycle.more_body = False
            self.cycle.message_event.set()
        else:
            super().on_message_complete()


def _refusal(operation: Operation, head: Head, cors: Cors) -> ApiError | None:
    """What the head alone is reason enough to refuse."""
    if head.body_bytes is not None and head.body_bytes > operation.body_bytes_max:
        return _too_large(operation)
    return refusal_of_origin(operation.method, head.origin, head.host, cors)


def _too_large(operation: Operation) -> ApiError:
    return TooLarge(f"The body is longer than {operation.body_bytes_max} bytes.")
