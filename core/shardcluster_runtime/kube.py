"""The Kubernetes API, as far as the operator and the gateway use it: plain dicts over HTTP.

Law: every call has its own time limit, an answer that is no success is an ApiError with the API
server's own sentence, and what is written is a server-side apply or a patch of named fields, never
a whole object that was read before.  Typed models are not used: they drop fields they do not know
and take twenty times as long to read.

`kubernetes.aio` does what is hard to get right: kubeconfig files, service account tokens that
change, certificates.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from prometheus_client import Counter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

__all__ = ["ApiError", "Kind", "Kube", "Manifest", "kind_of"]

FIELD_MANAGER = "shardcluster"
HANDSHAKES_END_S = 0.25  # aiohttp does not wait for them (its issue 1925)
CALL_TIMEOUT_S = 10.0
WATCH_S = 240  # how long the server holds a watch open
WATCH_SILENT_S = 300.0  # a watch that said nothing for so long is dead
LINE_BYTES_MAX = 8 << 20
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Manifest = dict[str, Any]

_REQUESTS = Counter(
    "shardcluster_kube_requests",
    "Requests to the Kubernetes API, by verb (`apply` may create) and resource.",
    ["verb", "resource"],
)


class ApiError(Exception):
    """The API server refused or could not be asked; `status` is 0 when it did not answer."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        """`reason` is the API's own word, like NotFound."""
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object and where the API has it."""

    group_version: str  # "v1", "apps/v1"
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of one object, or of the list."""
        root = "api" if "/" not in self.group_version else "apis"
        parts = [root, self.group_version]
        if namespace:
            parts += ["namespaces", namespace]
        return "/" + "/".join([*parts, self.plural, *filter(None, (name, subresource))])


def kind_of(manifest: Manifest) -> Kind:
    """The kind of an object that says it itself."""
    word = manifest["kind"].lower()
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return Kind(manifest["apiVersion"], plural)


class Kube:
    """One API server; `open` first, `close` last."""

    def __init__(self, api: client.ApiClient) -> None:
        """A client that is logged in."""
        self._api = api

    @classmethod
    async def open(cls) -> Kube:
        """As a pod by its service account, else as the kubeconfig file says.

        Raises ApiError when there is neither.
        """
        try:
            try:
                config.load_incluster_config()  # type: ignore[no-untyped-call]
            except config.ConfigException:
                await config.load_kube_config()  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ApiError(0, f"No way to a Kubernetes API server: {error}") from error
        settings = client.Configuration.get_default_copy()
        # From Python 3.13 on a certificate authority without the "key usage" extension is refused;
        # many clusters have such a one, and no other client of Kubernetes minds.
        settings.disable_strict_ssl_verification = True
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        """End all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]
        # Those whose handshake was cut short end by themselves, and need the event loop for that.
        await asyncio.sleep(HANDSHAKES_END_S)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """One object, None when there is none of that name."""
        try:
            return await self._call("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        selector: str = "",
        *,
        fields: str = "",
        whole: bool = True,
    ) -> Manifest:
        """The list object: `items` (only their `metadata` unless `whole`), and its version.

        `selector` is one of labels, `fields` one of fields.
        """
        found = await self._call(
            "GET", kind.path(namespace), {"labelSelector": selector, "fieldSelector": fields},
            accept=JSON if whole else METADATA_LIST,
        )  # fmt: skip
        found["items"] = found["items"] or []  # of metadata alone an empty list comes as null
        return found

    async def apply(self, kind: Kind, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Server-side apply: the fields named are ours, the others stay."""
        meta = manifest["metadata"]
        return await self._call(
            "PATCH",
            kind.path(meta.get("namespace"), meta["name"], subresource),
            {"fieldManager": FIELD_MANAGER, "force": "true"},
            (manifest, "application/apply-patch+yaml"),
        )

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        """A new object; ApiError 409 when it is there."""
        return await self._call(
            "POST",
            kind.path(manifest["metadata"].get("namespace")),
            {"fieldManager": FIELD_MANAGER},
            (manifest, "application/json"),
        )

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Manifest, *, subresource: str = ""
    ) -> Manifest:
        """A JSON merge patch; with metadata.resourceVersion in it 409 if the object changed."""
        return await self._call(
            "PATCH",
            kind.path(namespace, name, subresource),
            {"fieldManager": FIELD_MANAGER},
            (patch, "application/merge-patch+json"),
        )

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: Mapping[str, Any] | None = None
    ) -> bool:
        """Ask for the end of an object; False when there is none."""
        try:
            await self._call(
                "DELETE", kind.path(namespace, name), {}, (dict(options or {}), "application/json")
            )
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        selector: str,
        version: str,
        *,
        name: str = "",
        whole: bool = True,
    ) -> AsyncGenerator[tuple[str, Manifest], None]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) until the server ends the watch.

        With `name` of that object alone, without `whole` their `metadata` only.  Raises ApiError,
        with status 410 when `version` is too old: list again then.
        """
        query = {
            "labelSelector": selector, "resourceVersion": version, "watch": "true",
            "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S),
            "fieldSelector": f"metadata.name={name}" if name else "",
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CALL_TIMEOUT_S, sock_read=WATCH_SILENT_S
        )
        accept = JSON if whole else METADATA
        response = await self._send("GET", kind.path(namespace), query, None, (timeout, accept))
        try:
            async for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refusal(event["object"].get("code", 0), event["object"])
                yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, f"The watch of {kind.plural} ended: {error!r}") from error
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: tuple[Manifest, str] | None = None,
        *,
        accept: str = JSON,
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        response = await self._send(method, path, query or {}, body, (timeout, accept))
        try:
            found: Manifest = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"The API server's answer broke off: {error!r}") from error
        return found

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: tuple[Manifest, str] | None,
        way: tuple[aiohttp.ClientTimeout, str],
    ) -> aiohttp.ClientResponse:
        limit, accept = way
        _REQUESTS.labels(*_asked(method, path, query, body)).inc()
        headers = {"Accept": accept, "User-Agent": FIELD_MANAGER}
        if body is not None:
            headers["Content-Type"] = body[1]
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        given = urlencode({name: value for name, value in query.items() if value})
        url = f"{self._api.configuration.host}{path}{'?' if given else ''}{given}"
        try:
            wrapped = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body[0] if body else None,
                _request_timeout=limit,
            )  # fmt: skip
            response: aiohttp.ClientResponse = wrapped.response
            if response.status < 400:
                return response
            raise _refusal(response.status, await _json(response))
        except client.ApiException as error:
            raise _refusal(error.status or 0, _loads(error.body)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, f"The API server can't be reached: {error!r}") from error


def _asked(
    method: str, path: str, query: Mapping[str, str], body: tuple[Manifest, str] | None
) -> tuple[str, str]:
    """The verb and the resource, as rules of RBAC name them."""
    _, root, *parts = path.split("/")
    parts = parts[2 if root == "apis" else 1 :]  # without group and version
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    resource = "/".join((parts[0], *parts[2:]))
    if method == "GET":
        verb = "watch" if "watch" in query else "get" if len(parts) > 1 else "list"
    elif method == "PATCH":
        verb = "apply" if body is not None and "apply" in body[1] else "patch"
    else:
        verb = {"POST": "create", "DELETE": "delete"}[method]
    return verb, resource


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, however long: aiohttp's own reader gives up at its buffer's size."""
    pending = bytearray()
    async for chunk in response.content.iter_any():
        pending += chunk
        *whole, rest = pending.split(b"\n")
        for line in whole:
            if line.strip():
                yield bytes(line)
        pending = bytearray(rest)
        if len(pending) > LINE_BYTES_MAX:
            raise ApiError(0, "A watched object is too large.")


async def _json(response: aiohttp.ClientResponse) -> Manifest:
    return _loads(await response.text())


def _loads(text: str | bytes | None) -> Manifest:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {"message": str(text)[:200]}
    return found if isinstance(found, dict) else {"message": str(text)[:200]}


def _refusal(status: int, body: Manifest) -> ApiError:
    return ApiError(status, body.get("message") or f"HTTP {status}", body.get("reason") or "")
