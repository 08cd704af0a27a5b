"""What a gateway is told at its start: where the controller and the nodes are, and the login.

Law: the command line wins over the environment; secrets come from the environment or a file only,
because a command line is visible to every user of the machine.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from shardcluster.observed import Address
from shardcluster_api.access import Role
from shardcluster_api.files import FollowedError, HttpsCertificate, NodeTls
from shardcluster_api.guards import NO_CORS, Cors, parse_origins
from shardcluster_api.limits import Limits
from shardcluster_api.tokens import Tokens
from shardcluster_runtime.wire import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Settings", "SettingsError", "parse_seeds"]

PORT_MAX = 65_535


class SettingsError(ValueError):
    """A setting can't be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The gateway's own settings."""

    controller_url: str | None = None
    seeds: tuple[Address, ...] = ()
    credentials: Credentials = field(default_factory=Credentials)
    resource: tuple[str, str] | None = None  # namespace and name of a ShardCluster on Kubernetes
    limits: Limits = field(default_factory=Limits)
    tokens: Tokens | None = None  # without them everybody is an admin
    metrics_role: Role = Role.NONE
    cors: Cors = NO_CORS
    https: HttpsCertificate | None = None
    node_tls: NodeTls | None = None

    @classmethod
    def read(
        cls,
        controller_url: str | None = None,
        seeds: str | None = None,
        environment: Mapping[str, str] = os.environ,
        resource: str | None = None,
    ) -> Settings:
        """The arguments, else SHARDCLUSTER_CONTROLLER, _SEEDS, _KUBERNETES; _USERNAME, _PASSWORD.

        SHARDCLUSTER_PASSWORD_FILE instead of the last names a file.  SHARDCLUSTER_TOKENS_FILE,
        _METRICS_ROLE, _CORS_ORIGINS, _HTTPS_CERT, _HTTPS_KEY, _TLS_CA, _TLS_CERT, _TLS_KEY: see
        docs/access.md.  `Limits` are read likewise, in-flight ones from SHARDCLUSTER_IN_FLIGHT_MAX
        and so on.  Raises SettingsError, also when there is none of the first three.
        """
        resource = resource or environment.get("SHARDCLUSTER_KUBERNETES") or ""
        controller_url = controller_url or environment.get("SHARDCLUSTER_CONTROLLER") or None
        seeds = seeds or environment.get("SHARDCLUSTER_SEEDS") or ""
        if controller_url is not None and not controller_url.startswith(("http://", "https://")):
            message = f"{controller_url!r} is not the URL of a controller."
            raise SettingsError(message)
        if controller_url is None and not seeds and not resource:
            message = (
                "Say where the store is: --controller URL, --seeds HOST:PORT,… or "
                "--kubernetes NAMESPACE/NAME (or SHARDCLUSTER_CONTROLLER, _SEEDS, _KUBERNETES in "
                "the environment)."
            )
            raise SettingsError(message)
        node_tls = _node_tls(environment)
        credentials = Credentials(
            _password(environment),
            environment.get("SHARDCLUSTER_USERNAME") or None,
            None if node_tls is None else lambda: node_tls.context,
        )
        named = _namespace_and_name(resource) if resource else None
        return cls(
            controller_url,
            parse_seeds(seeds),
            credentials,
            named,
            _limits(environment),
            tokens=_tokens(environment),
            metrics_role=_metrics_role(environment),
            cors=_cors(environment),
            https=_https(environment),
            node_tls=node_tls,
        )


def _namespace_and_name(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        message = f"{text!r} is not NAMESPACE/NAME of a ShardCluster."
        raise SettingsError(message)
    return namespace, name


def _tokens(environment: Mapping[str, str]) -> Tokens | None:
    path = environment.get("SHARDCLUSTER_TOKENS_FILE")
    if not path:
        return None
    with _refusing("SHARDCLUSTER_TOKENS_FILE"):
        return Tokens(Path(path))


def _https(environment: Mapping[str, str]) -> HttpsCertificate | None:
    certificate, key = _pair(environment, "SHARDCLUSTER_HTTPS_CERT", "SHARDCLUSTER_HTTPS_KEY")
    if certificate is None or key is None:
        return None
    with _refusing("SHARDCLUSTER_HTTPS_CERT and SHARDCLUSTER_HTTPS_KEY"):
        return HttpsCertificate(certificate, key)


def _node_tls(environment: Mapping[str, str]) -> NodeTls | None:
    certificate, key = _pair(environment, "SHARDCLUSTER_TLS_CERT", "SHARDCLUSTER_TLS_KEY")
    authority = environment.get("SHARDCLUSTER_TLS_CA")
    if not authority:
        if certificate is None:
            return None
        message = "SHARDCLUSTER_TLS_CERT needs SHARDCLUSTER_TLS_CA, to know the nodes by."
        raise SettingsError(message)
    with _refusing("SHARDCLUSTER_TLS_CA, SHARDCLUSTER_TLS_CERT, SHARDCLUSTER_TLS_KEY"):
        return NodeTls(Path(authority), certificate, key)


def _pair(environment: Mapping[str, str], *names: str) -> tuple[Path | None, Path | None]:
    """The files of a certificate and its key: both are named or none."""
    first, second = (environment.get(name) or None for name in names)
    if (first is None) != (second is None):
        message = f"{names[0]} and {names[1]} are given both or not at all."
        raise SettingsError(message)
    return first and Path(first), second and Path(second)


@contextlib.contextmanager
def _refusing(names: str) -> Iterator[None]:
    try:
        yield
    except (OSError, FollowedError) as error:
        message = f"{names} can't be used: {error}."
        raise SettingsError(message) from error


def _cors(environment: Mapping[str, str]) -> Cors:
    try:
        return parse_origins(environment.get("SHARDCLUSTER_CORS_ORIGINS") or "")
    except ValueError as error:
        message = f"SHARDCLUSTER_CORS_ORIGINS: {error}."
        raise SettingsError(message) from error


def _metrics_role(environment: Mapping[str, str]) -> Role:
    named = environment.get("SHARDCLUSTER_METRICS_ROLE") or "none"
    roles = {role.name.lower(): role for role in Role}
    if named not in roles:
        message = f"SHARDCLUSTER_METRICS_ROLE is one of {', '.join(roles)}, not {named!r}."
        raise SettingsError(message)
    return roles[named]


def _password(environment: Mapping[str, str]) -> str | Callable[[], str] | None:
    path = environment.get("SHARDCLUSTER_PASSWORD_FILE")
    if not path:
        return environment.get("SHARDCLUSTER_PASSWORD") or None
    source = _PasswordFile(Path(path))
    try:
        source.read()
    except OSError as error:
        message = f"SHARDCLUSTER_PASSWORD_FILE can't be read: {error}"
        raise SettingsError(message) from error
    return source


class _PasswordFile:
    """Read at every login: Kubernetes changes the file when its Secret changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = ""

    def __call__(self) -> str:
        with contextlib.suppress(OSError):  # then the last one is the best guess
            self.read()
        return self._last

    def read(self) -> None:
        self._last = self._path.read_text(encoding="utf-8").strip()


def parse_seeds(text: str) -> tuple[Address, ...]:
    """`host:port,host:port`; raises SettingsError."""
    found: list[Address] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, colon, port = part.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
            message = f"{part!r} is not HOST:PORT."
            raise SettingsError(message)
        found.append(Address(host.strip("[]"), int(port)))
    return tuple(found)


def _limits(environment: Mapping[str, str]) -> Limits:
    given: dict[str, int] = {}
    for limit in fields(Limits):
        name = f"SHARDCLUSTER_{limit.name.upper()}"
        text = environment.get(name)
        if text is None or not text:
            continue
        if not (text.isascii() and text.isdigit() and int(text)):
            message = f"{name} must be a whole number over 0, not {text!r}."
            raise SettingsError(message)
        given[limit.name] = int(text)
    return Limits(**given)
