"""What no pod of ours may do: end a process of another pod with SIGKILL.

Process 1 of a container can't be killed from inside, so this is a privileged pod on each Kubernetes
node that sees the node's processes.  It is a test's, in a namespace of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.kube import Api, Document, engine_image, kubectl, kubectl_json, until

if TYPE_CHECKING:
    from tests.e2e.kube import Store

__all__ = ["HAND_NAMESPACE", "kill_container", "kill_engine", "lend_a_hand"]

HAND_NAMESPACE = "shardcluster-e2e-hand"
_KILL = (
    'for p in /proc/[0-9]*; do if grep -q "$0" "$p/cgroup" 2>/dev/null'
    ' && grep -qE "^$1" "$p/comm" 2>/dev/null;'
    ' then kill -9 "${p#/proc/}" && echo killed && exit 0; fi; done'
)


def lend_a_hand() -> None:
    """Start them; they stay for the whole run."""
    labels = {"app": "hand"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": HAND_NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        },
    }
    hands = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "hand", "namespace": HAND_NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostPID": True,
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [
                        {
                            "name": "hand",
                            "image": engine_image(),
                            "command": ["sleep", "1000000"],
                            "securityContext": {"privileged": True, "runAsUser": 0},
                        }
                    ],
                },
            },
        },
    }
    items: Document = {"apiVersion": "v1", "kind": "List", "items": [namespace, hands]}
    kubectl("apply", "-f", "-", text=json.dumps(items))
    kubectl("-n", HAND_NAMESPACE, "rollout", "status", "ds/hand", "--timeout=120s")


def kill_engine(store: Store, node: str) -> None:
    """SIGKILL to the engine's process of `shard-0-1`, and nothing else."""
    kill_container(store.namespace, f"{store.name}-{node}", "(valkey|redis)-server")


def kill_container(namespace: str, pod_name: str, process: str) -> None:
    """SIGKILL to the process of a pod whose name matches the regular expression."""
    pod = Api.read(f"/api/v1/namespaces/{namespace}/pods/{pod_name}")
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    machine = pod["spec"]["nodeName"]
    hands = kubectl_json("-n", HAND_NAMESPACE, "get", "pods", "-l", "app=hand")["items"]
    (hand,) = (
        item["metadata"]["name"] for item in hands if item["spec"].get("nodeName") == machine
    )
    until(
        lambda: kubectl(
            "-n", HAND_NAMESPACE, "exec", hand, "--", "sh", "-c", _KILL, container, process
        ),
        f"{process} of {pod_name} is killed",
    )
