"""The Kubernetes objects of a ShardCluster, as plain data."""

from __future__ import annotations

import base64
import json
import subprocess
from importlib.resources import files
from typing import Any

import pytest

from shardcluster.spec import parse
from shardcluster_operator.handlers import api_server
from shardcluster_operator.manifests import (
    CONFIG_HASH_ANNOTATION,
    Manifest,
    Place,
    config_hash,
    objects,
    secret,
    secret_name,
    stateful_set,
)

PLACE = Place("shop", "a-uid", "shardcluster-api:1", "shardcluster-system")
NAME_CHARS_MAX = 63
LONGEST = "a" * 40
LAST_SHARD = "shard-99999"
PASSWORD = "the-password-itself"  # noqa: S105 - of these tests only
RICH: dict[str, Any] = {
    "storage": {"size": "10Gi", "storageClassName": "fast"},
    "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    "config": {"hz": 20, "maxmemory-policy": "allkeys-lru"},
    "gateway": {"replicas": 3},
}


def _spec(name: str = "demo", **fields: Any) -> Any:
    return parse({"metadata": {"name": name}, "spec": fields})


def _all(spec: Any, shard: str = "shard-0") -> list[Manifest]:
    return [*objects(spec, PLACE), stateful_set(spec, PLACE, shard, 2)]


def _one(spec: Any, kind: str, name: str) -> Manifest:
    (found,) = (
        item for item in _all(spec) if item["kind"] == kind and item["metadata"]["name"] == name
    )
    return found


def _pods(spec: Any) -> list[Manifest]:
    return [
        item["spec"]["template"]
        for item in _all(spec)
        if item["kind"] in {"StatefulSet", "Deployment"}
    ]


def _matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@pytest.mark.parametrize("fields", [{}, RICH])
def test_the_objects_are_these(fields: dict[str, Any]) -> None:
    """Every object has its name, each kind and name once, and can be written as JSON."""
    spec = _spec(**fields)
    found = {(item["kind"], item["metadata"]["name"]) for item in _all(spec)}
    expected = {
        ("ConfigMap", "demo-config"), ("ServiceAccount", "demo-gateway"), ("Role", "demo-gateway"),
        ("RoleBinding", "demo-gateway"), ("Service", "demo-nodes"), ("Service", "demo"),
        ("Service", "demo-gateway"), ("NetworkPolicy", "demo-nodes"),
        ("PodDisruptionBudget", "demo-nodes"), ("Deployment", "demo-gateway"),
        ("StatefulSet", "demo-shard-0"),
    }  # fmt: skip
    if spec.gateway.replicas > 1:
        expected.add(("PodDisruptionBudget", "demo-gateway"))
    assert found == expected
    assert len(_all(spec)) == len(expected)
    assert json.loads(json.dumps(_all(spec))) == _all(spec)


def test_objects_share_nothing_that_can_be_changed() -> None:
    """Whoever changes an object changes it for himself."""
    spec = _spec(**RICH)
    first = _all(spec)
    for item in first:
        item["metadata"]["labels"].clear()
        item.get("spec", {}).clear()
    assert all(item["metadata"]["labels"] for item in _all(spec))


@pytest.mark.parametrize("fields", [{}, RICH])
def test_everything_goes_with_its_owner(fields: dict[str, Any]) -> None:
    """Each object is in the ShardCluster's namespace and owned by it, the Secret too."""
    spec = _spec(**fields)
    for item in (*_all(spec), secret(spec, PLACE, PASSWORD)):
        meta = item["metadata"]
        assert meta["namespace"] == "shop"
        (owner,) = meta["ownerReferences"]
        assert owner == {
            "apiVersion": "shardcluster.io/v1alpha1", "kind": "ShardCluster", "name": "demo",
            "uid": "a-uid", "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        assert meta["labels"]["app.kubernetes.io/instance"] == "demo"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "shardcluster-operator"


def test_the_longest_names_fit() -> None:
    """Every name, and every label that Kubernetes makes of one, has at most 63 characters."""
    spec = _spec(LONGEST, **RICH)
    for item in (*_all(spec, LAST_SHARD), secret(spec, PLACE, PASSWORD)):
        name = item["metadata"]["name"]
        made = "-0123456789" if item["kind"] in {"StatefulSet", "Deployment"} else ""
        assert len(name + made) <= NAME_CHARS_MAX, name
        for value in item["metadata"]["labels"].values():
            assert len(value) <= NAME_CHARS_MAX
    assert len(f"{LONGEST}-{LAST_SHARD}-5") <= NAME_CHARS_MAX  # a pod, and its host name


@pytest.mark.parametrize("fields", [{}, RICH])
def test_pods_are_as_restricted_as_can_be(fields: dict[str, Any]) -> None:
    """All pods keep the rules of the "restricted" level, with a root that can't be written."""
    for pod in (template["spec"] for template in _pods(_spec(**fields))):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in pod["volumes"]}
        claimed = {"data"} if "storage" in fields and container["name"] == "valkey" else set()
        assert mounted == volumes | claimed


def test_nodes_know_nothing_of_the_api_server() -> None:
    """Only the gateway has a token, and that for its own ShardCluster alone."""
    spec = _spec()
    pod = _one(spec, "StatefulSet", "demo-shard-0")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    (rule,) = _one(spec, "Role", "demo-gateway")["rules"]
    assert rule["resourceNames"] == ["demo"]
    assert set(rule["verbs"]) == {"get", "list", "watch", "patch"}


def test_selectors_find_their_pods_and_no_others() -> None:
    """Services, policies and budgets select by labels that the pods have."""
    spec = _spec(**RICH)
    node = _one(spec, "StatefulSet", "demo-shard-0")["spec"]["template"]["metadata"]["labels"]
    gateway = _one(spec, "Deployment", "demo-gateway")["spec"]["template"]["metadata"]["labels"]
    for kind, name, own, other in (
        ("Service", "demo-nodes", node, gateway),
        ("Service", "demo", node, gateway),
        ("Service", "demo-gateway", gateway, node),
    ):
        chosen = _one(spec, kind, name)["spec"]["selector"]
        assert _matches(chosen, own)
        assert not _matches(chosen, other)
    for kind, name, own in (
        ("StatefulSet", "demo-shard-0", node),
        ("Deployment", "demo-gateway", gateway),
        ("PodDisruptionBudget", "demo-nodes", node),
        ("PodDisruptionBudget", "demo-gateway", gateway),
    ):
        assert _matches(_one(spec, kind, name)["spec"]["selector"]["matchLabels"], own)
    of_shard = _one(spec, "StatefulSet", "demo-shard-0")["spec"]["selector"]["matchLabels"]
    elsewhere = stateful_set(spec, PLACE, "shard-1", 2)["spec"]["template"]["metadata"]["labels"]
    assert not _matches(of_shard, elsewhere)
    assert (node["shardcluster.io/cluster"], node["shardcluster.io/shard"]) == ("demo", "shard-0")
    assert "shardcluster.io/role" not in node


def test_nodes_talk_to_those_who_must() -> None:
    """Clients' port: nodes, gateway, operator, labelled clients.  The bus: nodes only."""
    spec = _spec()
    policy = _one(spec, "NetworkPolicy", "demo-nodes")["spec"]
    node = _one(spec, "StatefulSet", "demo-shard-0")["spec"]["template"]["metadata"]["labels"]
    gateway = _one(spec, "Deployment", "demo-gateway")["spec"]["template"]["metadata"]["labels"]
    assert _matches(policy["podSelector"]["matchLabels"], node)
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}

    def namespace_of(peer: Manifest) -> str:
        chosen = peer.get("namespaceSelector", {}).get("matchLabels", {})
        return str(chosen.get("kubernetes.io/metadata.name", "shop"))

    def admitted(port: int, labels: dict[str, str], namespace: str = "shop") -> bool:
        return any(
            _matches(peer["podSelector"]["matchLabels"], labels) and namespace_of(peer) == namespace
            for peer in by_port[port]
        )

    operator = {"app.kubernetes.io/name": "shardcluster-operator"}
    client = {"shardcluster.io/client": "demo"}
    assert set(by_port) == {6379, 16379}
    assert all(admitted(6379, labels) for labels in (node, gateway, client))
    assert admitted(6379, operator, "shardcluster-system")
    assert not admitted(6379, operator)
    assert not admitted(6379, client, "elsewhere")
    assert admitted(16379, node)
    assert not any(admitted(16379, labels) for labels in (gateway, client))


def test_the_password_is_in_the_secret_only() -> None:
    """No other object has it, in any spelling; pods get it as a file that others can't read."""
    spec = _spec(**RICH)
    made = secret(spec, PLACE, PASSWORD)
    encoded = base64.b64encode(PASSWORD.encode()).decode()
    assert made["data"] == {"password": encoded}
    assert made["metadata"]["name"] == secret_name(spec) == "demo-auth"
    text = json.dumps(_all(spec))
    assert PASSWORD not in text
    assert encoded not in text
    for template in _pods(spec):
        (volume,) = (v["secret"] for v in template["spec"]["volumes"] if "secret" in v)
        assert (volume["secretName"], volume["defaultMode"]) == ("demo-auth", 0o440)
        (container,) = template["spec"]["containers"]
        assert "secretKeyRef" not in json.dumps(container)


def test_a_secret_of_the_users_own_is_taken() -> None:
    """`auth.secretName` is what the pods mount."""
    spec = _spec(auth={"secretName": "mine"})
    assert secret_name(spec) == "mine"
    for template in _pods(spec):
        assert any(
            volume.get("secret", {}).get("secretName") == "mine"
            for volume in template["spec"]["volumes"]
        )


# -- what makes a node outdated -------------------------------------------------------------


def _hash_in(spec: Any) -> str:
    template = stateful_set(spec, PLACE, "shard-7", 2)["spec"]["template"]
    return str(template["metadata"]["annotations"][CONFIG_HASH_ANNOTATION])


@pytest.mark.parametrize(
    "fields",
    [
        {"config": {"hz": 50, "maxmemory": "100mb"}},
        {"failover": {"nodeTimeoutMs": 5000}},
        {"shards": 9},
        {"replicasPerShard": 2},
        {"gateway": {"replicas": 4}},
        {"rebalance": {"mode": "manual"}},
        {"ring": {"weights": {"shard-0": 2}}},
        {"paused": True},
    ],
)
def test_what_the_loop_changes_at_run_time_restarts_nothing(fields: dict[str, Any]) -> None:
    """The hash stays the same, and so does the whole pod."""
    assert config_hash(_spec(**fields)) == config_hash(_spec())
    changed, unchanged = (
        stateful_set(spec, PLACE, "shard-0", 2)["spec"]["template"]
        for spec in (_spec(**fields), _spec())
    )
    assert changed == unchanged


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "valkey/valkey:9.0"},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"resources": {"requests": {"cpu": "1"}}},
        {"storage": {"size": "1Gi"}},
        {"auth": {"secretName": "mine"}},
        {"scheduling": {"nodeSelector": {"disk": "ssd"}}},
    ],
)
def test_what_only_a_restart_changes_makes_nodes_outdated(fields: dict[str, Any]) -> None:
    """The hash differs."""
    assert config_hash(_spec(**fields)) != config_hash(_spec())


def test_all_shards_have_one_hash() -> None:
    """It names the state of a node, whatever shard it is in."""
    spec = _spec(**RICH)
    assert _hash_in(spec) == config_hash(spec)
    assert len(config_hash(spec)) == 16


def test_a_node_that_starts_anew_begins_with_the_present_settings() -> None:
    """What the loop sets at run time is in the ConfigMap, and what must be so comes last."""
    spec = _spec(**RICH, failover={"nodeTimeoutMs": 3000})
    text = _one(spec, "ConfigMap", "demo-config")["data"]["valkey.conf"]
    lines = text.splitlines()
    for line in (
        "hz 20", "maxmemory-policy allkeys-lru", "cluster-node-timeout 3000",
        f"maxmemory {int(2 * 1024**3 * 0.75)}", "appendonly yes", "port 6379", "bind 0.0.0.0",
    ):  # fmt: skip
        assert line in lines
    assert lines.index("hz 20") < lines.index("cluster-enabled yes")


# -- shards -------------------------------------------------------------------------------


def test_a_shard_is_replaced_by_the_operator_alone() -> None:
    """Pods start side by side, and end when the operator says so."""
    spec = stateful_set(_spec(), PLACE, "shard-3", 4)["spec"]
    assert (spec["replicas"], spec["serviceName"]) == (4, "demo-nodes")
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}


@pytest.mark.parametrize("keep", [True, False])
def test_disks_stay_when_that_is_asked_for(keep: bool) -> None:  # noqa: FBT001
    """A deleted store leaves them if it should; a deleted StatefulSet always does."""
    storage = {"size": "10Gi", "storageClassName": "fast", "keepOnDelete": keep}
    spec = stateful_set(_spec(storage=storage), PLACE, "shard-0", 2)["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain", "whenScaled": "Retain",
    }  # fmt: skip
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"
    owners = [owner["uid"] for owner in claim["metadata"].get("ownerReferences", ())]
    assert owners == ([] if keep else [PLACE.uid])
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert claim["spec"]["storageClassName"] == "fast"


def test_without_storage_there_is_no_claim_and_the_start_is_guarded() -> None:
    """The data folder ends with the pod, and the start script knows that."""
    spec = stateful_set(_spec(), PLACE, "shard-0", 2)["spec"]
    assert "volumeClaimTemplates" not in spec
    pod = spec["template"]["spec"]
    assert {"name": "data", "emptyDir": {}} in pod["volumes"]
    env = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert env["SHARDCLUSTER_MEMORY_ONLY"] == "yes"
    kept = stateful_set(_spec(storage={"size": "1Gi"}), PLACE, "shard-0", 2)
    assert "SHARDCLUSTER_MEMORY_ONLY', 'value': 'no'" in str(kept)


def test_the_api_server_is_asked_by_its_address() -> None:
    """For whoever takes over when the machine of the DNS server is gone."""
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert api_server(inside) == "https://10.0.0.1:443"
    assert api_server({**inside, "KUBERNETES_SERVICE_HOST": "fd00::1"}) == "https://[fd00::1]:443"
    assert api_server({}) is None


def test_the_nodes_of_a_shard_are_kept_apart() -> None:
    """By machine and zone, as a wish; a user's own wish about neighbours replaces that."""
    pod = stateful_set(_spec(), PLACE, "shard-5", 2)["spec"]["template"]["spec"]
    for constraint in pod["topologySpreadConstraints"]:
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["labelSelector"]["matchLabels"]["shardcluster.io/shard"] == "shard-5"
    (wish,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    store_wide = wish["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert "shardcluster.io/shard" not in store_wide
    wishes = {
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high", "affinity": {"podAntiAffinity": {}},
    }  # fmt: skip
    wished = stateful_set(_spec(scheduling=wishes), PLACE, "shard-5", 2)
    pod = wished["spec"]["template"]["spec"]
    assert {name: pod[name] for name in wishes} == wishes
    assert "topologySpreadConstraints" not in pod
    own = {"topologySpreadConstraints": [], "hostNetwork": True}
    pod = stateful_set(_spec(scheduling=own), PLACE, "s", 2)["spec"]["template"]["spec"]
    assert pod["topologySpreadConstraints"] == []
    assert "hostNetwork" not in pod


def test_every_script_is_in_the_config_map_and_is_valid_shell() -> None:
    """All of the folder is mounted, and a shell can read it."""
    data = _one(_spec(), "ConfigMap", "demo-config")["data"]
    folder = files("shardcluster_operator.manifests") / "scripts"
    names = {entry.name for entry in folder.iterdir() if entry.name.endswith(".sh")}
    assert set(data) == names | {"valkey.conf"}
    for name in names:
        checked = subprocess.run(
            ["sh", "-n"], input=data[name], text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, f"{name}: {checked.stderr}"


def test_gateways_are_replaced_without_a_gap() -> None:
    """A new one is ready before an old one ends; it is told its store and its password's file."""
    spec = _spec(gateway={"replicas": 2})
    deployment = _one(spec, "Deployment", "demo-gateway")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["image"] == "shardcluster-api:1"
    assert container["args"] == [
        "--kubernetes", "shop/demo", "--host", "0.0.0.0", "--port", "8080",  # noqa: S104
        "--drain-seconds", "5",
    ]  # fmt: skip
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_gateway_reads_the_secrets_that_the_spec_names() -> None:
    """Mounted as folders, so that it follows their changes; with a certificate it speaks HTTPS."""
    plain = _one(_spec(), "Deployment", "demo-gateway")["spec"]["template"]["spec"]
    assert [volume["name"] for volume in plain["volumes"]] == ["auth", "scratch"]
    assert "scheme" not in plain["containers"][0]["readinessProbe"]["httpGet"]
    spec = _spec(gateway={"tokensSecretName": "who", "tlsSecretName": "web"})
    pod = _one(spec, "Deployment", "demo-gateway")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    secrets = {v["name"]: v["secret"] for v in pod["volumes"] if "secret" in v}
    assert {name: secret["secretName"] for name, secret in secrets.items()} == {
        "auth": "demo-auth", "tokens": "who", "https": "web",
    }  # fmt: skip
    folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    files = {
        f"{folders[name]}/{item['path']}"
        for name, secret in secrets.items()
        for item in secret["items"]
    }
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set(variables.values()) == files
    assert set(variables) == {
        "SHARDCLUSTER_PASSWORD_FILE", "SHARDCLUSTER_TOKENS_FILE", "SHARDCLUSTER_HTTPS_CERT",
        "SHARDCLUSTER_HTTPS_KEY",
    }  # fmt: skip
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    (port,) = _one(spec, "Service", "demo-gateway")["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("https", 443, "http")
    (port,) = _one(_spec(), "Service", "demo-gateway")["spec"]["ports"]
    assert (port["name"], port["port"]) == ("http", 80)
