"""A gateway that asks who comes and speaks HTTPS, with what its ShardCluster's Secrets hold."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

import trustme

from tests.e2e.curl import Curl
from tests.e2e.kube import kubectl, until

if TYPE_CHECKING:
    from tests.e2e.kube import Store

READER, WRITER = "a-reader-of-the-tests", "a-writer-of-the-tests"


def _secret(store: Store, name: str, **files: str) -> None:
    """Made, or changed."""
    data = {
        key.replace("_", "."): base64.b64encode(text.encode()).decode()
        for key, text in files.items()
    }
    metadata = {"name": name, "namespace": store.namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
    kubectl("apply", "-f", "-", text=json.dumps(secret))


def _tokens(**roles: str) -> str:
    """The file's lines: token to role."""
    return "".join(
        f"{role} {role} sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"
        for token, role in roles.items()
    )


def test_tokens_and_a_certificate_of_secrets(store: Store) -> None:
    """HTTPS with that certificate, roles by token; a token that is taken away counts no more."""
    authority = trustme.CA()
    shown = authority.issue_cert("demo-gateway")
    _secret(
        store, "web",
        tls_crt=shown.cert_chain_pems[0].bytes().decode(),
        tls_key=shown.private_key_pem.bytes().decode(),
    )  # fmt: skip
    _secret(store, "who", tokens=_tokens(**{READER: "read", WRITER: "write"}))
    store.apply(
        shards=1, replicasPerShard=0,
        gateway={"tokensSecretName": "who", "tlsSecretName": "web"},
    )  # fmt: skip
    store.until_calm(shards=1, replicas=0)
    store.kubectl("rollout", "status", "deploy/demo-gateway", "--timeout=90s")
    curl = Curl(store, authority.cert_pem.bytes().decode())
    entry = {"key": "k", "value": "v"}
    assert curl("GET", "/read?key=k")[0] == 401
    assert curl("GET", "/status", token="somebody")[0] == 401  # noqa: S106
    assert curl("POST", "/write", entry, READER)[0] == 403
    assert curl("POST", "/write", entry, WRITER)[0] == 200
    assert curl("GET", "/read?key=k", token=READER)[1]["value"] == "v"
    assert curl("POST", "/add_node", token=WRITER)[0] == 403
    assert store.status()["shards"][0]["name"] == "shard-0"

    _secret(store, "who", tokens=_tokens(**{READER: "read"}))
    until(lambda: curl("GET", "/read?key=k", token=WRITER)[0] == 401, "a token's end")
    assert curl("GET", "/read?key=k", token=READER)[0] == 200
