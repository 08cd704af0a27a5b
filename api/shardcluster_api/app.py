"""The Flask app: every operation as a view, and every HTTP error as JSON.

Works alone (`flask --app shardcluster_api run`): the router then lives in an event loop in a
background thread, made at the first request, so that a server that forks workers forks first.
Behind the fast protocol it is given the running gateway and gets what is not hot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote_to_bytes

import flask
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import BaseConverter

from shardcluster_api.answers import Request
from shardcluster_api.errors import ApiError
from shardcluster_api.gateway import Gateway
from shardcluster_api.guards import COMMON_HEADERS, NO_CORS, refusal_of_origin
from shardcluster_api.limits import REQUEST_DEADLINE_S
from shardcluster_api.operations import (
    COMMAND_WORDS,
    KEY_PREFIX,
    OPERATIONS,
    WEBDIS_PATH,
    error_shape,
)
from shardcluster_api.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from shardcluster_api.answers import Answer
    from shardcluster_api.guards import Cors
    from shardcluster_api.operations import Operation

__all__ = ["BackgroundBridge", "Bridge", "LoopBridge", "create_app"]

BRIDGE_TIMEOUT_S = 4 * REQUEST_DEADLINE_S  # only a bug takes so long
START_WAIT_S = 3.0  # the first request of a fresh worker waits for the slot map so long
_WITHOUT_BODY = frozenset({204, 304})
_CODES = {
    400: "BadRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    413: "TooLarge",
    431: "TooLarge",
}
Environment = dict[str, Any]


class Bridge(Protocol):
    """How a thread reaches the gateway."""

    def answer(self, operation: Operation, request: Request) -> Answer:
        """Carry out a request and wait for its answer."""
        ...

    def pieces(self, stream: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
        """What an answer streams, as a thread can take it."""
        ...


class LoopBridge:
    """To a gateway whose event loop runs in another thread."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is the gateway's."""
        self._gateway = gateway
        self._loop = loop

    def answer(self, operation: Operation, request: Request) -> Answer:
        """Carry out a request in the loop."""
        role = self._gateway.role_of(request.headers, request.query)
        work = asyncio.run_coroutine_threadsafe(
            self._gateway.answer(operation, replace(request, role=role)), self._loop
        )
        return work.result(BRIDGE_TIMEOUT_S)

    def pieces(self, stream: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
        """What an answer streams; each piece is asked for when the one before is sent."""
        try:
            while True:
                asked = asyncio.run_coroutine_threadsafe(_next(stream), self._loop)
                if (piece := asked.result()) is None:
                    return
                yield piece
        finally:
            asyncio.run_coroutine_threadsafe(stream.aclose(), self._loop)


async def _next(stream: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(stream, None)


class BackgroundBridge:
    """Makes gateway, loop and thread itself, once a process."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is started before the first request."""
        self._settings = settings
        self._lock = threading.Lock()
        self._process_id = 0
        self._bridge: LoopBridge | None = None
        self._stop: Callable[[], None] = lambda: None

    def answer(self, operation: Operation, request: Request) -> Answer:
        """Carry out a request, after starting what is needed."""
        bridge = self._bridge
        if bridge is None or self._process_id != os.getpid():
            bridge = self._start()
        return bridge.answer(operation, request)

    def pieces(self, stream: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
        """Of an answer that `answer` gave before."""
        assert self._bridge is not None
        return self._bridge.pieces(stream)

    def _start(self) -> LoopBridge:
        with self._lock:
            if self._bridge is not None and self._process_id == os.getpid():
                return self._bridge
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="gateway", daemon=True)
            thread.start()
            starting = asyncio.run_coroutine_threadsafe(_started(self._settings), loop)
            gateway = starting.result(BRIDGE_TIMEOUT_S)

            def stop() -> None:
                asyncio.run_coroutine_threadsafe(gateway.close(), loop).result(BRIDGE_TIMEOUT_S)
                loop.call_soon_threadsafe(loop.stop)
                thread.join(BRIDGE_TIMEOUT_S)
                loop.close()

            self._stop = stop
            self._process_id = os.getpid()
            self._bridge = LoopBridge(gateway, loop)
            return self._bridge

    def close(self) -> None:
        """Stop what was started."""
        with self._lock:
            if self._bridge is not None:
                self._stop()
                self._bridge = None


async def _started(settings: Settings) -> Gateway:
    gateway = Gateway(settings)
    gateway.start()
    end_s = asyncio.get_running_loop().time() + START_WAIT_S
    while gateway.unready() and (left_s := end_s - asyncio.get_running_loop().time()) > 0:
        await gateway.topology.changed(min(left_s, 0.1))
    return gateway


class _AnyCommand(BaseConverter):
    """A word that the engine knows, and whatever follows it; the view reads the raw path."""

    part_isolating = False
    regex = rf"(?i:{'|'.join(word.decode() for word in sorted(COMMAND_WORDS))})(?:/[\s\S]*)?"


class _AnyKey(BaseConverter):
    """The rest of the path, whatever it is; the view reads it from the raw path."""

    part_isolating = False
    regex = r"[\s\S]*"


def create_app(bridge: Bridge | None = None, cors: Cors = NO_CORS) -> flask.Flask:
    """The app; without `bridge` it is configured by the environment (see settings.py).

    Raises SettingsError when the environment does not say where the store is.
    """
    app = flask.Flask("shardcluster_api", static_folder=None)
    app.url_map.converters["any_key"] = _AnyKey
    app.url_map.converters["any_command"] = _AnyCommand
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    used = bridge
    if used is None:
        settings = Settings.read()
        used, cors = BackgroundBridge(settings), settings.cors
    for operation in OPERATIONS:
        if operation.method == "HEAD":
            continue  # Flask adds it to each GET
        app.add_url_rule(
            _rule(operation.path),
            endpoint=operation.name,
            view_func=_view(operation, used),
            methods=[operation.method],
            provide_automatic_options=False,
        )
    app.before_request(_refuse_other_sites(cors))
    app.after_request(_mark(cors))
    app.register_error_handler(HTTPException, _http_error)
    logging.getLogger("werkzeug").addFilter(_not_a_request)
    app.wsgi_app = _ReadableBodies(app.wsgi_app)  # type: ignore[method-assign, assignment]
    return app


def _not_a_request(record: logging.LogRecord) -> bool:
    """Werkzeug's server logs request lines, and these hold keys and tokens."""
    return '"%s" %s %s' not in str(record.msg)


def _rule(path: str) -> str:
    """Werkzeug's way of writing what may be anything."""
    path = path.replace(WEBDIS_PATH, WEBDIS_PATH.replace("{command}", "<any_key:command>"))
    path = path.replace("{command}", "<any_command:command>")
    return path.replace("{key}", "<any_key:key>").replace("{channel}", "<any_key:channel>")


def _view(operation: Operation, bridge: Bridge) -> Callable[..., flask.Response]:
    heads = [o for o in OPERATIONS if o.method == "HEAD" and o.path == operation.path]

    def view(**_: str) -> flask.Response:
        request = flask.request
        # One more than allowed: a chunked body over werkzeug's limit is cut off there, silently.
        request.max_content_length = operation.body_bytes_max + 1
        body = request.get_data(cache=False)
        if len(body) > operation.body_bytes_max:
            raise RequestEntityTooLarge
        asked = heads[0] if heads and request.method == "HEAD" else operation
        path = _raw_path(request.environ)
        key = unquote_to_bytes(path)[len(KEY_PREFIX) :] if "{key}" in operation.path else b""
        query = request.query_string.decode("latin-1")
        headers = {
            name.lower().encode("latin-1"): value.encode("latin-1")
            for name, value in request.headers
        }
        answer = bridge.answer(asked, Request(body, query, key, request.method, path, headers))
        return _response(answer, None if answer.stream is None else bridge.pieces(answer.stream))

    return view


def _raw_path(environment: Environment) -> bytes:
    """The path as it was sent, still %-encoded.

    PATH_INFO should carry all bytes, but a2wsgi's and werkzeug's have lost those that are not
    UTF-8; servers tell the raw path under names of their own.
    """
    scope = environment.get("asgi.scope")
    if scope is not None:
        sent: bytes = scope["raw_path"]
        return sent
    mount = environment.get("SCRIPT_NAME", "").encode("latin-1")
    for name in ("REQUEST_URI", "RAW_URI"):
        path: bytes = environment.get(name, "").partition("?")[0].encode("latin-1")
        if path.startswith(mount + b"/"):
            return path[len(mount) :]
    known: str = environment["PATH_INFO"]  # bytes as Latin-1, by the WSGI standard
    return quote(known.encode("latin-1")).encode()


def _refuse_other_sites(cors: Cors) -> Callable[[], flask.Response | None]:
    def refuse() -> flask.Response | None:
        headers = flask.request.headers
        origin = headers.get("Origin")
        if flask.request.method == "OPTIONS" and "Access-Control-Request-Method" in headers:
            answer = cors.preflight(origin, headers.get("Access-Control-Request-Headers"))
            return None if answer is None else _response(answer)
        refusal = refusal_of_origin(flask.request.method, origin, headers.get("Host"), cors)
        return None if refusal is None else _response(_error_answer(refusal))

    return refuse


def _mark(cors: Cors) -> Callable[[flask.Response], flask.Response]:
    """Headers of every answer; behind the fast protocol, uvicorn adds the common ones."""

    def mark(response: flask.Response) -> flask.Response:
        if "asgi.scope" not in flask.request.environ:
            response.headers.extend(COMMON_HEADERS)
        if "Vary" not in response.headers:  # else the gateway did it
            response.headers.extend(cors.headers(flask.request.headers.get("Origin")))
        return response

    return mark


def _error_answer(error: ApiError) -> Answer:
    return error_shape(_raw_path(flask.request.environ))(error)


def _response(answer: Answer, stream: Iterator[bytes] | None = None) -> flask.Response:
    body = answer.body if stream is None else stream
    response = flask.Response(body, answer.status, content_type=answer.content_type)
    if answer.status in _WITHOUT_BODY:
        response.headers.pop("Content-Type", None)
    response.headers.extend(answer.headers)
    return response


def _http_error(error: HTTPException) -> flask.Response:
    status = error.code or 500
    code = _CODES.get(status, "InternalError" if status >= 500 else "BadRequest")
    allowed = sorted(getattr(error, "valid_methods", None) or ())
    headers = (("Allow", ", ".join(allowed)),) if allowed else ()
    path = flask.request.path
    words = {
        404: f"There is no {path} here; / lists what is.",
        405: f"{path} allows only {', '.join(allowed)}.",
        413: "The body is longer than this endpoint takes.",
    }
    message = words.get(status) or error.description or error.name
    return _response(_error_answer(ApiError(status, code, message, headers=headers)))


class _ReadableBodies:
    """a2wsgi ends a chunked body properly, but does not say so; Flask would read nothing."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environment: Environment, start_response: Any) -> Iterable[bytes]:
        if "asgi.scope" in environment:
            environment["wsgi.input_terminated"] = True
        return self._app(environment, start_response)
