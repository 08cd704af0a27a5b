"""What one client's connection may cost while the client is slow.

Law: a client that does not read gets no further request carried out, all unread answers together
stay under `Limits.unsent_bytes_max`, and who reads nothing for `STALLED_AFTER_S` is cut off.  A
body that comes in drops costs no thread, and ends at `RECEIVE_TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardcluster_api.answers import error_answer
from shardcluster_api.errors import ApiError, TooBusy
from shardcluster_api.limits import RECEIVE_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardcluster_api.gateway import Gateway

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]
    Application = Callable[[Any, Receive, Send], Awaitable[None]]

__all__ = ["SMALL_ANSWER_BYTES", "BodyFirst", "Unread", "bodies_too_large", "body_timeout"]

STALLED_AFTER_S = 30.0
SMALL_ANSWER_BYTES = 64 * 1024  # always sent: it fits under the transport's high-water mark


class Unread:
    """The part of the answers to one client that is still in this process."""

    __slots__ = ("_bytes", "_gateway", "_timer", "_transport")

    def __init__(self, gateway: Gateway, transport: asyncio.Transport) -> None:
        """`transport` is the client's."""
        self._gateway = gateway
        self._transport = transport
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def refusal(self, answer_bytes: int) -> ApiError | None:
        """The error to send in place of an answer for which there is no room, else None."""
        if answer_bytes <= SMALL_ANSWER_BYTES:
            return None
        if self._gateway.unsent_bytes + answer_bytes <= self._gateway.limits.unsent_bytes_max:
            return None
        return TooBusy("Answers that other clients are slow to read take too much memory.")

    def piled_up(self) -> None:
        """The client reads more slowly than we write: watch whether it reads at all."""
        self._count(self._transport.get_write_buffer_size())
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STALLED_AFTER_S, self._look, self._bytes)

    def _look(self, before: int) -> None:
        self._timer = None
        left = self._transport.get_write_buffer_size()
        if left >= before:
            self._transport.abort()
        else:
            self.piled_up()

    def read(self) -> None:
        """The client has read it, or is gone."""
        self._count(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self, size: int) -> None:
        self._gateway.unsent_bytes += size - self._bytes
        self._bytes = size


class BodyFirst:
    """An ASGI app that has the whole body before the app behind it, and a thread of it, begins."""

    def __init__(self, app: Application, gateway: Gateway, body_bytes_max: int) -> None:
        """Of a body over `body_bytes_max` the app gets one byte more than that."""
        self._app = app
        self._gateway = gateway
        self._limit = body_bytes_max + 1

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """ASGI."""
        held = 0
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                while more and len(body) < self._limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message["body"]
                    more = message["more_body"]
                    self._gateway.buffered_bytes += len(body) - held
                    held = len(body)
                    if self._gateway.buffered_bytes > self._gateway.limits.buffered_bytes_max:
                        await _send_error(send, bodies_too_large())
                        return
            await self._app(scope, _whole(bytes(body[: self._limit]), receive), send)
        except TimeoutError:
            await _send_error(send, body_timeout())
        finally:
            self._gateway.buffered_bytes -= held


def _whole(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_whole() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_whole


async def _send_error(send: Send, error: ApiError) -> None:
    answer = error_answer(error)
    headers = [(b"content-type", answer.content_type.encode()), (b"connection", b"close")]
    headers += [(name.lower().encode(), value.encode()) for name, value in answer.headers]
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def body_timeout() -> ApiError:
    """For a body that did not come."""
    message = f"The body did not arrive within {RECEIVE_TIMEOUT_S:.0f} s."
    return ApiError(408, "RequestTimeout", message)


def bodies_too_large() -> ApiError:
    """For a body for which there is no room."""
    return TooBusy("The bodies of all requests under way take too much memory.")
