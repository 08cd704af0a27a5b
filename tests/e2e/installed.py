"""The operator, installed from `deploy/` as users install it, with the images under test."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.kube import Document, gateway_image, kubectl, kubectl_json, operator_image, until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "OPERATOR",
    "ROOT",
    "SYSTEM",
    "active_operator",
    "install",
    "operator_logs",
    "operator_pods",
    "without_operator",
]

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "shardcluster-system"
OPERATOR = "shardcluster-operator"


def install() -> None:
    """Apply `deploy/`; returns when an operator of this version is ready."""
    rendered = subprocess.run(
        ["kubectl", "kustomize", ROOT / "deploy"], capture_output=True, text=True, check=True
    ).stdout
    for name, wanted in (("image: shardcluster-operator:", f"image: {operator_image()}"),
                         ("value: shardcluster-api:", f"value: {gateway_image()}")):  # fmt: skip
        lines = [
            line.split(name)[0] + wanted if name in line else line for line in rendered.splitlines()
        ]
        rendered = "\n".join(lines)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=rendered)
    kubectl("-n", SYSTEM, "rollout", "restart", f"deploy/{OPERATOR}")
    kubectl("-n", SYSTEM, "rollout", "status", f"deploy/{OPERATOR}", "--timeout=120s")


def operator_pods() -> list[Document]:
    """Those that are not on their way out."""
    found = kubectl_json("-n", SYSTEM, "get", "pods", "-l", f"app.kubernetes.io/name={OPERATOR}")[
        "items"
    ]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _scale_operator(replicas: int) -> None:
    kubectl("-n", SYSTEM, "scale", f"deploy/{OPERATOR}", f"--replicas={replicas}")
    until(lambda: len(operator_pods()) == replicas, f"{replicas} operators")
    if replicas:
        kubectl("-n", SYSTEM, "rollout", "status", f"deploy/{OPERATOR}", "--timeout=120s")


@contextlib.contextmanager
def without_operator() -> Iterator[None]:
    """None runs meanwhile."""
    _scale_operator(0)
    until(lambda: not kubectl_json("-n", SYSTEM, "get", "pods")["items"], "no operator's pod")
    try:
        yield
    finally:
        _scale_operator(2)


def active_operator() -> str:
    """The pod that holds the lease; empty while nobody does, or one that is on its way out."""
    lease = kubectl_json("-n", SYSTEM, "get", "lease", OPERATOR)
    holder: str = lease["spec"].get("holderIdentity") or ""
    name = holder.rpartition("-")[0]
    return name if name in {pod["metadata"]["name"] for pod in operator_pods()} else ""


def operator_logs(lines: int = 60) -> str:
    """The last of each."""
    return kubectl(
        "-n", SYSTEM, "logs", "-l", f"app.kubernetes.io/name={OPERATOR}", f"--tail={lines}",
        "--prefix",
    )  # fmt: skip
