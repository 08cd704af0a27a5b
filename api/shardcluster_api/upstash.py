"""The REST protocol of Upstash's Redis, so that its clients work with this store unchanged.

`POST /` takes one command as a JSON array, `/pipeline` and `/multi-exec` a list of them, and
`/COMMAND/arg/…` one in the path; docs/http.md tells it all, and what differs.  Answers are
`{"result": …}` or `{"error": "…"}`; a write whose fate is not as the client may think has
`outcome` beside that.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any, NoReturn

import hiredis

from shardcluster_api.access import Role
from shardcluster_api.answers import BYTES_TYPE, JSON_TYPE, Answer, place_headers
from shardcluster_api.commands.asking import (
    SYNC_TOKEN,
    how_of,
    path_arguments,
    query_pairs,
    role_here,
)
from shardcluster_api.commands.many import is_plain
from shardcluster_api.commands.resp import is_status, resp2, resp2_error
from shardcluster_api.commands.run import read_all, run, run_transaction
from shardcluster_api.commands.sync_token import render
from shardcluster_api.commands.table import find
from shardcluster_api.errors import ApiError, BadRequest, EngineRefused
from shardcluster_api.limits import BATCH_OPERATIONS_MAX
from shardcluster_api.plain_json import PIPELINED_READS, are_plain, plain_strings

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster_api.answers import Headers, Request
    from shardcluster_api.commands.run import Done
    from shardcluster_api.commands.wave import How
    from shardcluster_api.gateway import Gateway

__all__ = [
    "command_by_body", "command_by_path", "error_words", "pipeline", "transaction", "upstash_error",
]  # fmt: skip

_ENCODING, _FORMAT = b"upstash-encoding", b"upstash-response-format"
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

Arguments = list[bytes]


async def command_by_body(gateway: Gateway, request: Request) -> Answer:
    """`POST /` with `["SET", "key", "value"]`."""
    given = _json_list(request.body)
    return await _one(gateway, request, _arguments(given, "The command"))


async def command_by_path(gateway: Gateway, request: Request) -> Answer:
    """`/set/key/value?EX=100`; a body goes behind the path's arguments."""
    arguments = path_arguments(request.path[1:])
    if request.body:
        arguments.append(request.body)
    for name, value in query_pairs(request.query):
        arguments += [name, value] if value else [name]
    return await _one(gateway, request, arguments)


async def _one(gateway: Gateway, request: Request, arguments: Arguments) -> Answer:
    write_down = _writer(request)
    how = how_of(gateway, request)
    done = await run(gateway, [arguments], role_here(gateway, request), how)
    (value,) = done.values
    headers = _headers(how, done)
    if len(done.parts) == 1 and (place := done.parts[0].place) is not None:
        headers = (*headers, *place_headers(done.parts[0].slot, place))
    status = 200
    if isinstance(value, ApiError):
        headers, status = (*headers, *value.headers), _status(value)
    body = write_down(value, arguments)
    if write_down is _as_resp2:
        return Answer(status, body, BYTES_TYPE, headers)
    return Answer(status, body + b"\n", JSON_TYPE, headers)


async def pipeline(gateway: Gateway, request: Request) -> Answer:
    """`POST /pipeline` with a list of commands; one answer each, in their order."""
    write_down = _writer(request)
    how = how_of(gateway, request)
    keys = plain_strings(request.body, PIPELINED_READS) if write_down is _as_json else []
    if keys and request.role >= Role.READ and is_plain(gateway.router, keys, how):
        done = await read_all(gateway, keys)
        return _all_answers(request, done, _headers(how, done))
    commands = _commands(request.body)
    done = await run(gateway, commands, request.role, how)
    headers = _headers(how, done)
    if write_down is _as_resp2:
        each = map(write_down, done.values, commands)
        return Answer(200, b"".join(each), BYTES_TYPE, headers)
    return _all_answers(request, done, headers)


async def transaction(gateway: Gateway, request: Request) -> Answer:
    """`POST /multi-exec` with a list of commands for one slot: all of them or none."""
    write_down = _writer(request)
    if write_down is _as_resp2:
        message = "A transaction is answered in JSON only."
        raise BadRequest(message)
    commands = _commands(request.body)
    how = how_of(gateway, request)
    done = await run_transaction(gateway, commands, request.role, how)
    return _all_answers(request, done, _headers(how, done))


def _all_answers(request: Request, done: Done, headers: Headers) -> Answer:
    """One JSON array, written at once: that costs much less than one document after the other."""
    values = done.values
    if set(map(type, values)) == {bytes} and are_plain(values) and not _is_base64(request):
        body = b'[{"result":"%b"}]\n' % b'"},{"result":"'.join(values)
        return Answer(200, body, JSON_TYPE, headers)
    if _is_base64(request):
        documents = [_document(value, _encoded_but_ok) for value in done.values]
    else:
        documents = [
            {"result": value.decode("utf-8", "replace")}
            if type(value) is bytes
            else _document(value, _text)
            for value in done.values
        ]
    written = _JSON.encode(documents)
    return Answer(200, written.encode() + b"\n", JSON_TYPE, headers)


def _headers(how: How, done: Done) -> Headers:
    return ((SYNC_TOKEN, render(how.seen | done.written)),)


# -- commands in -----------------------------------------------------------------------------


def _commands(body: bytes) -> list[Arguments]:
    given = _json_list(body)
    if len(given) > BATCH_OPERATIONS_MAX:
        message = f"A request may hold {BATCH_OPERATIONS_MAX} commands; this one has {len(given)}."
        raise ApiError(413, "TooLarge", message)
    if set(map(type, given)) <= {list}:
        with contextlib.suppress(AttributeError, UnicodeEncodeError):  # then one by one
            return [[one.encode() for one in command] for command in given]
    return [_arguments(one, f"Command {index}") for index, one in enumerate(given)]


def _json_list(body: bytes) -> list[Any]:
    try:
        # Numbers stay as they were written: 1.0 is not 1, and no digit is lost.
        found = json.loads(body, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except BadRequest:
        raise
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        message = "ERR The body must be a JSON array."
        raise BadRequest(message)
    return found


def _no_constant(name: str) -> NoReturn:
    message = f"ERR {name} is not JSON."
    raise BadRequest(message)


def _arguments(given: object, what: str) -> Arguments:
    if not isinstance(given, list):
        message = f"ERR {what} must be a JSON array."
        raise BadRequest(message)
    try:
        return [one.encode() if type(one) is str else _argument(one, what) for one in given]
    except UnicodeEncodeError:
        message = f"ERR {what} holds half a surrogate pair, which is not text."
        raise BadRequest(message) from None


def _argument(given: object, what: str) -> bytes:
    if isinstance(given, bool):
        return b"true" if given else b"false"
    message = f"ERR {what} may hold strings, numbers and booleans only."
    raise BadRequest(message)


# -- answers out -----------------------------------------------------------------------------


def _writer(request: Request) -> Callable[[Any, Arguments], bytes]:
    """How this request wants its answers; raises BadRequest."""
    form = request.headers.get(_FORMAT, b"json").lower()
    if form not in {b"json", b"resp2"}:
        message = "ERR Upstash-Response-Format must be json or resp2."
        raise BadRequest(message)
    if _is_base64(request):
        if form == b"resp2":
            message = "ERR Upstash-Encoding: base64 does not go with resp2."
            raise BadRequest(message)
        return _as_base64
    return _as_json if form == b"json" else _as_resp2


def _is_base64(request: Request) -> bool:
    return request.headers.get(_ENCODING, b"").lower() == b"base64"


def _as_json(value: Any, _arguments: Arguments) -> bytes:
    if type(value) is list and set(map(type, value)) == {bytes} and are_plain(value):
        return b'{"result":["%b"]}' % b'","'.join(value)
    return _JSON.encode(_document(value, _text)).encode()


def _as_base64(value: Any, _arguments: Arguments) -> bytes:
    return _JSON.encode(_document(value, _encoded_but_ok)).encode()


def _as_resp2(value: Any, arguments: Arguments) -> bytes:
    if isinstance(value, ApiError):
        return resp2_error(error_words(value))
    return resp2(value, status=is_status(find(arguments).name, arguments))


def _document(value: Any, written: Callable[[bytes], str]) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"result": written(value)}
    if isinstance(value, ApiError):
        return _error_document(value)
    if isinstance(value, hiredis.ReplyError):
        return {"error": str(value)}
    if isinstance(value, list):
        inner = _text if written is _text else _encoded
        return {"result": [_plain(one, inner) for one in value]}
    return {"result": value}


def _plain(value: Any, written: Callable[[bytes], str]) -> Any:
    if isinstance(value, bytes):
        return written(value)
    if isinstance(value, list):
        return [_plain(one, written) for one in value]
    return str(value) if isinstance(value, hiredis.ReplyError) else value


def _text(found: bytes) -> str:
    return found.decode("utf-8", "replace")


def _encoded_but_ok(found: bytes) -> str:
    return "OK" if found == b"OK" else _encoded(found)


def _encoded(found: bytes) -> str:
    return base64.b64encode(found).decode("ascii")


# -- errors ----------------------------------------------------------------------------------


def error_words(error: ApiError) -> str:
    """An error as the engine would say it."""
    if isinstance(error, EngineRefused):
        return error.engine_message
    if error.status == _UNAUTHORIZED:
        return f"WRONGPASS {error}"
    return f"NOPERM {error}" if error.status == _FORBIDDEN else str(error)


def _error_document(error: ApiError) -> dict[str, Any]:
    said = {"error": error_words(error)}
    outcome = error.fields.get("outcome")
    return said if outcome in {None, "not_applied"} else {**said, "outcome": outcome}


def _status(error: ApiError) -> int:
    """What the engine itself refused is the command's fault here, whatever it was."""
    return 400 if isinstance(error, EngineRefused) else error.status


def upstash_error(error: ApiError) -> Answer:
    """Any error of these paths."""
    body = _JSON.encode(_error_document(error))
    return Answer(_status(error), body.encode() + b"\n", JSON_TYPE, error.headers)
