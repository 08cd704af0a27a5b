"""One ShardCluster document: what is accepted, what it becomes, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import pickle
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcluster import spec as spec_module
from shardcluster.names import (
    SHARD_NUMBER_MAX,
    node_name,
    shard_name,
    shard_number,
    split_node_name,
)
from shardcluster.quantities import parse_quantity
from shardcluster.spec import ReadFrom, RebalanceMode, Spec, SpecError, ignored_on_local, parse
from shardcluster.spec_fields import FREE_DEPTH_MAX, FREE_VALUES_MAX, PROBLEMS_MAX

FULL: dict[str, Any] = {
    "apiVersion": "shardcluster.io/v1alpha1",
    "kind": "ShardCluster",
    "metadata": {"name": "orders"},
    "spec": {
        "shards": 4,
        "replicasPerShard": 2,
        "image": "registry:5000/valkey/valkey@sha256:0123",
        "ring": {
            "virtualNodes": 80,
            "loadBound": 0.1,
            "weights": {"shard-2": 0.5, "shard-10": 2.0},
        },
        "retire": ["shard-1", "shard-0"],
        "storage": {"size": "10Gi", "storageClassName": "fast.ssd", "keepOnDelete": False},
        "resources": {
            "requests": {"cpu": "250m", "memory": "1Gi"},
            "limits": {"cpu": "2", "memory": "2Gi"},
        },
        "config": {"maxmemory-policy": "allkeys-lru"},
        "failover": {"nodeTimeoutMs": 3000},
        "rebalance": {"mode": "manual", "maxKeysPerSecond": 5000},
        "gateway": {
            "replicas": 2,
            "readFrom": "master",
            "durability": "disk",
            "tokensSecretName": "orders-tokens",
            "tlsSecretName": "orders.example",
        },
        "auth": {"secretName": "orders-password"},
        "tls": {"secretName": "orders.tls"},
        "paused": True,
        "scheduling": {"nodeSelector": {"disk": "ssd"}, "tolerations": [], "x": None},
    },
}


def of(**fields: object) -> dict[str, Any]:
    """A document with these fields in its spec."""
    return {"spec": fields}


def problems(document: object) -> dict[str, str]:
    """What is wrong with it, by path."""
    with pytest.raises(SpecError) as raised:
        parse(document)
    found = dict(raised.value.problems)
    assert len(found) == len(raised.value.problems)
    assert all(f"{path}: {sentence}" in str(raised.value) for path, sentence in found.items())
    return found


def test_an_empty_document_is_three_shards_of_a_master_and_a_replica() -> None:
    """A local store needs no apiVersion, kind or metadata; null is the same as absent."""
    spec = parse({})
    assert spec == Spec() == parse({"spec": None, "metadata": None}) == parse(of(ring=None))
    assert (spec.name, spec.shards, spec.replicas_per_shard) == ("demo", 3, 1)
    assert (spec.ring.virtual_nodes, spec.ring.load_bound) == (160, 0.02)
    assert spec.memory_only
    assert spec.max_memory_bytes is None
    assert spec.wanted_shards() == ("shard-0", "shard-1", "shard-2")
    assert spec.weight("shard-1") == 1.0


def test_every_field_can_be_set_and_comes_back() -> None:
    """The full document is its own canonical form, and no field of the data keeps its default."""
    spec = parse(FULL)
    assert spec.document() == FULL
    default = parse({})

    def differ(left: Any, right: Any) -> None:
        for part in dataclasses.fields(left):
            if part.init:
                mine, other = getattr(left, part.name), getattr(right, part.name)
                assert mine != other, part.name
                if dataclasses.is_dataclass(mine) and other is not None:
                    differ(mine, other)

    differ(spec, default)
    assert spec.rebalance.mode is RebalanceMode.MANUAL
    assert spec.ring.weights == (("shard-2", 0.5), ("shard-10", 2.0))
    assert (spec.weight("shard-10"), spec.weight("shard-3")) == (2.0, 1.0)
    assert spec.wanted_shards() == ("shard-2", "shard-3", "shard-4", "shard-5")
    assert spec.max_memory_bytes == 2 * 1024**3 * 3 // 4
    assert not spec.memory_only


def test_a_spec_is_a_value() -> None:
    """It cannot change, is hashable, survives pickling, and hands out copies only."""
    spec = parse(FULL)
    assert hash(spec) == hash(parse(FULL))
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.shards = 5  # type: ignore[misc]
    spec.scheduling["nodeSelector"]["disk"] = "tape"
    spec.document()["spec"]["retire"].clear()
    assert spec.document() == FULL


def test_kubernetes_own_fields_are_tolerated() -> None:
    """Other metadata and the status are not ours to judge; any kind of mapping is read."""
    document = {
        **FULL,
        "metadata": {"name": "orders", "namespace": "shop", "labels": {}, "uid": "1"},
        "status": {"phase": 7},
    }
    assert parse(document) == parse(FULL)
    inner = {**FULL["spec"], "scheduling": MappingProxyType(FULL["spec"]["scheduling"])}
    assert parse(MappingProxyType({**document, "spec": MappingProxyType(inner)})) == parse(FULL)


@pytest.mark.parametrize("document", [None, [], "spec", 3, [{}]])
def test_a_document_that_is_no_mapping_is_refused(document: object) -> None:
    """With a sentence about the document."""
    assert problems(document)["document"].startswith("must be a mapping, not ")


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("shards", (1, 1000), (0, 1001, -1, True, "3", 3.0, [3], 10**30)),
        ("replicasPerShard", (0, 5), (6, False)),
        ("image", ("valkey", "a/b:c", "r:5000/a@sha256:1"), ("", "a b", ":x", 8, "x" * 501)),
        ("ring.virtualNodes", (1, 1000), (0, 1001, 1.5)),
        ("ring.loadBound", (0, 0.5, 0.25), (-0.01, 0.51, True, "0.1", float("nan"), float("inf"))),
        ("ring.weights.shard-0", (0.1, 100, 3), (0.09, 101, True, "1", float("nan"), 10**100)),
        ("ring", ({},), ([], 3)),
        ("ring.weights", ({},), (["shard-1"],)),
        ("retire", ([], ["shard-1"], ("shard-5",)), ("shard-1", {"shard-1": 1}, 1)),
        ("storage", ({"size": "1Gi"},), (True, "10Gi")),
        ("storage.size", ("10Gi", "1e9", 10**9), ("", "10GB", -1, True, 5, "100m", 2**63, [])),
        ("resources", ({},), ("1Gi",)),
        ("resources.limits.memory", ("16Mi", "0.5Gi", 1e9), ("15Mi", "1Zi", 10**99, "1e99")),
        ("resources.requests.cpu", ("1m", 0.5, 2, ".5", "1.5"), ("0", 0, "1n", float("nan"))),
        ("failover.nodeTimeoutMs", (500, 60000), (499, 60001)),
        ("rebalance.mode", ("auto", "manual"), ("Auto", True, ["auto"], 1)),
        ("rebalance.maxKeysPerSecond", (0, 10**9), (-1, 0.5)),
        ("gateway.replicas", (0, 100), (101,)),
        ("gateway.readFrom", ("replica", "master"), ("any",)),
        ("gateway.durability", ("async", "replica"), ("sync",)),
        ("gateway.tokensSecretName", ("a", "a.b-c"), ("A", "a/b", "", 1)),
        ("gateway.tlsSecretName", ("a",), ("a_b", ["a"])),
        ("auth.secretName", ("a", "a.b-c"), ("A", "a..b", "-a", "a" * 254, 1)),
        ("tls.secretName", ("a",), ("a_b",)),
        ("scheduling", ({}, {"a": [{"b": (1, 2.5, None, "x", True)}]}), ([], "x")),
        ("paused", (True, False), ("yes", 0, 1)),
    ],
)
def test_each_field_has_a_range(field: str, good: tuple[object], bad: tuple[object]) -> None:
    """A good value is taken and comes back; a bad one is refused under its own path, alone."""

    def document(value: object) -> dict[str, Any]:
        names = field.split(".")
        for name in reversed(names):
            value = {name: value}
        assert isinstance(value, dict)
        if names[0] == "storage" and isinstance(value["storage"], dict):
            value["storage"] = {"size": "1Gi", **value["storage"]}
        return {"spec": value}

    for value in good:
        spec = parse(document(value))
        assert parse(spec.document()) == spec
    for value in bad:
        assert list(problems(document(value))) == [f"spec.{field}"], value


@pytest.mark.parametrize("name", ["a", "0", "my-store-2", "x" * 40])
def test_a_name_is_a_label(name: str) -> None:
    """DNS-1123, short enough for the names made from it."""
    assert parse({"metadata": {"name": name}}).name == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a.b", "x" * 41, "é", "a\n", 5, True])
def test_a_name_that_is_no_label_is_refused(name: object) -> None:
    """It would not fit into Kubernetes."""
    assert list(problems({"metadata": {"name": name}})) == ["metadata.name"]


def test_all_problems_are_told_at_once() -> None:
    """Each with its path, in the order of the fields, then what is unknown."""
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "shards": 4,
        "spce": {},
        "spec": {
            "shards": "many",
            "replicas": 1,
            "ring": {"weights": {"shard-9x": 1, 7: 1, "shard-1": None}, "vnodes": 5},
            "retire": ["shard-1", "shard-01", "shard-1", 5],
            "storage": {"keepOnDelete": "yes", "Size": "1Gi"},
            "config": {"port": 1, "hz": 0, 5: 5, "timeout": None},
            "auth": {},
            "weights": {},
            3: 4,
        },
    }
    assert problems(document) == {
        "apiVersion": 'must be shardcluster.io/v1alpha1, not "v1"',
        "kind": 'must be ShardCluster, not "Pod"',
        "spec.shards": 'must be a whole number from 1 to 1000, not "many"',
        "spec.ring.weights.shard-9x": 'must be a shard\'s name like "shard-3"',
        "spec.ring.weights.7": 'must be a shard\'s name like "shard-3"',
        "spec.ring.vnodes": "unknown field; did you mean virtualNodes?",
        "spec.retire[1]": 'must be a shard\'s name like "shard-3", not "shard-01"',
        "spec.retire[2]": "names shard-1 a second time",
        "spec.retire[3]": 'must be a shard\'s name like "shard-3", not 5',
        "spec.storage.size": 'is missing; give it like "10Gi"',
        "spec.storage.keepOnDelete": 'must be true or false, not "yes"',
        "spec.storage.Size": "unknown field; did you mean size?",
        "spec.config.port": "can't be set here: ShardCluster decides where nodes listen",
        "spec.config.hz": 'must be a whole number from 1 to 500, not "0"',
        "spec.config.5": "must be an engine setting's name",
        "spec.auth.secretName": "is missing",
        "spec.replicas": "unknown field; did you mean replicasPerShard?",
        "spec.weights": "unknown field; it belongs at spec.ring.weights",
        "spec.3": "unknown field",
        "shards": "unknown field; it belongs at spec.shards",
        "spce": "unknown field; did you mean spec?",
    }


def test_what_is_shown_of_a_wrong_value_is_short_and_safe() -> None:
    """Whatever YAML can make: huge, binary, with lone surrogates, of any type."""
    wrong: tuple[object, ...] = (
        "x" * 10**6, "\ud800" * 9, b"\xff", {1: 2}, [1], (), 10**5000, 1e400, None,
        dt.date(2026, 1, 1),
    )  # fmt: skip
    for value in wrong[:-2]:
        (sentence,) = problems(of(shards=value)).values()
        assert len(sentence) < 150
        sentence.encode()
    assert problems(of(shards=wrong[-1]))["spec.shards"].endswith("not a date")
    found = problems({"spec": {"y" * 10**5: 1, "\ud800": 1, 10**5000: 1, None: 1, "": 1}})
    assert len(found) == 5
    assert all(len(path) < 80 and path.encode() for path in found)


def test_a_thousand_mistakes_are_cut_short() -> None:
    """The answer stays readable, and quick."""
    spec = {f"shard{number}": 1 for number in range(5000)}
    assert len(problems({"spec": spec})) == PROBLEMS_MAX
    assert len(problems({"spec": {"retire": [0] * 5000}})) == PROBLEMS_MAX


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (of(replicasPerShard=0, gateway={"durability": "replica"}), "spec.gateway.durability"),
        (of(gateway={"durability": "disk"}), "spec.gateway.durability"),
        (of(retire=[shard_name(n) for n in range(10_001)]), "spec.retire"),
        (
            of(shards=11, ring={"virtualNodes": 1000,
                                "weights": {shard_name(n): 100 for n in range(10)}}),
            "spec.ring.virtualNodes",
        ),
        (
            of(resources={"requests": {"cpu": 2}, "limits": {"cpu": "1900m"}}),
            "spec.resources.requests.cpu",
        ),
        (
            of(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "2G"}}),
            "spec.resources.requests.memory",
        ),
        (
            of(resources={"limits": {"memory": "1Gi"}}, config={"maxmemory": "2gb"}),
            "spec.config.maxmemory",
        ),
        (
            of(resources={"limits": {"memory": "1Gi"}}, config={"maxmemory": 0}),
            "spec.config.maxmemory",
        ),
    ],
)  # fmt: skip
def test_fields_that_contradict_each_other_are_refused(document: object, path: str) -> None:
    """Each is right alone."""
    assert list(problems(document)) == [path]


@pytest.mark.parametrize(
    "document",
    [
        of(ring={"weights": {"shard-9": 2}}, retire=["shard-9"]),
        of(storage={"size": "1Gi"}, gateway={"durability": "disk"}),
        of(gateway={"durability": "replica"}),
        of(resources={"limits": {"memory": "1Gi"}}, config={"maxmemory": "1gb"}),
        of(resources={"requests": {"cpu": 1}, "limits": {"cpu": "1000m", "memory": "1Gi"}}),
        of(retire=[shard_name(n) for n in range(10_000)], shards=1000),
        of(config={"maxmemory": 0}),
    ],
)
def test_fields_that_only_look_odd_together_are_fine(document: object) -> None:
    """They mean something."""
    spec = parse(document)
    assert parse(spec.document()) == spec
    assert shard_number(spec.wanted_shards()[-1]) <= SHARD_NUMBER_MAX


def test_without_replicas_reads_go_to_masters() -> None:
    """`readFrom: replica` is the default, so it must not be an error there."""
    assert parse({}).read_from is ReadFrom.REPLICA
    assert parse(of(replicasPerShard=0)).read_from is ReadFrom.MASTER
    assert parse(of(gateway={"readFrom": "master"})).read_from is ReadFrom.MASTER


def test_scheduling_is_free_but_bounded() -> None:
    """YAML's aliases can make a small file endless."""
    endless: dict[str, object] = {}
    endless["again"] = endless
    deep: object = 1
    for _ in range(FREE_DEPTH_MAX - 1):
        deep = [deep]
    wrong: tuple[object, ...] = (
        endless, {"a": [deep]}, {"a": [0] * FREE_VALUES_MAX}, {"a": {1: 2}}, {"a": float("nan")},
        {"a": [float("-inf")]}, {"a": dt.date(2026, 1, 1)}, {"a": 10**5000},
    )  # fmt: skip
    for value in wrong:
        assert list(problems(of(scheduling=value))) == ["spec.scheduling"]
    assert parse(of(scheduling={"a": deep})).scheduling == {"a": deep}


def test_config_values_become_what_the_engine_says() -> None:
    """Bools, numbers and text; sorted by name."""
    config = {"hz": 20, "activedefrag": True, "appendfsync": False, "maxmemory": "1GB"}
    expected = {"activedefrag": "yes", "appendfsync": "no", "hz": "20", "maxmemory": str(1024**3)}
    assert parse(of(config=config)).config == tuple(expected.items())


def test_a_local_platform_says_what_it_ignores() -> None:
    """One sentence for each field that is set; none for the default document."""
    assert ignored_on_local(parse({})) == ()
    named = [sentence.split()[0] for sentence in ignored_on_local(parse(FULL))]
    assert named == [
        "spec.image", "spec.storage.size", "spec.storage.storageClassName",
        "spec.storage.keepOnDelete", "spec.resources", "spec.gateway.replicas",
        "spec.gateway.tokensSecretName", "spec.gateway.tlsSecretName", "spec.auth", "spec.tls",
        "spec.scheduling",
    ]  # fmt: skip
    only_limit = of(resources={"limits": {"memory": "1Gi"}}, storage={"size": "1Gi"})
    assert len(ignored_on_local(parse(only_limit))) == 1


def test_names_are_read_back() -> None:
    """Shard and node names have one spelling only."""
    for number in (0, 7, 10, SHARD_NUMBER_MAX):
        assert shard_number(shard_name(number)) == number
        assert split_node_name(node_name(shard_name(number), 12)) == (shard_name(number), 12)
    wrong = ("", "shard-", "shard-01", "Shard-1", "shard-1 ", "shard-1\n", "shard-١",
             shard_name(SHARD_NUMBER_MAX + 1))  # fmt: skip
    for name in (*wrong, "shard-1-1"):
        with pytest.raises(ValueError, match="not a shard's name"):
            shard_number(name)
    for name in (*wrong, "shard-1", "shard-1-01", "shard-1-100", "shard-1-1-1"):
        with pytest.raises(ValueError, match="not a node's name"):
            split_node_name(name)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 1), ("1.", 1), (".5", 0.5), ("1.5k", 1500), ("1E", 10**18), ("1E3", 1000),
     ("1e-3", 0.001), ("1Ki", 1024), ("2Gi", 2 << 30), ("1Ei", 1 << 60), ("1M", 10**6),
     ("5m", 0.005), ("3u", 3e-6), ("4n", 4e-9), ("1P", 10**15), ("0", 0)],
)  # fmt: skip
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, amount: float) -> None:
    """Exactly, with decimal, binary and exponent forms."""
    assert float(parse_quantity(text)) == amount


@pytest.mark.parametrize("text", ["", "1GB", "1K", "-1", "+1", "1e999999999", "1 Gi", "Gi", "١"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """Nor is anything computed for it."""
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


_shards = st.integers(0, 30).map(shard_name)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False,
                                                              allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_amounts = _some(
    cpu=st.sampled_from(["1", 0.5, "100m"]), memory=st.sampled_from(["64Mi", "1e9", 2**30])
)
_specs = _some(
    shards=st.integers(1, 40),
    replicasPerShard=st.integers(1, 5),
    ring=_some(
        virtualNodes=st.integers(1, 100),
        loadBound=st.floats(0, 0.5),
        weights=st.dictionaries(_shards, st.floats(0.1, 100), max_size=4),
    ),
    retire=st.lists(_shards, unique=True, max_size=6),
    storage=st.none()
    | st.fixed_dictionaries(
        {"size": st.sampled_from(["1Gi", "2.5G", 10**9])},
        optional={"storageClassName": st.just("fast"), "keepOnDelete": st.booleans()},
    ),
    resources=_some(limits=_amounts),
    config=_some(**{
        "maxmemory-policy": st.sampled_from(["allkeys-lru", "NOEVICTION"]),
        "notify-keyspace-events": st.text("g$lshzxetdKEm", max_size=9),
        "hz": st.integers(1, 500) | st.just("10"),
        "latency-tracking": st.booleans(),
    }),
    failover=_some(nodeTimeoutMs=st.integers(500, 60_000)),
    rebalance=_some(
        mode=st.sampled_from(["auto", "manual"]), maxKeysPerSecond=st.integers(0, 10**9)
    ),
    gateway=_some(readFrom=st.sampled_from(["replica", "master"]), replicas=st.integers(0, 100)),
    auth=st.none() | st.just({"secretName": "s"}),
    scheduling=st.dictionaries(st.text(), _json, max_size=3),
    paused=st.booleans(),
)  # fmt: skip


@given(_specs)
def test_a_valid_document_and_its_canonical_form_mean_the_same(spec: dict[str, Any]) -> None:
    """The canonical form is stable, is plain JSON, and wants the same shards."""
    parsed = parse({"spec": spec})
    document = parsed.document()
    assert parse(json.loads(json.dumps(document))) == parsed
    assert parse(document).document() == document
    slow = itertools.count()
    wanted: list[str] = []
    while len(wanted) < parsed.shards:
        name = f"shard-{next(slow)}"
        wanted += [] if name in spec.get("retire", ()) else [name]
    assert parsed.wanted_shards() == tuple(wanted)


@given(st.dictionaries(st.sampled_from([*FULL["spec"], "x"]), _json), st.sampled_from([*FULL, "x"]))
def test_any_document_is_parsed_or_refused_with_sentences(spec: dict[str, Any], field: str) -> None:
    """Never anything else, whatever stands where."""
    for document in ({"spec": spec}, {"spec": {field: spec}}, {field: spec}):
        try:
            parsed = parse(document)
        except SpecError as error:
            assert error.problems  # noqa: PT017 - either outcome is right
        else:
            assert parse(parsed.document()) == parsed


def test_the_public_names_exist() -> None:
    """The module is the one door to all of it."""
    assert all(hasattr(spec_module, name) for name in spec_module.__all__)
