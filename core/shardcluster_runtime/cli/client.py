"""How `shardctl` finds a running store and speaks to it: blocking JSON over HTTP.

`http.client` and no library on top: a command that prints one table should start at once, and
proxy settings of the environment must not get between us and 127.0.0.1.
"""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import click

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CliError", "Client", "Whereabouts", "read_whereabouts", "token"]

TOKEN_VARIABLE = "SHARDCLUSTER_TOKEN"  # noqa: S105 - a variable's name
DEFAULT_URL = "http://127.0.0.1:8080"
WHEREABOUTS_FILE = "controller.json"
ANSWER_TIMEOUT_S = 10.0
LONG_POLL_S = 20.0
ANSWER_BYTES_MAX = 64 << 20

Document = dict[str, Any]


class CliError(click.ClickException):
    """Ends the command with one sentence on standard error and exit code 1."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What `controller.json` in the state folder says of a running controller."""

    control_url: str | None = None
    gateway_url: str | None = None
    process_id: int | None = None
    gateway_process_id: int | None = None


def read_whereabouts(folder: Path) -> Whereabouts:
    """From `controller.json`; empty when there is none or it can't be read."""
    try:
        found = json.loads((folder / WHEREABOUTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Whereabouts()
    if not isinstance(found, dict):
        return Whereabouts()
    return Whereabouts(
        control_url=_text(found.get("control_url")),
        gateway_url=_text(found.get("gateway_url")),
        process_id=_whole_number(found.get("pid")),
        gateway_process_id=_whole_number(found.get("gateway_pid")),
    )


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks to the gateway where it can, to the controller where it must.

    A command given a `--url` uses that gateway alone; without one, `controller.json` tells
    where both are, and a controller that runs without a gateway is asked itself.
    """

    gateway_url: str | None
    control_url: str | None

    @classmethod
    def find(cls, url: str | None, control_url: str | None, folder: Path) -> Client:
        """From the options of a command."""
        here = read_whereabouts(folder)
        if url is not None:
            return cls(url, control_url or (here.control_url if url == here.gateway_url else None))
        control_url = control_url or here.control_url
        return cls(here.gateway_url or (None if control_url else DEFAULT_URL), control_url)

    @property
    def url(self) -> str:
        """The address people know the store by."""
        return self.gateway_url or self.control_url or DEFAULT_URL

    def status(self) -> Document:
        """The state document."""
        if self.gateway_url is None:
            return self._control("GET", "/state")
        return _ask(self.gateway_url, "GET", "/status", token=token())

    def next_status(self, since: int) -> Document | None:
        """The state document once it differs from version `since`.

        None when only a gateway is known, which does not wait: look again in a while.
        """
        if self.control_url is None:
            return None
        query = urlencode({"since": since, "wait_s": LONG_POLL_S})
        return _ask(
            self.control_url, "GET", f"/state?{query}", timeout_s=LONG_POLL_S + ANSWER_TIMEOUT_S
        )

    def add_shard(self) -> Document:
        """One shard more; what will happen."""
        return self._change("/add_node", "/add_shard", {})

    def remove_shard(self, name: str) -> Document:
        """One shard less; what will happen."""
        return self._change("/remove_node", "/remove_shard", {"node": name})

    def rebalance(self) -> Document:
        """Slots to where the ring wants them; what will happen."""
        return self._change("/rebalance", "/rebalance", {})

    def plan(self, document: Document) -> Document:
        """What applying the spec would change."""
        return self._control("POST", "/plan", document)

    def apply(self, document: Document) -> Document:
        """Make the spec the desired one; what will happen."""
        return self._control("PUT", "/spec", document)

    def kill(self, node: str, signal_name: str) -> Document:
        """A signal to a node's process."""
        return self._control("POST", "/kill", {"node": node, "signal": signal_name})

    def _change(self, gateway_path: str, control_path: str, body: Document) -> Document:
        if self.gateway_url is None:
            return self._control("POST", control_path, body)
        return _ask(self.gateway_url, "POST", gateway_path, body, token=token())

    def _control(self, method: str, path: str, body: Document | None = None) -> Document:
        if self.control_url is None:
            message = (
                "No controller is known here: run this in the folder where `shardctl up` was "
                "started, or name it with --folder or --control-url."
            )
            raise CliError(message)
        return _ask(self.control_url, method, path, body)


def token() -> str | None:
    """What the gateway shall know us by; of the environment only, as others see command lines."""
    return os.environ.get(TOKEN_VARIABLE) or None


def _ask(
    url: str,
    method: str,
    path: str,
    body: Document | None = None,
    timeout_s: float = ANSWER_TIMEOUT_S,
    token: str | None = None,
) -> Document:
    """One request; raises CliError with a sentence for everything but a good answer."""
    payload = None if body is None else json.dumps(body)
    headers = {"Accept": "application/json"}
    if payload is not None:
        headers["Content-Type"] = "application/json"
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection, base_path = _connection(url, timeout_s)
    try:
        connection.request(method, base_path + path, payload, headers)
        response = connection.getresponse()
        content = response.read(ANSWER_BYTES_MAX)
    except TimeoutError as error:
        message = f"The ShardCluster at {url} did not answer within {timeout_s:.0f} s."
        raise CliError(message) from error
    except (OSError, http.client.HTTPException) as error:
        message = f"No ShardCluster answers at {url}: start one with `shardctl up`."
        raise CliError(message) from error
    finally:
        connection.close()
    return _read_answer(url, response.status, content)


def _connection(url: str, timeout_s: float) -> tuple[http.client.HTTPConnection, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        message = f"{url!r} is not a URL: {error}."
        raise click.UsageError(message) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"{url!r} is not a URL of the form http://HOST:PORT."
        raise click.UsageError(message)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, port, timeout=timeout_s), parts.path.rstrip("/")


def _read_answer(url: str, status: int, content: bytes) -> Document:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        message = f"What answers at {url} is no ShardCluster (HTTP {status}, not JSON)."
        raise CliError(message)
    if status >= http.client.BAD_REQUEST:
        error = found.get("error")
        reason = error.get("message") if isinstance(error, dict) else found.get("detail")
        raise CliError(str(reason or f"{url} answered with HTTP {status}."))
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole_number(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
