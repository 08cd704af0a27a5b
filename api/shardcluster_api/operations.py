"""The one list of what the gateway can do: name, method, path, what it takes, how it is answered.

The Flask app makes its routes from it, the fast protocol takes the marked ones to itself, and
/openapi.json is generated from it.  Law: an operation that is not in `OPERATIONS` doesn't exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardcluster_api import codec, data, upstash
from shardcluster_api.access import Role, refusal_of_role
from shardcluster_api.answers import (
    BYTES_TYPE,
    Answer,
    Request,
    error_answer,
    json_answer,
    place_fields,
    place_headers,
)
from shardcluster_api.commands.many import PLAIN, is_plain
from shardcluster_api.commands.table import WORDS
from shardcluster_api.dashboard import assets
from shardcluster_api.dashboard.preview import preview
from shardcluster_api.errors import ApiError, BadRequest, ControllerUnavailable
from shardcluster_api.limits import BODY_BYTES_MAX, RETRY_AFTER_S, VALUE_BYTES_MAX
from shardcluster_api.metrics import CONTENT_TYPE as METRICS_TYPE
from shardcluster_api.pubsub import subscribe
from shardcluster_api.webdis import WEBDIS_PREFIX, webdis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardcluster_api.answers import Headers
    from shardcluster_api.gateway import Gateway

    Handler = Callable[[Gateway, Request], Awaitable[Answer]]

__all__ = [
    "COMMAND_WORDS", "KEY_PATH", "KEY_PREFIX", "OPERATIONS", "WEBDIS_PATH", "Operation",
    "by_first_word", "error_shape",
]  # fmt: skip

KEY_PREFIX = "/v1/keys/"
KEY_PATH = "/v1/keys/{key}"
COMMAND_PATH = "/{command}"
WEBDIS_PATH = f"{WEBDIS_PREFIX}{{command}}"
# The first words of paths that are commands: the engine's own words, so that every other path is
# free for operations of ours.
COMMAND_WORDS = WORDS - {b"subscribe", b"psubscribe"}
_NO_STORE = (("Cache-Control", "no-store"),)
SMALL_BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client can ask for."""

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    hot: bool = False  # the fast protocol answers it in the event loop
    body_bytes_max: int = SMALL_BODY_BYTES_MAX
    takes: str | None = None  # schema of the body in openapi.py
    gives: str = "Any"
    query: tuple[str, ...] = field(default=())
    statuses: tuple[int, ...] = (200,)
    role: Role = Role.NONE  # the weakest that may
    error: Callable[[ApiError], Answer] = error_answer  # how this protocol writes errors
    fails: str = "Error"  # the schema of those


# -- keys ----------------------------------------------------------------------------------


async def _write(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    wanted = codec.parse_write(request.body)
    with gateway.admitted(1):
        slot, reply, more = await data.write(gateway.router, wanted)
    key = codec.bytes_fields("key", wanted.key)
    document = {**key, "written": True, **more, **place_fields(slot, reply)}
    return json_answer(document, headers=place_headers(slot, reply))


async def _read_get(gateway: Gateway, request: Request) -> Answer:
    query = codec.parse_query(request.query, "key", "consistency")
    strong = codec.parse_consistency(query)
    if "key" not in query:
        message = 'The query must name the key: "key" is missing.'
        raise BadRequest(message)
    return await _read(gateway, codec.checked_key(query["key"]), strong=strong)


async def _read_post(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    key, strong = codec.parse_read(request.body)
    return await _read(gateway, key, strong=strong)


async def _read(gateway: Gateway, key: bytes, *, strong: bool) -> Answer:
    with gateway.admitted(1):
        slot, reply = await data.read(gateway.router, key, strong=strong)
    fields = {**codec.bytes_fields("key", key), **codec.bytes_fields("value", reply.value)}
    document = {**fields, "found": True, **place_fields(slot, reply)}
    return json_answer(document, headers=place_headers(slot, reply))


async def _key_get(gateway: Gateway, request: Request) -> Answer:
    query = codec.parse_query(request.query, "consistency")
    strong = codec.parse_consistency(query)
    key = codec.checked_key(request.key)
    with gateway.admitted(1):
        slot, reply = await data.read(gateway.router, key, strong=strong)
    return Answer(200, reply.value, BYTES_TYPE, place_headers(slot, reply))


async def _key_put(gateway: Gateway, request: Request) -> Answer:
    query = codec.parse_query(request.query, "ttl_seconds", "durability")
    ttl_ms, durability = codec.write_options(query)
    key, value = codec.checked_key(request.key), codec.checked_value(request.body)
    wanted = codec.WriteRequest(key, value, ttl_ms, durability)
    with gateway.admitted(1):
        slot, reply, more = await data.write(gateway.router, wanted)
    return Answer(204, headers=(*place_headers(slot, reply), *_acked_headers(more)))


async def _key_delete(gateway: Gateway, request: Request) -> Answer:
    query = codec.parse_query(request.query, "durability")
    _, durability = codec.write_options(query)
    key = codec.checked_key(request.key)
    with gateway.admitted(1):
        slot, reply, more = await data.delete(gateway.router, key, durability)
    return Answer(204, headers=(*place_headers(slot, reply), *_acked_headers(more)))


def _acked_headers(more: dict[str, Any]) -> Headers:
    """How safe the write is, for answers without a body."""
    names = {"replicas_acked": "Replicas-Acked", "disks_acked": "Disks-Acked"}
    return tuple(
        (f"X-ShardCluster-{header}", str(more[name]))
        for name, header in names.items()
        if name in more
    )


async def _batch(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    keys = codec.plain_reads(request.body)
    if keys and is_plain(gateway.router, keys, PLAIN):
        with gateway.admitted(len(keys)):
            return Answer(200, await data.batch_read(gateway.router, keys))
    items = codec.parse_batch(request.body)
    if any(item.kind is not codec.ItemKind.GET for item in items):
        refusal = refusal_of_role(request.role, Role.WRITE)
        if refusal is not None:
            raise refusal
    with gateway.admitted(len(items)):
        return json_answer(await data.batch(gateway.router, items))


# -- the store's shape ---------------------------------------------------------------------


async def _add_node(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    codec.parse_nothing(request.body)
    return json_answer(await gateway.control.add_shard(), 202)


async def _remove_node(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    node = codec.parse_node(request.body)
    return json_answer(await gateway.control.remove_shard(node), 202)


async def _rebalance(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    codec.parse_nothing(request.body)
    return json_answer(await gateway.control.rebalance(), 202)


async def _status(gateway: Gateway, _request: Request) -> Answer:
    """The controller's state; when it is away, the last one it told, which may be old."""
    try:
        state = await gateway.control.state()
        controller = {"controller": "reachable"}
    except ControllerUnavailable as error:
        state = gateway.state or {}
        controller = {"controller": "unreachable", "controller_message": str(error)}
    return json_answer({**state, **controller, "gateway": gateway.view()})


# -- the gateway itself --------------------------------------------------------------------


async def _healthz(_gateway: Gateway, _request: Request) -> Answer:
    return json_answer({"ok": True})


async def _readyz(gateway: Gateway, _request: Request) -> Answer:
    why = gateway.unready()
    if why:
        headers = (("Retry-After", str(RETRY_AFTER_S)),)
        raise ApiError(503, "NotReady", why, headers=headers)
    return json_answer({"ready": True})


async def _metrics(gateway: Gateway, request: Request) -> Answer:
    refusal = refusal_of_role(request.role, gateway.settings.metrics_role)
    if refusal is not None:
        raise refusal
    return Answer(200, await gateway.metrics.exposed(), METRICS_TYPE)


async def _openapi(_gateway: Gateway, _request: Request) -> Answer:
    from shardcluster_api.openapi import openapi_document  # noqa: PLC0415 - it reads OPERATIONS

    return json_answer(openapi_document(OPERATIONS))


# -- the dashboard -------------------------------------------------------------------------


async def _preview(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    return json_answer(await preview(gateway, request.body))


async def _overview(gateway: Gateway, request: Request) -> Answer:
    codec.parse_query(request.query)
    document = await gateway.overview.document()
    return json_answer({**document, "your_role": request.role.name.lower()}, headers=_NO_STORE)


async def _hot(gateway: Gateway, request: Request) -> Answer:
    query = codec.parse_query(request.query, "by")
    metric = query.get("by", b"key-count").decode("utf-8", "replace")
    return json_answer(await gateway.hot_spots.document(metric), headers=_NO_STORE)


def _foreign(
    name: str, method: str, path: str, handler: Handler, summary: str, *, bodies: tuple[str, str]
) -> Operation:
    """Of a protocol of others; `bodies` are the schemas of request and answer."""
    takes, gives = bodies
    return Operation(
        name, method, path, handler, summary,
        hot=True, body_bytes_max=BODY_BYTES_MAX, takes=takes or None, gives=gives,
        statuses=(200, 304, 400, 403, 404, 413, 503),
        role=Role.READ,  # what a command needs beyond this is looked at when it is known
        error=error_answer if path.startswith(WEBDIS_PREFIX) else upstash.upstash_error,
        fails="Error" if path.startswith(WEBDIS_PREFIX) else "CommandError",
    )  # fmt: skip


_DATA = (200, 400, 404, 409, 413, 502, 503, 507)
_STORED = (204, 400, 409, 413, 502, 503, 507)
_CONTROL = (202, 400, 404, 409, 413, 503)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "write", "POST", "/write", _write, "Store a value under a key",
        hot=True, body_bytes_max=BODY_BYTES_MAX, takes="Write", gives="Written",
        statuses=(200, 400, 409, 413, 502, 503, 507),
        role=Role.WRITE,
    ),
    Operation(
        "read", "GET", "/read", _read_get, "Read a key",
        hot=True, gives="Read", query=("key", "consistency"), statuses=_DATA,
        role=Role.READ,
    ),
    Operation(
        "read_by_body", "POST", "/read", _read_post, "Read a key named in the body",
        hot=True, takes="ReadRequest", gives="Read", statuses=_DATA,
        role=Role.READ,
    ),
    Operation(
        "get_key", "GET", KEY_PATH, _key_get, "A key's bytes",
        hot=True, gives="Bytes", query=("consistency",), statuses=_DATA,
        role=Role.READ,
    ),
    Operation(
        "head_key", "HEAD", KEY_PATH, _key_get, "Whether a key is there, and how long its value is",
        hot=True, gives="Nothing", query=("consistency",), statuses=_DATA,
        role=Role.READ,
    ),
    Operation(
        "put_key", "PUT", KEY_PATH, _key_put, "Store the body's bytes under a key",
        hot=True, body_bytes_max=VALUE_BYTES_MAX, takes="Bytes", gives="Nothing",
        query=("ttl_seconds", "durability"), statuses=_STORED,
        role=Role.WRITE,
    ),
    Operation(
        "delete_key", "DELETE", KEY_PATH, _key_delete, "Delete a key",
        hot=True, gives="Nothing", query=("durability",), statuses=(*_STORED, 404),
        role=Role.WRITE,
    ),
    Operation(
        "batch", "POST", "/v1/batch", _batch, "Many reads, writes and deletes at once",
        hot=True, body_bytes_max=BODY_BYTES_MAX, takes="Batch", gives="BatchResults",
        statuses=(200, 400, 413, 503),
        role=Role.READ,
    ),
    Operation(
        "add_node", "POST", "/add_node", _add_node, "Add a shard and move slots to it",
        takes="Empty", gives="Accepted", statuses=_CONTROL,
        role=Role.ADMIN,
    ),
    Operation(
        "remove_node", "POST", "/remove_node", _remove_node, "Drain a shard and remove it",
        takes="RemoveNode", gives="Accepted", statuses=_CONTROL,
        role=Role.ADMIN,
    ),
    Operation(
        "rebalance", "POST", "/rebalance", _rebalance, "Move slots to where the ring wants them",
        takes="Empty", gives="Accepted", statuses=_CONTROL,
        role=Role.ADMIN,
    ),
    Operation(
        "status", "GET", "/status", _status, "Shards, nodes, progress and events", role=Role.READ
    ),
    Operation("healthz", "GET", "/healthz", _healthz, "Whether the process answers", hot=True),
    Operation(
        "readyz", "GET", "/readyz", _readyz, "Whether it can serve", hot=True, statuses=(200, 503)
    ),
    Operation("metrics", "GET", "/metrics", _metrics, "For Prometheus", gives="Text"),
    Operation("openapi", "GET", "/openapi.json", _openapi, "This description"),
    Operation(
        "preview", "POST", "/v1/preview", _preview, "What a change would move; changes nothing",
        takes="Change", gives="Preview", statuses=(200, 400, 404, 409, 413, 422, 503),
        role=Role.READ,
    ),
    Operation(
        "overview", "GET", "/v1/overview", _overview, "What the dashboard shows",
        role=Role.READ,
    ),
    Operation(
        "hot", "GET", "/v1/hot", _hot, "Hot slots and hot keys", query=("by",),
        statuses=(200, 400), role=Role.READ,
    ),
    Operation("page", "GET", "/", assets.page, "The dashboard", gives="Html", statuses=(200, 304)),
    *(
        Operation(
            f"dashboard_{name}", "GET", f"/dashboard/{name}", assets.asset_handler(name),
            "A file of the dashboard", gives="Asset", statuses=(200, 304),
        )
        for name in assets.FILES
    ),
    _foreign(
        "command", "POST", "/", upstash.command_by_body, "One command of the engine, as Upstash",
        bodies=("Command", "CommandResult"),
    ),
    _foreign(
        "pipeline", "POST", "/pipeline", upstash.pipeline, "Many commands, as Upstash",
        bodies=("Commands", "CommandResults"),
    ),
    _foreign(
        "multi_exec", "POST", "/multi-exec", upstash.transaction,
        "Commands for one slot, all or none, as Upstash",
        bodies=("Commands", "CommandResults"),
    ),
    *(
        _foreign(
            f"{word}_{method.lower()}", method, f"/{word}/{{channel}}", subscribe,
            f"Listen by server-sent events ({word.upper()}), as Upstash",
            bodies=("", "EventStream"),
        )
        for word in ("subscribe", "psubscribe")
        for method in ("GET", "POST")
    ),
    *(
        _foreign(
            f"webdis_{method.lower()}", method, WEBDIS_PATH, webdis,
            "One command of the engine in the path, as Webdis",
            bodies=("" if method == "GET" else "Bytes", "Anything"),
        )
        for method in ("GET", "POST", "PUT")
    ),
    *(
        _foreign(
            f"command_{method.lower()}", method, COMMAND_PATH, upstash.command_by_path,
            "One command of the engine in the path, as Upstash",
            bodies=(
                "Bytes" if method in {"POST", "PUT"} else "",
                "Nothing" if method == "HEAD" else "CommandResult",
            ),
        )
        for method in ("GET", "HEAD", "POST", "PUT")
    ),
)  # fmt: skip

_BY_WORD = {o.method.encode(): o for o in OPERATIONS if o.path == COMMAND_PATH}
_BY_OUR_WORD = {
    (o.method.encode(), o.path[1:].partition("/")[0].encode()): o
    for o in OPERATIONS
    if o.path.endswith("/{channel}") or o.path == WEBDIS_PATH
}
_LISTS = frozenset({b"/pipeline", b"/multi-exec"})


def by_first_word(method: bytes, path: bytes) -> Operation | None:
    """The operation for a path that begins with a command of the engine, or with `webdis`."""
    word, slash, _ = path[1:].partition(b"/")
    if word.lower() in COMMAND_WORDS:
        return _BY_WORD.get(method)
    return _BY_OUR_WORD.get((method, word)) if slash else None


def error_shape(path: bytes) -> Callable[[ApiError], Answer]:
    """How errors of this path are written, whatever its method."""
    word = path[1:].partition(b"/")[0].lower()
    return upstash.upstash_error if word in WORDS or path in _LISTS else error_answer
