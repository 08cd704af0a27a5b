"""One request that is answered in the event loop, in place of uvicorn's own cycle.

Law: the whole answer is one write; one that streams is written as its pieces come, and the next
piece is asked for only when the client has read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from shardcluster_api.answers import Answer, Request
from shardcluster_api.errors import ApiError, TooLarge
from shardcluster_api.flow import bodies_too_large, body_timeout
from shardcluster_api.limits import RECEIVE_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from shardcluster_api.operations import Operation
    from shardcluster_api.protocol import GatewayProtocol

__all__ = ["HotCycle", "RequestHead", "too_large"]

_NO_BODY_STATUSES = frozenset({204, 304})


class RequestHead(NamedTuple):
    """What a request's head says."""

    method: str
    path: bytes
    query: str
    headers: Mapping[bytes, bytes]


class HotCycle:
    """One hot request; the public attributes are those that uvicorn's protocol looks at."""

    def __init__(
        self, protocol: GatewayProtocol, operation: Operation, head: RequestHead, key: bytes
    ) -> None:
        """Of the `protocol`'s connection."""
        self.response_complete = False
        self.disconnected = False
        self.more_body = True
        self.keep_alive = True
        self.message_event = asyncio.Event()
        self.body = bytearray()
        self.operation = operation
        self.refusal: ApiError | None = None
        self._protocol = protocol
        self.ended = False  # a stream is to end
        self._head = head
        self._key = key
        self._streaming: asyncio.Task[None] | None = None

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
            answer = self.operation.error(self.refusal)
            protocol.gateway.metrics.answered(self.operation.name, answer.status, 0.0)
            protocol.gateway.metrics.failed(self.operation.name, self.refusal.code)
        self.release()
        if answer.stream is not None:
            await self._stream(answer, answer.stream)
        elif not self.disconnected:
            busy = protocol.unread.refusal(len(answer.body))
            self.respond(answer if busy is None else self.operation.error(busy))

    async def _stream(self, answer: Answer, stream: AsyncGenerator[bytes, None]) -> None:
        """Pieces as they come, until the stream ends, the client goes, or the gateway does.

        While the client doesn't read, no further piece is asked for.
        """
        protocol, self.keep_alive = self._protocol, False
        if self.disconnected:
            await stream.aclose()
            return
        self._streaming = asyncio.current_task()
        chunked = protocol.parser.get_http_version() != "1.0"
        coding = b"transfer-encoding: chunked\r\n" if chunked else b""
        try:
            protocol.transport.write(b"".join(self._head_of(answer, coding)))
            async for piece in stream:
                protocol.transport.write(
                    b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                )
                if protocol.flow.write_paused:
                    await protocol.flow.drain()
        except asyncio.CancelledError:
            if not self.ended:
                raise
        finally:
            self._streaming = None
            await stream.aclose()
            if not self.disconnected:
                protocol.transport.write(b"0\r\n\r\n" if chunked else b"")
                self.response_complete = True
                protocol.finish(lingering=True)

    def end_stream(self) -> None:
        """Nobody wants it any more, or the gateway shuts down."""
        self.ended = True
        if self._streaming is not None:
            self._streaming.cancel()

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
            self.refuse(too_large(self.operation))
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
        leaving = protocol.leaving()
        self.keep_alive = self.keep_alive and not leaving
        head = self._head_of(answer, b"content-length: %d\r\n" % len(answer.body))
        if not bodiless:
            head.append(answer.body)
        protocol.transport.write(b"".join(head))
        self.response_complete = True
        if not self.keep_alive:
            protocol.finish(lingering=self.more_body or leaving)
        protocol.on_response_complete()

    def _head_of(self, answer: Answer, length: bytes) -> list[bytes]:
        head = [STATUS_LINE[answer.status]]
        for name, value in self._protocol.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        if answer.status not in _NO_BODY_STATUSES:
            head += (f"content-type: {answer.content_type}\r\n".encode("latin-1"), length)
        for header, text in answer.headers:
            head.append(f"{header.lower()}: {text}\r\n".encode("latin-1"))
        head.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        return head


def too_large(operation: Operation) -> ApiError:
    """For a body over its operation's limit."""
    return TooLarge(f"The body is longer than {operation.body_bytes_max} bytes.")
