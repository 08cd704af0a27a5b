"""What can go wrong with a request, and whose fault it is.

Law: a 4xx means that the caller can mend it and nothing was changed; a 5xx is the store's or the
gateway's.  A failed write always says what became of it in `outcome`: `not_applied`, `applied`
(but not as durable as asked) or `unknown`; an unknown write is never sent a second time by us.
"""

from __future__ import annotations

from typing import Any

from shardcluster_api.limits import RETRY_AFTER_S

__all__ = [
    "ApiError", "BadRequest", "ControllerRefused", "ControllerUnavailable", "DurabilityNotReached",
    "EngineRefused", "KeyNotFound", "NotServed", "OutcomeUnknown", "TooBusy", "TooLarge",
]  # fmt: skip

UNAVAILABLE = 503

# The engine's first word -> (HTTP status, our code); anything else is a 502 EngineError.
_ENGINE_ERRORS = {
    "OOM": (507, "OutOfMemory"),
    "MISCONF": (507, "CannotPersist"),
    "NOREPLICAS": (503, "NotEnoughReplicas"),
    "WRONGTYPE": (409, "WrongType"),
    "NOAUTH": (503, "LoginRefused"),
    "NOPERM": (503, "LoginRefused"),
    "WRONGPASS": (503, "LoginRefused"),
}

_NOT_APPLIED = {"outcome": "not_applied"}


class ApiError(Exception):
    """An answer that is an error: status, code, sentence, and fields that stand beside them."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """`fields` go into the JSON document beside `error`."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = dict(fields or {})
        self.headers = headers

    def document(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"code": self.code, "message": str(self)}, **self.fields}


class BadRequest(ApiError):
    """The request itself is wrong."""

    def __init__(self, message: str) -> None:
        """`message` names the field and says what it must be."""
        super().__init__(400, "BadRequest", message)


class TooLarge(ApiError):
    """Body, key or value is over its limit."""

    def __init__(self, message: str) -> None:
        """`message` names the limit."""
        super().__init__(413, "TooLarge", message)


class KeyNotFound(ApiError):
    """The store does not hold the key."""

    def __init__(self, fields: dict[str, Any], headers: tuple[tuple[str, str], ...]) -> None:
        """`fields` and `headers` say where it was looked for."""
        super().__init__(
            404, "KeyNotFound", "The store does not hold this key.", fields=fields, headers=headers
        )


class TooBusy(ApiError):
    """A limit of ours is reached; nothing was sent to any node."""

    def __init__(self, message: str) -> None:
        """`message` says which limit."""
        super().__init__(
            503,
            "TooBusy",
            message,
            fields=_NOT_APPLIED,
            headers=(("Retry-After", str(RETRY_AFTER_S)),),
        )


class NotServed(ApiError):
    """No node could take the request within its deadline; a write surely was not applied."""

    def __init__(self, message: str, *, writing: bool) -> None:
        """`message` says what stood in the way last."""
        super().__init__(
            503,
            "NotServed",
            message,
            fields=_NOT_APPLIED if writing else None,
            headers=(("Retry-After", str(RETRY_AFTER_S)),),
        )


class OutcomeUnknown(ApiError):
    """A write left for the node and no answer came back."""

    def __init__(self, node: str, why: str) -> None:
        """`node` got the write; `why` is what happened then."""
        super().__init__(
            503,
            "OutcomeUnknown",
            f"The write was sent to {node}, but no answer came ({why}). It may have been applied "
            "or not. It was not sent again; read the key to find out.",
            fields={"outcome": "unknown"},
        )


class DurabilityNotReached(ApiError):
    """The master applied the write, but it is not as safe as asked."""

    def __init__(self, message: str, fields: dict[str, Any]) -> None:
        """`fields` say what was reached."""
        super().__init__(
            503, "DurabilityNotReached", message, fields={"outcome": "applied", **fields}
        )


class EngineRefused(ApiError):
    """The node answered with an error that trying again does not mend; its words are passed on."""

    def __init__(self, node: str, message: str, *, writing: bool) -> None:
        """`message` is the engine's own."""
        self.engine_message = message
        word = message.split(" ", 1)[0]
        status, code = _ENGINE_ERRORS.get(word, (502, "EngineError"))
        super().__init__(
            status,
            code,
            f"{node} answered: {message}",
            fields=_NOT_APPLIED if writing else None,
            headers=(("Retry-After", str(RETRY_AFTER_S)),) if status == UNAVAILABLE else (),
        )


class ControllerUnavailable(ApiError):
    """The controller did not answer."""

    def __init__(self, message: str, outcome: str = "not_applied") -> None:
        """`outcome` is `unknown` when the request may have reached it."""
        super().__init__(
            503,
            "ControllerUnavailable",
            message,
            fields={"outcome": outcome},
            headers=(("Retry-After", str(RETRY_AFTER_S)),),
        )


class ControllerRefused(ApiError):
    """The controller answered with an error; status, code and sentence are its own."""
