"""Which role a request has, by its bearer token, and files that are followed as they change.

Law: a file that breaks while the gateway runs changes nothing: the last good content counts on,
the log and a gauge say so.  At the start a broken file is refused, because a gateway that lets
nobody in, or everybody, is never what was meant.  No token is ever logged or kept in plain form.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from shardcluster.tokens import TokenBook, TokensError
from shardcluster_api.access import Role

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TOKEN_PARAMETER", "Reloaded", "Tokens", "sent_token"]

TOKEN_PARAMETER = "_token"  # noqa: S105 - a parameter's name
_PARAMETER_START = f"{TOKEN_PARAMETER}="
_SCHEME = b"bearer "
_ROLES = {"read": Role.READ, "write": Role.WRITE, "admin": Role.ADMIN}

_log = logging.getLogger(__name__)


class Reloaded(Protocol):
    """Something from a file that may change."""

    broken: str  # why the file as it is now is not used, or nothing

    def reload(self) -> None:
        """Take in what changed; never raises for what the file holds."""
        ...


class Tokens:
    """The tokens of one file, as they are now."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises TokensError or OSError."""
        self._path = path
        self._content = path.read_bytes()
        self._book = TokenBook.read(self._content)
        self.version = 1  # another one when a token's role may be another
        self.broken = ""  # why the file as it is now is not used

    def role_of(self, headers: Mapping[bytes, bytes], query: str) -> Role:
        """What the sender of a request may do."""
        sent = sent_token(headers, query)
        token = self._book.find(sent) if sent else None
        return Role.NONE if token is None else _ROLES[token.role]

    def reload(self) -> None:
        """Take in what changed; the whole file is compared, as its times say too little.

        Kubernetes changes a mounted Secret by turning a symbolic link, editors write in place.
        """
        try:
            content = self._path.read_bytes()
            if content != self._content:
                self._book = TokenBook.read(content)
                self._content = content
                self.version += 1
                _log.warning("%s was read anew: %d tokens", self._path, len(self._book.tokens))
            self.broken = ""
        except (OSError, TokensError) as error:
            why = str(error.strerror or error) if isinstance(error, OSError) else str(error)
            if why != self.broken:
                _log.error("%s can't be used (%s): the tokens before count on", self._path, why)
            self.broken = why


def sent_token(headers: Mapping[bytes, bytes], query: str) -> bytes:
    """The token of `Authorization: Bearer`, else of the query's `_token`; empty without one."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[: len(_SCHEME)].lower() == _SCHEME:
        return authorization[len(_SCHEME) :].strip()
    if _PARAMETER_START in query:
        for part in query.split("&"):
            if part.startswith(_PARAMETER_START):
                return unquote_to_bytes(part[len(_PARAMETER_START) :])
    return b""
