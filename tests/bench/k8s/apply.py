"""From `kubectl apply` to Available, and where the time goes."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

from tests.bench.k8s.cluster import NAMESPACE, Store, document, kubectl, until

__all__ = ["run"]

LIMIT_S = 15.0
NAME = "apply"


def run() -> list[dict[str, Any]]:
    """The row of the table."""
    manifest = json.dumps(document(NAME))
    began_s, began = time.monotonic(), time.time()
    kubectl("apply", "-f", "-", text=manifest)
    kubectl(
        "-n", NAMESPACE, "wait", "--for=condition=Available", f"shc/{NAME}", "--timeout=120s"
    )  # fmt: skip
    took_s = time.monotonic() - began_s
    made = Store(NAME)
    try:
        pods = made.pods()
        stages = ", ".join(
            f"{what} {max(when(pod) for pod in pods) - began:.0f} s"
            for what, when in (("pods bound", _bound), ("engines run", _running))
        )
        made.calm()
        calm_s = time.monotonic() - began_s
        gateway_s = _gateway(made, began_s)
    finally:
        kubectl("-n", NAMESPACE, "delete", "shc", NAME)
        until(lambda: not made.pods(), "its pods are gone")
    return [
        {
            "measure": "apply → Available, 3 × (1+1) with volumes",
            "value": f"{took_s:.1f} s",
            "limit": f"≤ {LIMIT_S:.0f} s",
            "ok": took_s <= LIMIT_S,
            "detail": f"{stages} (whole seconds); replicas in step {calm_s:.1f} s, gateway ready"
            f" by {gateway_s:.1f} s",
        }
    ]


def _gateway(made: Store, began_s: float) -> float:
    made.gateway_url()
    return time.monotonic() - began_s


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _bound(pod: dict[str, Any]) -> float:
    times = {c["type"]: c["lastTransitionTime"] for c in pod["status"]["conditions"]}
    return _seconds(times["PodScheduled"])


def _running(pod: dict[str, Any]) -> float:
    return _seconds(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
