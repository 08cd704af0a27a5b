"""A pod that asks a store's gateway, as `curl` would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.kube import gateway_image, kubectl
from tests.e2e.traffic import pod_security

if TYPE_CHECKING:
    from tests.e2e.kube import Store

__all__ = ["Curl"]

HTTP = """
import json, sys, urllib.error, urllib.request
method, path, body = sys.argv[1:4]
data = body.encode() if body else None
asked = urllib.request.Request("http://GATEWAY" + path, data, {"Content-Type": "application/json"},
                               method=method)
try:
    with urllib.request.urlopen(asked, timeout=20) as got:
        print(json.dumps([got.status, json.load(got)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


class Curl:
    """A pod that asks the gateway's Service."""

    def __init__(self, store: Store) -> None:
        """Start it."""
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

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, JSON)."""
        script = HTTP.replace("GATEWAY", f"{self._store.name}-gateway")
        text = json.dumps(body) if body is not None else ""
        out = self._store.kubectl("exec", "curl", "--", "python3", "-c", script, method, path, text)
        status, found = json.loads(out)
        return status, found
