"""The OpenAPI 3.1 document, generated from the list of operations.

Law: paths, methods, query parameters and statuses come from `Operation`; only the shapes of bodies
are written down here.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shardcluster.spec_model import Durability
from shardcluster_api.dashboard.hot import METRICS
from shardcluster_api.limits import BATCH_OPERATIONS_MAX, TTL_SECONDS_MAX
from shardcluster_api.tokens import TOKEN_PARAMETER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster_api.operations import Operation

__all__ = ["openapi_document"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_DURABILITY: Schema = {"type": "string", "enum": [d.value for d in Durability]}
_CONSISTENCY: Schema = {"type": "string", "enum": ["eventual", "strong"], "default": "eventual"}
_TTL: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": TTL_SECONDS_MAX}
_KEY: Schema = {"key": _TEXT, "key_base64": _BASE64}
_VALUE: Schema = {"value": _TEXT, "value_base64": _BASE64}
_REPLY: Schema = {"type": ["string", "integer", "null", "array"]}
_PLACE: Schema = {
    "slot": {"type": "integer", "minimum": 0, "maximum": 16383},
    "shard": _TEXT,
    "node": _TEXT,
    "role": {"type": "string", "enum": ["master", "replica"]},
}
_PARAMETERS: dict[str, Schema] = {
    "key": {"schema": _TEXT, "required": True, "description": "The key; any bytes, %-encoded."},
    "by": {
        "schema": {"type": "string", "enum": list(METRICS), "default": METRICS[0]},
        "description": "What makes a slot hot.",
    },
    "consistency": {
        "schema": _CONSISTENCY,
        "description": "`eventual` may read a replica; `strong` reads the master.",
    },
    "ttl_seconds": {"schema": _TTL, "description": "The key expires after so long."},
    "durability": {
        "schema": _DURABILITY,
        "description": "Answer when the master has it (`async`), a replica too (`replica`), "
        "or the master's disk (`disk`). Without it: as the store's spec says.",
    },
}


def _one_of(*names: str) -> Schema:
    return {"oneOf": [{"required": [name]} for name in names]}


def _object(properties: Schema, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, **more}


_WRITE_PROPERTIES = {**_KEY, **_VALUE, "ttl_seconds": _TTL, "durability": _DURABILITY}
_CLOSED = {"additionalProperties": False}
_SCHEMAS: dict[str, Schema] = {
    "Any": _object({}),
    "Empty": _object({}, **_CLOSED),
    "Error": _object(
        {
            "error": _object({"code": _TEXT, "message": _TEXT}, required=["code", "message"]),
            "outcome": {
                "type": "string",
                "enum": ["not_applied", "applied", "unknown"],
                "description": "What became of a write that failed.",
            },
        },
        required=["error"],
    ),
    "Write": _object(
        _WRITE_PROPERTIES,
        allOf=[_one_of("key", "key_base64"), _one_of("value", "value_base64")],
        **_CLOSED,
    ),
    "Written": _object(
        {
            **_KEY,
            "written": {"const": True},
            "ttl_seconds": _TTL,
            "durability": _DURABILITY,
            "replicas_acked": _COUNT,
            "disks_acked": _COUNT,
            **_PLACE,
        }
    ),
    "ReadRequest": _object(
        {**_KEY, "consistency": _CONSISTENCY}, **_one_of("key", "key_base64"), **_CLOSED
    ),
    "Read": _object({**_KEY, **_VALUE, "found": {"type": "boolean"}, **_PLACE}),
    "Batch": _object(
        {
            "operations": {
                "type": "array",
                "maxItems": BATCH_OPERATIONS_MAX,
                "items": _object(
                    {
                        "op": {"type": "string", "enum": ["get", "put", "delete"]},
                        "consistency": _CONSISTENCY,
                        **_WRITE_PROPERTIES,
                    },
                    required=["op"],
                ),
            }
        },
        required=["operations"],
        **_CLOSED,
    ),
    "BatchResults": _object(
        {
            "failed": {**_COUNT, "description": "Items with an error other than 404."},
            "results": {
                "type": "array",
                "items": _object(
                    {"op": _TEXT, "status": {"type": "integer"}, **_KEY, **_VALUE, **_PLACE}
                ),
            },
        }
    ),
    "RemoveNode": _object(
        {"node": {**_TEXT, "description": "A shard's name, or a node's, whose shard is meant."}},
        required=["node"],
        **_CLOSED,
    ),
    "Change": _object(
        {
            "change": {"type": "string", "enum": ["add", "remove", "rebalance"]},
            "node": {**_TEXT, "description": "Which shard to remove: its name, or a node's."},
        },
        required=["change"],
        **_CLOSED,
    ),
    "Preview": _object(
        {
            "change": _TEXT,
            "message": _TEXT,
            "shard": {"type": ["string", "null"]},
            "plan": _object({}),
        }
    ),
    "Command": {
        "type": "array",
        "minItems": 1,
        "items": {"type": ["string", "number", "boolean"]},
        "examples": [["SET", "key", "value", "EX", 100]],
    },
    "Commands": {
        "type": "array",
        "maxItems": BATCH_OPERATIONS_MAX,
        "items": {"$ref": "#/components/schemas/Command"},
    },
    "CommandResult": _object({"result": _REPLY}, required=["result"]),
    "CommandResults": {
        "type": "array",
        "items": _object({"result": _REPLY, "error": _TEXT, "outcome": _TEXT}),
    },
    "CommandError": _object(
        {
            "error": {
                "type": ["string", "object"],
                "description": "The engine's words, or ours; an object where no command was found.",
            },
            "outcome": _TEXT,
        },
        required=["error"],
    ),
    "Accepted": _object(
        {
            "accepted": {"const": True},
            "message": _TEXT,
            "shard": {"type": ["string", "null"]},
            "plan": _object({}),
        }
    ),
}
_OTHER_CONTENT: dict[str, Schema] = {
    "Bytes": {"application/octet-stream": {}},
    "Text": {"text/plain": {"schema": _TEXT}},
    "Asset": {"text/css": {}, "text/javascript": {}, "image/svg+xml": {}},
    "Html": {"text/html": {"schema": _TEXT}},
    "Anything": {"*/*": {}},
    "EventStream": {"text/event-stream": {"schema": _TEXT}},
}


_TOKENS: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "query": {"type": "apiKey", "in": "query", "name": TOKEN_PARAMETER},
}
# `{}` is for a gateway without tokens.
_WITH_TOKEN: list[Schema] = [{}, *({name: []} for name in _TOKENS)]
_WITHOUT_ROLE = (401, 403)


def openapi_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ShardCluster gateway",
            "version": "1",
            "description": "Reads and writes of a sharded key-value store, and its shape.",
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "securitySchemes": _TOKENS},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters = [{"name": name, "in": "query", **_PARAMETERS[name]} for name in operation.query]
    if "{channel}" in operation.path:
        described = "A channel or pattern, %-encoded; several stand between slashes."
        channel = {"name": "channel", "in": "path", "required": True, "schema": _TEXT}
        parameters.insert(0, {**channel, "description": described})
    if "{command}" in operation.path:
        described = "A command and its arguments, each part %-encoded, as in `/SET/key/value`."
        command = {"name": "command", "in": "path", "required": True, "schema": _TEXT}
        parameters.insert(0, {**command, "description": described})
    if "{key}" in operation.path:
        described = "The key; any bytes, %-encoded; `/` and `%2F` mean the same."
        key = {"name": "key", "in": "path", "required": True, "schema": _TEXT}
        parameters.insert(0, {**key, "description": described})
    described_operation: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            str(status): _response(operation, status)
            for status in sorted({*operation.statuses, *(_WITHOUT_ROLE if operation.role else ())})
        },
    }
    if operation.role:
        described_operation["security"] = _WITH_TOKEN
    if operation.takes is not None:
        content = _content(operation.takes)
        required = operation.takes != "Empty"
        described_operation["requestBody"] = {"required": required, "content": content}
    return described_operation


def _response(operation: Operation, status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status >= HTTPStatus.BAD_REQUEST:
        if operation.method != "HEAD":
            described["content"] = _content(operation.fails)
    elif operation.gives != "Nothing" and status != HTTPStatus.NOT_MODIFIED:
        described["content"] = _content(operation.gives)
    return described


def _content(schema: str) -> dict[str, Any]:
    other = _OTHER_CONTENT.get(schema)
    if other is not None:
        return other
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
