"""Which role a request has, by its bearer token.

Law: no token is ever logged or kept in plain form.  What becomes of a file that breaks is said in
files.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from shardcluster.tokens import TokenBook, TokensError
from shardcluster_api.access import Role
from shardcluster_api.files import Followed, FollowedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TOKEN_PARAMETER", "Tokens", "sent_token"]

TOKEN_PARAMETER = "_token"  # noqa: S105 - a parameter's name
_PARAMETER_START = f"{TOKEN_PARAMETER}="
_SCHEME = b"bearer "
_ROLES = {"read": Role.READ, "write": Role.WRITE, "admin": Role.ADMIN}


class Tokens(Followed):
    """The tokens of one file, as they are now."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises FollowedError or OSError."""
        self._book = TokenBook(())
        super().__init__(path)

    def take(self, contents: list[bytes]) -> None:
        """What is not in it any more is no token any more."""
        try:
            self._book = TokenBook.read(contents[0])
        except TokensError as error:
            raise FollowedError(str(error)) from error

    def role_of(self, headers: Mapping[bytes, bytes], query: str) -> Role:
        """What the sender of a request may do."""
        sent = sent_token(headers, query)
        token = self._book.find(sent) if sent else None
        return Role.NONE if token is None else _ROLES[token.role]


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
