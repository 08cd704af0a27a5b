"""The nodes' password: made once, read from its Secret, changed on running nodes.

Law: a password that is in use is never lost by us and never cut off.  A Secret of ours that was
deleted comes back with the same password; one that was changed is taken over by every running node
*beside* the old one, which ends with the node's process, so that clients have time to change.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from typing import TYPE_CHECKING

from shardcluster_operator.manifests import secret, secret_name
from shardcluster_runtime.kube import ApiError, Kind
from shardcluster_runtime.wire import ConnectionLost, Credentials, NodeConnection, NodeReplyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shardcluster.observed import Address
    from shardcluster.spec import Spec
    from shardcluster_operator.manifests import Place
    from shardcluster_runtime.kube import Kube

__all__ = ["change_password", "read_password"]

SECRETS = Kind("v1", "secrets")
PASSWORD_BYTES = 32
NODE_TIMEOUT_S = 2.0


async def read_password(kube: Kube, spec: Spec, place: Place, known: str | None) -> str:
    """From the Secret; ours is made when it is missing, with the `known` password if there is one.

    Raises ApiError when a Secret that people named is missing, or has no password.
    """
    name = secret_name(spec)
    found = await kube.get(SECRETS, place.namespace, name)
    if found is None:
        if spec.auth_secret_name is not None:
            raise ApiError(404, f"The Secret {name} named in spec.auth is missing.")
        manifest = secret(spec, place, known or secrets.token_urlsafe(PASSWORD_BYTES))
        with contextlib.suppress(ApiError):  # 409: somebody was quicker
            await kube.create(SECRETS, manifest)
        found = await kube.get(SECRETS, place.namespace, name)
    encoded = ((found or {}).get("data") or {}).get("password")
    try:
        # Made by hand it ends with a line break.
        password = base64.b64decode(encoded or "").decode().strip()
    except ValueError:
        password = ""
    if not password:
        raise ApiError(404, f"The Secret {name} has no password under the key `password`.")
    return password


async def change_password(nodes: Iterable[Address], old: str, new: str) -> list[Address]:
    """Let every node take the new one, too; returns those that could not be told."""
    untold = []
    for address in nodes:
        try:
            await _tell(address, old, new)
        except (OSError, TimeoutError, ConnectionLost, NodeReplyError):
            untold.append(address)
    return untold


async def _tell(address: Address, old: str, new: str) -> None:
    try:
        connection = await NodeConnection.open(
            address, timeout_s=NODE_TIMEOUT_S, credentials=Credentials(old)
        )
    except NodeReplyError:  # it was started with the new one already
        connection = await NodeConnection.open(
            address, timeout_s=NODE_TIMEOUT_S, credentials=Credentials(new)
        )
    try:
        for command in (
            ("ACL", "SETUSER", "default", f">{new}"),
            ("CONFIG", "SET", "masterauth", new),
        ):
            await connection.call(*command, timeout_s=NODE_TIMEOUT_S)
    finally:
        connection.close()
