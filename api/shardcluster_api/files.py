"""Files that the gateway follows as they change: tokens, certificates.

Law: a file that breaks while the gateway runs changes nothing: what it said before counts on, the
log and a gauge say so.  At the start a broken file is refused.  Nothing of a content is logged.
"""

from __future__ import annotations

import logging
import ssl
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Followed", "FollowedError", "HttpsCertificate", "NodeTls"]

_log = logging.getLogger(__name__)


class FollowedError(ValueError):
    """What the files hold can't be used; the message is a part of a sentence."""


class Followed(ABC):
    """Something made from files."""

    def __init__(self, *paths: Path) -> None:
        """Read them; raises FollowedError or OSError."""
        self.paths = paths
        self.version = 1  # another one after each change
        self.broken = ""  # why the files as they are now are not used, or nothing
        self._contents = self._read()
        self.take(self._contents)

    def _read(self) -> list[bytes]:
        return [path.read_bytes() for path in self.paths]

    @abstractmethod
    def take(self, contents: list[bytes]) -> None:
        """Use what the files hold; raises FollowedError or OSError and then changes nothing."""

    def reload(self) -> None:
        """Take in what changed; whole contents are compared, as times say too little.

        Kubernetes changes a mounted Secret by turning a symbolic link, people write in place.
        """
        named = ", ".join(map(str, self.paths))
        try:
            contents = self._read()
            if contents != self._contents:
                self.take(contents)
                self._contents = contents
                self.version += 1
                _log.warning("%s: the new content counts", named)
            self.broken = ""
        except (OSError, FollowedError) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            if why != self.broken:
                _log.error("%s can't be used (%s): what was read before counts on", named, why)
            self.broken = why


class HttpsCertificate(Followed):
    """The certificate and key that the gateway shows to clients; its context stays the same."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Both in PEM, the key without a password."""
        self.context = _context(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["http/1.1"])
        super().__init__(certificate, key)

    def take(self, contents: list[bytes]) -> None:
        """New connections see it."""
        del contents  # OpenSSL reads files only
        _load(_context(ssl.PROTOCOL_TLS_SERVER), *self.paths)  # a trial: half a pair breaks nothing
        _load(self.context, *self.paths)


class NodeTls(Followed):
    """How nodes are spoken to: whose certificates are trusted, and what we show.

    Names are not checked: nodes are known by addresses that come and go.  So the CA has to be one
    that signs for nobody else.
    """

    def __init__(self, authority: Path, certificate: Path | None, key: Path | None) -> None:
        """`authority` in PEM; the others are for nodes that want a certificate of their clients."""
        self.context = _context(ssl.PROTOCOL_TLS_CLIENT)
        pair = (certificate, key) if certificate is not None and key is not None else ()
        super().__init__(authority, *pair)

    def take(self, contents: list[bytes]) -> None:
        """A new context each time, as one forgets no authority."""
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        try:
            context.load_verify_locations(cadata=contents[0].decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            message = "the authority is no certificate in PEM"
            raise FollowedError(message) from error
        if len(self.paths) > 1:
            _load(context, *self.paths[1:])
        self.context = context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        message = "they are not a certificate and its key, in PEM and without a password"
        raise FollowedError(message) from error
