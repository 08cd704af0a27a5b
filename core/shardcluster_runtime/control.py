"""The controller's HTTP API: how the gateway and `shardctl` tell it what is wanted.

Law: a request changes the *desired* state or nothing; every refusal is
`{"error": {"code", "message"}}` with a CamelCase code and a sentence, and has changed nothing.
The API is internal (127.0.0.1 locally, the inner network under Compose).  So that no web page
can reach it through somebody's browser, a request with an `Origin` header is refused.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from shardcluster.edits import EditError
from shardcluster.spec import SpecError
from shardcluster_runtime.platforms.protocol import PlatformUnable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Accepted", "ControllerLike", "control_app"]

BODY_BYTES_MAX = 1 << 20
NUMBER_MAX = 1e15  # of a version or a wait; keeps infinity out
WAIT_MAX_S = 60.0  # a long poll asked to wait longer waits this long
SIGNALS = ("KILL", "STOP", "CONT")
STATUS_OF_EDIT_ERROR = {
    "UnknownShard": 404,
    "InvalidSpec": 422,
    "LastShard": 409,
    "AlreadyLeaving": 409,
    "NoSpareNode": 409,
    "NotPossibleHere": 409,
    "TooManyShards": 409,
}

Document = dict[str, Any]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a change of the desired state answers: it is noted and will happen."""

    message: str
    shard: str | None = None
    plan: Document = field(default_factory=dict)

    def document(self) -> Document:
        """As the API shows it."""
        return {
            "accepted": True,
            "message": self.message,
            "shard": self.shard,
            "plan": self.plan,
        }


class ControllerLike(Protocol):
    """What this API needs of the controller.

    All but `state` and `wait_state` may raise EditError, SpecError or PlatformUnable, having
    changed nothing.
    """

    def state(self) -> Document:
        """The state document."""
        ...

    def metrics(self) -> bytes:
        """What Prometheus reads."""
        ...

    async def wait_state(self, since: int, wait_s: float) -> Document:
        """The state document once its version is not `since`, or after `wait_s`."""
        ...

    async def add_shard(self) -> Accepted:
        """One shard more."""
        ...

    async def remove_shard(self, node: str) -> Accepted:
        """Drain and remove a shard, named by itself or by one of its nodes."""
        ...

    async def rebalance(self) -> Accepted:
        """Move slots to where the ring wants them, once."""
        ...

    async def put_spec(self, document: Document) -> Accepted:
        """Replace the desired spec."""
        ...

    async def preview(self, document: Document) -> Document:
        """The plan that `put_spec` of this document would lead to; changes nothing."""
        ...

    async def kill(self, node: str, signal_name: str) -> None:
        """Send KILL, STOP or CONT to a node's process."""
        ...


class _Refused(Exception):
    """The request was refused; nothing was changed."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def control_app(controller: ControllerLike) -> web.Application:
    """The control API of `controller`, ready for an aiohttp runner."""
    handlers = _Handlers(controller)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_errors_as_json])
    app.add_routes([
        web.get("/healthz", handlers.healthz),
        web.get("/metrics", handlers.metrics),
        web.get("/state", handlers.state),
        web.post("/add_shard", handlers.add_shard),
        web.post("/remove_shard", handlers.remove_shard),
        web.post("/rebalance", handlers.rebalance),
        web.put("/spec", handlers.put_spec),
        web.post("/plan", handlers.plan),
        web.post("/kill", handlers.kill),
    ])  # fmt: skip
    return app


class _Handlers:
    """One method an endpoint."""

    def __init__(self, controller: ControllerLike) -> None:
        self._controller = controller

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def metrics(self, _request: web.Request) -> web.Response:
        found = self._controller.metrics()
        return web.Response(body=found, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def state(self, request: web.Request) -> web.Response:
        if "since" not in request.query:
            return web.json_response(self._controller.state())
        since = int(_number(request, "since", 0))
        wait_s = min(_number(request, "wait_s", 0.0), WAIT_MAX_S)
        return web.json_response(await self._controller.wait_state(since, wait_s))

    async def add_shard(self, request: web.Request) -> web.Response:
        await _fields(request)
        return _accepted(await self._controller.add_shard())

    async def remove_shard(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "node")
        return _accepted(await self._controller.remove_shard(fields["node"]))

    async def rebalance(self, request: web.Request) -> web.Response:
        await _fields(request)
        return _accepted(await self._controller.rebalance())

    async def put_spec(self, request: web.Request) -> web.Response:
        return _accepted(await self._controller.put_spec(await _object(request)))

    async def plan(self, request: web.Request) -> web.Response:
        plan = await self._controller.preview(await _object(request))
        message = f"{plan.get('slots', 0)} slots would move."
        return web.json_response(Accepted(message, None, plan).document())

    async def kill(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "node", "signal")
        signal_name = fields["signal"].removeprefix("SIG")
        if signal_name not in SIGNALS:
            _bad_request(f'"signal" must be one of {", ".join(SIGNALS)}.')
        await self._controller.kill(fields["node"], signal_name)
        message = f"Sent SIG{signal_name} to {fields['node']}."
        return _accepted(Accepted(message))


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        if "Origin" in request.headers:
            return _error(403, "Forbidden", "This internal API does not answer web pages.")
        return await handler(request)
    except web.HTTPException as error:
        return _http_error(request, error)
    except (_Refused, SpecError, EditError, PlatformUnable) as error:
        return _refusal(error)
    except Exception:  # noqa: BLE001 - a bug of ours: the caller gets a sentence, the log the traceback
        _log.exception("%s %s failed", request.method, request.path)
        return _error(500, "InternalError", "The controller failed on this; its log says why.")


def _refusal(error: Exception) -> web.Response:
    if isinstance(error, _Refused):
        return _error(error.status, error.code, str(error))
    if isinstance(error, EditError):
        return _error(STATUS_OF_EDIT_ERROR.get(error.code, 409), error.code, str(error))
    if isinstance(error, SpecError):
        return _error(422, "InvalidSpec", str(error))
    return _error(409, "NotPossibleHere", str(error))


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses, in our form."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return _error(413, "TooLarge", f"The body is larger than {BODY_BYTES_MAX} bytes.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _error(405, "MethodNotAllowed", f"{request.path} allows only {allowed}.")
        response.headers["Allow"] = allowed
        return response
    if isinstance(error, web.HTTPNotFound):
        return _error(404, "NotFound", f"There is no {request.path} here.")
    return _error(error.status, "BadRequest", f"{error.reason}.")


def _accepted(accepted: Accepted) -> web.Response:
    return web.json_response(accepted.document(), status=202)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def _bad_request(message: str) -> NoReturn:
    raise _Refused(400, "BadRequest", message)


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= NUMBER_MAX:  # false for NaN as well
        _bad_request(f'"{name}" must be a number that is not negative.')
    return number


async def _object(request: web.Request) -> Document:
    body = await request.read()
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        _bad_request("The body must be JSON.")
    if not isinstance(found, dict):
        _bad_request("The body must be a JSON object.")
    return found


async def _fields(request: web.Request, *names: str) -> dict[str, str]:
    """The body's fields: exactly `names`, all non-empty strings; an empty body is `{}`."""
    if not names and not await request.read():
        return {}
    found = await _object(request)
    for name in found:
        if name not in names:
            _bad_request(f"Unknown field {json.dumps(name[:100])}.")
    for name in names:
        if not isinstance(found.get(name), str) or not found[name]:
            _bad_request(f'"{name}" must be a non-empty string.')
    return found
