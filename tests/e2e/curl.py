"""A pod that asks a store's gateway, as `curl` would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.client_pod import pod_security
from tests.e2e.kube import gateway_image, kubectl

if TYPE_CHECKING:
    from tests.e2e.kube import Store

__all__ = ["Curl"]

HTTP = """
import json, ssl, sys, urllib.error, urllib.request
method, url, body, token, authority = sys.argv[1:]
headers = {"Content-Type": "application/json"}
if token:
    headers["Authorization"] = "Bearer " + token
asked = urllib.request.Request(url, body.encode() if body else None, headers, method=method)
trusted = ssl.create_default_context(cadata=authority) if authority else None
try:
    with urllib.request.urlopen(asked, timeout=20, context=trusted) as got:
        print(json.dumps([got.status, json.load(got)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


class Curl:
    """A pod that asks the gateway's Service."""

    def __init__(self, store: Store, authority: str = "") -> None:
        """Start it; with the PEM of an `authority` it speaks HTTPS and trusts nobody else."""
        self._authority = authority
        security = pod_security()
        self._store = store
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "curl", "namespace": store.namespace},
            "spec": {
                "securityContext": security["pod"],
                "containers": [
                    {
                        "name": "curl",
                        "image": gateway_image(),
                        "command": ["sleep", "100000"],
                        "securityContext": security["container"],
                    }
                ],
            },
        }
        kubectl("apply", "-f", "-", text=json.dumps(pod))
        store.kubectl("wait", "--for=condition=Ready", "pod/curl", "--timeout=60s")

    def __call__(
        self, method: str, path: str, body: Any = None, token: str = ""
    ) -> tuple[int, Any]:
        """(status, JSON)."""
        scheme = "https" if self._authority else "http"
        url = f"{scheme}://{self._store.name}-gateway{path}"
        text = json.dumps(body) if body is not None else ""
        out = self._store.kubectl(
            "exec", "curl", "--", "python3", "-c", HTTP, method, url, text, token, self._authority
        )
        status, found = json.loads(out)
        return status, found
