"""What no pod of ours may do: end a process of another pod with SIGKILL.

Process 1 of a container can't be killed from inside, so this is a privileged pod on each Kubernetes
node that sees the node's processes.  It is a test's, in a namespace of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.kube import Api, Document, Refused, engine_image, kubectl, until

if TYPE_CHECKING:
    from tests.e2e.kube import Store

__all__ = [
    "ENGINE", "HAND_NAMESPACE", "kill_container", "kill_engine", "lend_a_hand", "signal_container",
]  # fmt: skip

HAND_NAMESPACE = "shardcluster-e2e-hand"
ENGINE = "(valkey|redis)-server"
# Words: the container's id, the process's name as a regular expression, the signal, and perhaps how
# many seconds later it gets which other one: then nothing is needed for that, no API server either.
_SIGNAL = """
for file in $(grep -ls -- "$0" /proc/[0-9]*/cgroup); do
    process=${file%/cgroup}
    grep -qE "^$1" "$process/comm" 2>/dev/null || continue
    number=${process#/proc/}
    kill "-$2" "$number" || exit 1
    [ -z "$3" ] || { sleep "$3"; kill "-$4" "$number"; } >/dev/null 2>&1 </dev/null &
    echo "$number"
    exit
done
"""


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
    kill_container(store.namespace, f"{store.name}-{node}", ENGINE)


def kill_container(namespace: str, pod_name: str, process: str) -> None:
    """SIGKILL to the process of a pod whose name matches the regular expression."""
    pod = Api.read(f"/api/v1/namespaces/{namespace}/pods/{pod_name}")
    until(lambda: signal_container(pod, process, "KILL"), f"{process} of {pod_name} is killed")


def signal_container(pod: Document, process: str, *signals: str) -> bool:
    """A signal to that process, or (signal, seconds, signal): then another one so much later.

    False when there is none.
    """
    states = pod["status"].get("containerStatuses", ())
    container = "".join(state.get("containerID", "") for state in states[:1]).rpartition("/")[2]
    if not container:
        return False
    hand = _hand_on(pod["spec"]["nodeName"])
    words = ("sh", "-c", _SIGNAL, container, process, *signals)
    return bool(kubectl("-n", HAND_NAMESPACE, "exec", hand, "--", *words))


def _hand_on(machine: str) -> str:
    hands = Api.read(f"/api/v1/namespaces/{HAND_NAMESPACE}/pods?labelSelector=app%3Dhand")["items"]
    for pod in hands:
        if pod["spec"].get("nodeName") == machine and pod["status"]["phase"] == "Running":
            return str(pod["metadata"]["name"])
    message = f"no hand on {machine}"
    raise Refused(message)
