"""Webdis's protocol under `/webdis/`: `/webdis/COMMAND/arg/….ext`.

The extension of the last argument says how the answer is written: `.json` (as without one),
`.raw`, `.msg`, or the bytes themselves under a type (`.txt`, `.html`, `.png` … or `?type=`), where
nothing is a 404.  A PUT's body is the last argument, a POST's body is a whole command.

Law: what is stored is shown in a sandbox.  Webdis gives any content any type; here a page or a
script that somebody stored under a key must not act as one of this gateway's.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import hiredis
import msgpack

from shardcluster_api.answers import JSON_TYPE, Answer
from shardcluster_api.commands.asking import OTHER_SITES, how_of, query_pairs, role_here
from shardcluster_api.commands.resp import is_status, resp2, resp2_error
from shardcluster_api.commands.run import run
from shardcluster_api.commands.table import CommandRefused, find
from shardcluster_api.errors import ApiError, BadRequest, EngineRefused
from shardcluster_api.upstash import error_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster_api.answers import Headers, Request
    from shardcluster_api.gateway import Gateway

__all__ = ["WEBDIS_PREFIX", "webdis"]

WEBDIS_PREFIX = "/webdis/"
_TYPES = {
    b"bin": "binary/octet-stream",
    b"css": "text/css",
    b"html": "text/html",
    b"jpeg": "image/jpeg",
    b"jpg": "image/jpeg",
    b"png": "image/png",
    b"txt": "text/plain",
    b"xhtml": "application/xhtml+xml",
    b"xml": "text/xml",
}
_FORMATS = {
    b"js": "application/javascript",
    b"json": JSON_TYPE,
    b"msg": "application/x-msgpack",
    b"raw": "binary/octet-stream",
}
_CALLBACK = re.compile(r"[A-Za-z_$][\w$.]{0,127}", re.ASCII)
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?charset=[\w-]+)?", re.ASCII)
_SANDBOX = (("Content-Security-Policy", "sandbox"),)
_OUTCOME = "X-ShardCluster-Outcome"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command and how its answer is to be written."""

    arguments: list[bytes]
    extension: bytes
    content_type: str | None  # the bytes themselves
    callback: str
    separator: bytes


async def webdis(gateway: Gateway, request: Request) -> Answer:
    """One command; the path, or a POST's body, tells it."""
    asked = _asked(request)
    how = how_of(gateway, request)
    done = await run(gateway, [asked.arguments], role_here(gateway, request), how)
    answer = _written(asked, done.values[0])
    if answer.status != 200:
        return answer
    etag = f'"{hashlib.md5(answer.body, usedforsecurity=False).hexdigest()}"'
    headers: Headers = (*answer.headers, ("ETag", etag))
    if request.headers.get(b"if-none-match", b"").decode("latin-1") == etag:
        return Answer(304, b"", answer.content_type, headers)
    return Answer(200, answer.body, answer.content_type, headers)


# -- the question ----------------------------------------------------------------------------


def _asked(request: Request) -> _Asked:
    by_body = request.method == "POST" and bool(request.body)
    uri = request.body if by_body else request.path[len(WEBDIS_PREFIX) :]
    rest, dot, extension = uri.rpartition(b".")
    if not dot or b"/" in extension or extension not in _TYPES.keys() | _FORMATS.keys():
        rest, extension = uri, b""
    parts = [unquote_to_bytes(part.replace(b"+", b" ")) for part in rest.split(b"/")]
    if len(parts) > 1 and parts[0].isdigit():  # Webdis lets the number of a database stand first
        if int(parts[0]):
            message = "A cluster has one database, and its number is 0."
            raise BadRequest(message)
        del parts[0]
    if not parts[0]:
        message = "The path must name a command: /webdis/COMMAND/argument/…"
        raise BadRequest(message)
    if request.method == "PUT" and request.body:
        parts.append(request.body)
    options = {name: value or b"" for name, value in query_pairs(request.query)}
    callback = (options.get(b"jsonp") or options.get(b"callback") or b"").decode("latin-1")
    if callback and not _CALLBACK.fullmatch(callback):
        message = "The JSONP callback must be the name of a function."
        raise BadRequest(message)
    if callback and request.headers.get(b"sec-fetch-site") in OTHER_SITES:
        message = "Pages of other sites may not read by JSONP."
        raise ApiError(403, "CrossOrigin", message)
    content_type = _TYPES.get(extension)
    if b"type" in options:
        content_type = options[b"type"].decode("latin-1")
        if not _TYPE.fullmatch(content_type):
            message = "The type must be a content type, such as image/gif."
            raise BadRequest(message)
    return _Asked(parts, extension, content_type, callback, options.get(b"sep", b""))


# -- the answer ------------------------------------------------------------------------------


def _written(asked: _Asked, value: Any) -> Answer:
    status, headers = _status(value)
    if asked.content_type is not None:
        if value is None:
            return Answer(404, b"", asked.content_type, headers)
        body = _as_bytes(asked, value)
        return Answer(status, body, asked.content_type, (*headers, *_SANDBOX))
    content_type = _FORMATS[asked.extension or b"json"]
    if asked.extension == b"raw":
        return Answer(status, _as_raw(asked, value), content_type, headers)
    if asked.extension == b"msg":
        packed: bytes = msgpack.packb(
            _document(asked, value, lambda found: found), use_bin_type=False
        )
        return Answer(status, packed, content_type, headers)
    document = _document(asked, value, lambda found: found.decode("utf-8", "replace"))
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if asked.callback:
        text, content_type = f"{asked.callback}({text});\n", "application/javascript"
    return Answer(status, text.encode(), content_type, headers)


def _status(value: Any) -> tuple[int, Headers]:
    """What the engine says, errors too, is a success to Webdis; what is refused here is not."""
    if not isinstance(value, ApiError) or isinstance(value, EngineRefused):
        return 200, ()
    if isinstance(value, CommandRefused):
        return (403 if value.forbidden else 200), ()
    outcome = value.fields.get("outcome")
    headers = value.headers if outcome is None else (*value.headers, (_OUTCOME, str(outcome)))
    return value.status, headers


def _is_status(asked: _Asked, value: Any) -> bool:
    return isinstance(value, bytes) and is_status(find(asked.arguments).name, asked.arguments)


def _as_raw(asked: _Asked, value: Any) -> bytes:
    if isinstance(value, ApiError):
        return resp2_error(error_words(value))
    return resp2(value, status=_is_status(asked, value))


def _as_bytes(asked: _Asked, value: Any) -> bytes:
    if isinstance(value, ApiError):
        return b"-" + error_words(value).encode()
    if isinstance(value, bytes):
        return b"+" + value if _is_status(asked, value) else value
    if isinstance(value, int):
        return b"%d" % value
    return asked.separator.join(one for one in value if isinstance(one, bytes))


def _document(asked: _Asked, value: Any, text: Callable[[bytes], Any]) -> dict[Any, Any]:
    verb = text(asked.arguments[0])
    if isinstance(value, ApiError):
        return {verb: [False, error_words(value)]}
    if _is_status(asked, value):
        return {verb: [True, text(value)]}
    name = asked.arguments[0].lower()
    if name == b"info" and isinstance(value, bytes):
        lines = (line.partition(b":") for line in value.splitlines() if b":" in line)
        return {verb: {text(field): text(said) for field, _, said in lines}}
    if name == b"hgetall" and isinstance(value, list):
        pairs = zip(value[::2], value[1::2], strict=True)
        return {verb: {text(field): text(said) for field, said in pairs}}
    return {verb: _plain(value, text)}


def _plain(value: Any, text: Callable[[bytes], Any]) -> Any:
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, list):
        return [_plain(one, text) for one in value]
    return str(value) if isinstance(value, hiredis.ReplyError) else value
