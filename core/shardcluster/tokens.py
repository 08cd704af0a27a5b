"""The file that says which bearer tokens there are and what each may do.

A line is `NAME ROLE sha256:DIGEST`; empty lines and those that begin with `#` don't count.

Law: the file holds digests only, so reading it gives nobody a token, and no message quotes a line
of it, because a line may hold a token that was put there by mistake.  A plain digest is enough for
long random texts (`shardctl token` makes such), which nobody can guess however fast he tries; it
would be too little for passwords that people think up, so short tokens are refused where lines are
made.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

__all__ = [
    "NAME", "ROLES", "TOKEN_CHARS_MAX", "TOKEN_CHARS_MIN", "Token", "TokenBook", "TokensError",
    "token_digest", "token_line",
]  # fmt: skip

ROLES = ("read", "write", "admin")  # each may do what those before it may
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
TOKEN_CHARS_MIN, TOKEN_CHARS_MAX = 20, 512
TOKENS_MAX = 1000
FILE_BYTES_MAX = 256 * 1024

_SCHEME = "sha256:"
_LINE = re.compile(rf"({NAME})\s+(\S+)\s+{_SCHEME}([0-9a-fA-F]{{64}})")
_START_BYTES = 4


class TokensError(ValueError):
    """The file can't be used; the message says which line and why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token as the file has it."""

    name: str  # whose it is, for people
    role: str  # one of ROLES
    digest: bytes


class TokenBook:
    """All tokens of a file."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        """Made by `read`."""
        self.tokens = tokens
        self._by_start: dict[bytes, list[Token]] = {}
        for token in tokens:
            self._by_start.setdefault(token.digest[:_START_BYTES], []).append(token)

    @classmethod
    def read(cls, content: bytes) -> TokenBook:
        """The file's content; raises TokensError."""
        if len(content) > FILE_BYTES_MAX:
            message = f"it is longer than {FILE_BYTES_MAX} bytes"
            raise TokensError(message)
        try:
            lines = content.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            message = "it is not text in UTF-8"
            raise TokensError(message) from error
        found: dict[str, Token] = {}
        digests: set[bytes] = set()
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line.startswith("#"):
                continue
            token = _token_of(line, number)
            if token.name in found:
                message = f"line {number} uses a name of an earlier line"
                raise TokensError(message)
            if token.digest in digests:
                message = f"line {number} has the token of an earlier line"
                raise TokensError(message)
            found[token.name] = token
            digests.add(token.digest)
        if not found:
            message = "it names no token"
            raise TokensError(message)
        if len(found) > TOKENS_MAX:
            message = f"it names more than {TOKENS_MAX} tokens"
            raise TokensError(message)
        return cls(tuple(found.values()))

    def find(self, sent: bytes) -> Token | None:
        """The token that was sent, if it is in the file.

        What the time of this could tell is about a digest that the sender can't steer; the
        digests themselves are compared in constant time.
        """
        digest = hashlib.sha256(sent).digest()
        for token in self._by_start.get(digest[:_START_BYTES], ()):
            if hmac.compare_digest(token.digest, digest):
                return token
        return None


def _token_of(line: str, number: int) -> Token:
    match = _LINE.fullmatch(line)
    if match is None:
        message = (
            f"line {number} is not NAME ROLE {_SCHEME}DIGEST; `shardctl token` makes such lines"
        )
        raise TokensError(message)
    name, role, digest = match.groups()
    if role not in ROLES:
        message = f"line {number} has a role that is none of {', '.join(ROLES)}"
        raise TokensError(message)
    return Token(name, role, bytes.fromhex(digest))


def token_digest(token: str) -> str:
    """As it stands in a line."""
    return _SCHEME + hashlib.sha256(token.encode()).hexdigest()


def token_line(name: str, role: str, token: str) -> str:
    """The line for a token; raises TokensError for a name, role or token that can't be used."""
    if re.fullmatch(NAME, name) is None:
        message = "a name is 1 to 64 letters, digits, '_', '.' and '-', a letter or digit first"
        raise TokensError(message)
    if role not in ROLES:
        message = f"a role is one of {', '.join(ROLES)}"
        raise TokensError(message)
    if not TOKEN_CHARS_MIN <= len(token) <= TOKEN_CHARS_MAX:
        message = f"a token has {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters"
        raise TokensError(message)
    if re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token) is None:
        # What RFC 6750 lets stand in `Authorization: Bearer`; the rest would not arrive whole.
        message = "a token has only letters, digits and . _ ~ + / = -"
        raise TokensError(message)
    return f"{name} {role} {token_digest(token)}"
