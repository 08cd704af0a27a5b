"""Reading of requests and writing of answers, without any network."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcluster.spec_model import Durability
from shardcluster_api.codec import (
    BatchItem,
    ItemKind,
    WriteRequest,
    bytes_fields,
    checked_key,
    checked_value,
    json_object,
    parse_batch,
    parse_consistency,
    parse_node,
    parse_nothing,
    parse_query,
    parse_read,
    parse_write,
    write_options,
)
from shardcluster_api.errors import BadRequest, TooLarge
from shardcluster_api.limits import (
    BATCH_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    TTL_SECONDS_MAX,
    VALUE_BYTES_MAX,
)
from shardcluster_api.settings import Settings, SettingsError, parse_seeds

NOT_OBJECTS = [
    b"", b" ", b"{", b"[]", b'"text"', b"1", b"null", b"{'key':1}", b'{"a":1}x', b"\xff",
    b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1,"a":2}', b"[" * 100_000,
    b'{"a":' + b"9" * 5000 + b"}",
    '{"key":"k"}'.encode("utf-16"), b"\xef\xbb\xbf{}",
]  # fmt: skip

# What is wrong -> body of POST /write.
BAD_WRITES = {
    "no key": {"value": "v"},
    "no value": {"key": "k"},
    "empty key": {"key": "", "value": "v"},
    "number as key": {"key": 1, "value": "v"},
    "null as key": {"key": None, "value": "v"},
    "list as key": {"key": ["k"], "value": "v"},
    "number as value": {"key": "k", "value": 1},
    "true as value": {"key": "k", "value": True},
    "object as value": {"key": "k", "value": {}},
    "key twice": {"key": "k", "key_base64": "aw==", "value": "v"},
    "value twice": {"key": "k", "value": "v", "value_base64": "dg=="},
    "key not base64": {"key_base64": "a", "value": "v"},
    "value not base64": {"key": "k", "value_base64": "dg=*="},
    "value base64 not ASCII": {"key": "k", "value_base64": "é"},
    "half a surrogate pair": {"key": "\ud800", "value": "v"},
    "unknown field": {"key": "k", "value": "v", "ttl": 1},
    "ttl 0": {"key": "k", "value": "v", "ttl_seconds": 0},
    "ttl negative": {"key": "k", "value": "v", "ttl_seconds": -1},
    "ttl text": {"key": "k", "value": "v", "ttl_seconds": "1"},
    "ttl true": {"key": "k", "value": "v", "ttl_seconds": True},
    "ttl null": {"key": "k", "value": "v", "ttl_seconds": None},
    "ttl huge": {"key": "k", "value": "v", "ttl_seconds": TTL_SECONDS_MAX + 1},
    "durability unknown": {"key": "k", "value": "v", "durability": "forever"},
    "durability a list": {"key": "k", "value": "v", "durability": []},
}


@pytest.mark.parametrize("body", NOT_OBJECTS, ids=lambda body: repr(body[:20]))
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    """Also repeated fields, NaN, other encodings, and nesting or numbers without end."""
    with pytest.raises(BadRequest):
        json_object(body)


@pytest.mark.parametrize("body", BAD_WRITES.values(), ids=BAD_WRITES.keys())
def test_a_wrong_write_is_refused_with_a_sentence(body: dict[str, object]) -> None:
    """Nothing is guessed or converted."""
    with pytest.raises(BadRequest, match=r"\.$"):
        parse_write(json.dumps(body).encode())


def test_a_write_may_be_text_or_base64() -> None:
    """With expiry in milliseconds and a durability."""
    body = b'{"key":"\\u00e9","value_base64":"/wA=","ttl_seconds":0.0001,"durability":"disk"}'
    expected = WriteRequest("é".encode(), b"\xff\x00", 1, Durability.DISK)
    assert parse_write(body) == expected
    assert parse_write(b'{"key_base64":"/w==","value":""}') == WriteRequest(b"\xff", b"")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"operations":{}}',
        b'{"operations":[1]}',
        b'{"operations":[{}]}',
        b'{"operations":[{"op":"set","key":"k"}]}',
        b'{"operations":[{"op":[],"key":"k"}]}',
        b'{"operations":[{"op":"get","key":"k","value":"v"}]}',
        b'{"operations":[{"op":"delete","key":""}]}',
        b'{"operations":[{"op":"put","key":"k"}]}',
        b'{"operations":[],"atomic":true}',
    ],
)
def test_a_batch_with_a_wrong_item_is_refused_whole(body: bytes) -> None:
    """And the sentence names the item."""
    with pytest.raises(BadRequest) as caught:
        parse_batch(body)
    if b"[{" in body:
        assert str(caught.value).startswith("operations[0]: ")


def test_a_batch_is_read_item_by_item() -> None:
    """Each kind with its own fields."""
    body = {
        "operations": [
            {"op": "get", "key": "a", "consistency": "strong"},
            {"op": "put", "key": "b", "value": "1", "ttl_seconds": 2},
            {"op": "delete", "key_base64": "/w=="},
        ]
    }
    assert parse_batch(json.dumps(body).encode()) == [
        BatchItem(ItemKind.GET, b"a", None, strong=True),
        BatchItem(ItemKind.PUT, b"b", WriteRequest(b"b", b"1", 2000)),
        BatchItem(ItemKind.DELETE, b"\xff"),
    ]


def test_limits_are_inclusive() -> None:
    """The largest key, value and batch go in; one more does not."""
    assert checked_key(b"k" * KEY_BYTES_MAX)
    assert checked_value(b"v" * VALUE_BYTES_MAX)
    item = {"op": "get", "key": "k"}
    full = json.dumps({"operations": [item] * BATCH_OPERATIONS_MAX}).encode()
    assert len(parse_batch(full)) == BATCH_OPERATIONS_MAX
    with pytest.raises(TooLarge):
        checked_key(b"k" * (KEY_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        checked_value(b"v" * (VALUE_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        parse_batch(json.dumps({"operations": [item] * (BATCH_OPERATIONS_MAX + 1)}).encode())
    long_key = json.dumps({"operations": [{"op": "get", "key": "k" * (KEY_BYTES_MAX + 1)}]})
    with pytest.raises(TooLarge, match=r"operations\[0\]"):
        parse_batch(long_key.encode())


@given(st.binary())
def test_bytes_come_back_as_they_went_out(content: bytes) -> None:
    """As text when they are UTF-8, as base64 when not."""
    fields = bytes_fields("value", content)
    back = parse_write(json.dumps({"key": "k", **fields}).encode())
    assert back.value == content
    if "value" not in fields:
        assert base64.b64decode(fields["value_base64"]) == content


@given(st.binary(min_size=1))
def test_any_bytes_can_be_a_query_parameter(key: bytes) -> None:
    """Percent-encoded byte by byte."""
    encoded = "".join(f"%{byte:02x}" for byte in key)
    assert parse_query(f"key={encoded}", "key") == {"key": key}


@pytest.mark.parametrize("query", ["a=1", "key=1&key=2", "key=1&b", "%FF=1", "Key=1"])
def test_unknown_and_repeated_query_parameters_are_refused(query: str) -> None:
    """A typing error must not be taken for a wish."""
    with pytest.raises(BadRequest):
        parse_query(query, "key")


def test_a_query_may_be_empty_or_have_empty_parts() -> None:
    """As browsers and libraries send them."""
    assert parse_query("", "key") == {}
    assert parse_query("&key=a+b&", "key") == {"key": b"a b"}


def test_options_of_a_write_in_a_query() -> None:
    """The same as in a body."""
    assert write_options({}) == (None, None)
    assert write_options({"ttl_seconds": b"1.5", "durability": b"replica"}) == (
        1500,
        Durability.REPLICA,
    )
    for wrong in (b"", b"x", b"0", b"-1", b"nan", b"inf", b"\xff", b"1e99"):
        with pytest.raises(BadRequest):
            write_options({"ttl_seconds": wrong})
    with pytest.raises(BadRequest):
        write_options({"durability": b"\xff"})


def test_consistency_is_eventual_unless_strong_is_asked_for() -> None:
    """Any other word is refused."""
    assert not parse_consistency({})
    assert parse_consistency({"consistency": b"strong"})
    assert parse_read(b'{"key":"k","consistency":"strong"}') == (b"k", True)
    for wrong in (b"", b"STRONG", b"\xff"):
        with pytest.raises(BadRequest):
            parse_consistency({"consistency": wrong})
    with pytest.raises(BadRequest):
        parse_read(b'{"key":"k","consistency":[]}')


@pytest.mark.parametrize("body", [b"{}", b'{"node":""}', b'{"node":1}', b'{"node":"a","x":1}'])
def test_a_node_to_remove_must_be_named(body: bytes) -> None:
    """By a string that is not empty."""
    with pytest.raises(BadRequest):
        parse_node(body)


def test_a_body_that_should_say_nothing_may_be_empty() -> None:
    """Or an empty object; not anything else."""
    for body in (b"", b"\n", b"{}"):
        parse_nothing(body)
    for body in (b"[]", b'{"shards":1}'):
        with pytest.raises(BadRequest):
            parse_nothing(body)


@pytest.mark.parametrize("seeds", ["a", "a:", ":1", "a:0", "a:65536", "a:x", "a:1,b", "a:-1"])
def test_wrong_seeds_are_refused(seeds: str) -> None:
    """With the part that is wrong."""
    with pytest.raises(SettingsError):
        parse_seeds(seeds)


def test_settings_come_from_arguments_and_environment(tmp_path: object) -> None:
    """Arguments win; neither controller nor seeds is an error; the password stays hidden."""
    environment = {
        "SHARDCLUSTER_CONTROLLER": "http://a:1",
        "SHARDCLUSTER_SEEDS": "b:2,[::1]:3",
        "SHARDCLUSTER_PASSWORD": "secret",
    }
    settings = Settings.read("http://c:4", None, environment)
    assert settings.controller_url == "http://c:4"
    assert [str(seed) for seed in settings.seeds] == ["b:2", "::1:3"]
    assert settings.credentials.password == "secret"  # noqa: S105 - a test's
    assert "secret" not in repr(settings)
    missing = {"SHARDCLUSTER_PASSWORD_FILE": f"{tmp_path}/none", **environment}
    for wrong in ({}, {"SHARDCLUSTER_CONTROLLER": "a:1"}, missing):
        with pytest.raises(SettingsError):
            Settings.read(None, None, wrong)
