"""How the gateway reaches whoever decides about the cluster's shape.

Law: the gateway only passes wishes on and shows what it is told; it decides nothing.  Reads and
writes of keys work on while the control plane is away.
"""

from __future__ import annotations

from typing import Any, Protocol

import aiohttp

from shardcluster_api.errors import ControllerRefused, ControllerUnavailable
from shardcluster_api.limits import CONTROL_TIMEOUT_S

__all__ = ["ControlPlane", "HttpControlPlane", "NoControlPlane"]

STATE_TIMEOUT_S = 1.5  # beyond the wait that was asked for
CONNECT_TIMEOUT_S = 1.0

Document = dict[str, Any]


class ControlPlane(Protocol):
    """What the gateway asks of it; all raise ControllerUnavailable or ControllerRefused."""

    async def state(self, since: int | None = None, wait_s: float = 0.0) -> Document:
        """The state document; with `since` once its version is another, or after `wait_s`."""
        ...

    async def add_shard(self) -> Document:
        """One shard more; what will happen."""
        ...

    async def remove_shard(self, node: str) -> Document:
        """Drain and remove a shard, named by itself or by one of its nodes; what will happen."""
        ...

    async def rebalance(self) -> Document:
        """Move slots to where the ring wants them; what will happen."""
        ...

    async def preview(self, document: Document) -> Document:
        """The plan that a spec would lead to; changes nothing."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class NoControlPlane:
    """For a gateway that was given nodes (seeds) and no controller."""

    async def state(self, since: int | None = None, wait_s: float = 0.0) -> Document:
        """Raises ControllerUnavailable, as everything here."""
        del since, wait_s
        raise _none()

    async def add_shard(self) -> Document:
        """Raises ControllerUnavailable."""
        raise _none()

    async def remove_shard(self, node: str) -> Document:
        """Raises ControllerUnavailable."""
        del node
        raise _none()

    async def rebalance(self) -> Document:
        """Raises ControllerUnavailable."""
        raise _none()

    async def preview(self, document: Document) -> Document:
        """Raises ControllerUnavailable."""
        del document
        raise _none()

    async def close(self) -> None:
        """Nothing to do."""


def _none() -> ControllerUnavailable:
    return ControllerUnavailable("This gateway was started without a controller.")


class HttpControlPlane:
    """The controller's HTTP API."""

    def __init__(self, url: str) -> None:
        """`url` is the API's root."""
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def state(self, since: int | None = None, wait_s: float = 0.0) -> Document:
        """GET /state."""
        query = {} if since is None else {"since": str(since), "wait_s": str(wait_s)}
        return await self._ask("GET", "/state", wait_s + STATE_TIMEOUT_S, params=query)

    async def add_shard(self) -> Document:
        """POST /add_shard."""
        return await self._ask("POST", "/add_shard", CONTROL_TIMEOUT_S, json={})

    async def remove_shard(self, node: str) -> Document:
        """POST /remove_shard."""
        return await self._ask("POST", "/remove_shard", CONTROL_TIMEOUT_S, json={"node": node})

    async def rebalance(self) -> Document:
        """POST /rebalance."""
        return await self._ask("POST", "/rebalance", CONTROL_TIMEOUT_S, json={})

    async def preview(self, document: Document) -> Document:
        """POST /plan."""
        answer = await self._ask("POST", "/plan", CONTROL_TIMEOUT_S, json=document)
        plan: Document = answer["plan"]
        return plan

    async def close(self) -> None:
        """Close the client session."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, timeout_s: float, **options: Any) -> Document:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.request(
                method, f"{self.url}{path}", timeout=timeout, **options
            ) as response:
                document = await response.json(content_type=None)
                status = response.status
        except aiohttp.ClientConnectorError as error:
            message = f"The controller does not answer at {self.url}."
            raise ControllerUnavailable(message) from error
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            message = f"The controller at {self.url} gave no usable answer in time."
            raise ControllerUnavailable(message, _outcome(method)) from error
        if not isinstance(document, dict):
            message = f"{self.url} does not answer like a controller."
            raise ControllerUnavailable(message, _outcome(method))
        if status >= 400:
            said = document.get("error")
            known = said if isinstance(said, dict) else {}
            code, words = known.get("code", "ControllerError"), known.get("message", "It failed.")
            raise ControllerRefused(status, str(code), str(words))
        return document


def _outcome(method: str) -> str:
    """What a lost answer says about the wish."""
    return "not_applied" if method == "GET" else "unknown"
