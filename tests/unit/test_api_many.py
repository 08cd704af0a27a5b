"""Many plain reads in one go: the same answers as the ways that can deal with everything."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcluster_api import data
from shardcluster_api.answers import json_text
from shardcluster_api.codec import ItemKind, parse_batch, plain_reads
from shardcluster_api.commands.many import KEY_BYTES_MAX, PLAIN, is_plain, read_many
from shardcluster_api.commands.wave import How
from shardcluster_api.errors import EngineRefused
from shardcluster_api.limits import BATCH_OPERATIONS_MAX
from shardcluster_api.plain_json import BATCH_READS, PIPELINED_READS, Written, plain_strings
from tests.unit.api_fakes import CLOSE, HANG, FakeShard, ask, document

if TYPE_CHECKING:
    from shardcluster_api.gateway import Gateway

KEYS = [b"a", b"b", b"c", b"{tag}d", "é".encode()]


def _batch(keys: list[bytes]) -> bytes:
    items = [{"op": "get", "key": key.decode()} for key in keys]
    return json.dumps({"operations": items}, ensure_ascii=False).encode()


_words = st.sampled_from(
    ["op", "key", "get", "put", "operations", "a", "", '"', "\\", "é", "\ud800"]
)
_values = st.one_of(_words, st.integers(), st.none(), st.lists(_words, max_size=2))
_items = st.lists(st.tuples(_words, _values), max_size=3)


@given(
    st.lists(st.tuples(_words, st.lists(st.one_of(st.just([("op", "get"), ("key", "a")]), _items))))
)
@example([("operations", [[("op", "get"), ("key", "a")]])])
@example([("operations", [[("op", "get"), ("op", "get"), ("key", "a")]])])
@example([("operations", []), ("operations", [[("op", "get"), ("key", "a")]])])
def test_a_body_taken_for_plain_reads_is_one(members: list[tuple[str, Any]]) -> None:
    """With the same keys; whatever else, `parse_batch` decides."""

    def text(pairs: list[tuple[str, Any]]) -> str:
        members = ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs)
        return f"{{{members}}}"

    def item(pairs: list[tuple[str, Any]]) -> str:
        return text([(name, json.dumps(value)) for name, value in pairs])

    body = text([(name, f"[{','.join(map(item, items))}]") for name, items in members]).encode()
    keys = plain_reads(body)
    if keys:
        items = parse_batch(body)
        assert [each.key for each in items] == keys
        assert all(each.kind is ItemKind.GET and not each.strong for each in items)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"1", b'"operations"', b'{"operations":1}', b'{"operations":[1]}',
        b'{"operations":[{"op":"get"}]}', b'{"operations":[{"op":"get","key":""}]}',
        b'{"operations":[{"op":"get","key":1}]}', b'{"operations":[{"op":"put","key":"a"}]}',
        b'{"operations":[{"op":"get","key":"a"}],"x":1}',
        b'{"operations":[{"op":"get","key":"\\u0061"}]}',
        b'{"operations":[{"op":"get","key":"a","consistency":"strong"}]}', b"\xff", b"[" * 5000,
    ],
)  # fmt: skip
def test_what_is_not_only_plain_reads_is_left_to_the_other_way(body: bytes) -> None:
    """Right or wrong."""
    assert plain_reads(body) == []
    assert plain_reads(_batch([b"a"])) == [b"a"]


async def test_both_ways_write_the_same_answer(shard: FakeShard, gateway: Gateway) -> None:
    """Byte for byte: text, quotes, bytes that are not text, and a key that isn't there."""
    values = [b"1", b'\\"quoted" \x01 \xc3\xa9', b"\xff\x00", b""]
    shard.replicas[0].data.update(zip(KEYS, values, strict=False))
    assert is_plain(gateway.router, KEYS, PLAIN)
    items = parse_batch(_batch(KEYS))
    long_way = json_text(await data.batch(gateway.router, items)).encode() + b"\n"
    assert await data.batch_read(gateway.router, KEYS) == long_way
    assert (await ask(gateway, "batch", body=_batch(KEYS))).body == long_way
    assert shard.master.count(b"GET") == 0


async def test_a_pipeline_of_reads(shard: FakeShard, gateway: Gateway) -> None:
    """One write to the node; a key that isn't there is null."""
    shard.replicas[0].data[b"a"] = b"1"
    answer = await ask(gateway, "pipeline", body=b'[["GET","a"],["get","b"]]')
    assert answer.body == b'[{"result":"1"},{"result":null}]\n'


@pytest.mark.parametrize("trouble", [CLOSE, HANG, "-LOADING later"])
async def test_what_a_replica_does_not_answer_comes_from_another_node(
    shard: FakeShard, gateway: Gateway, trouble: object
) -> None:
    """What came before the trouble need not come again, but may."""
    shard.master.data.update({b"a": b"1", b"b": b"2"})
    shard.replicas[0].data.update({b"a": b"1"})
    shard.replicas[0].script[b"GET"] = deque([b"1"])
    shard.replicas[0].always[b"GET"] = trouble
    found = await read_many(gateway.router, [b"a", b"b"])
    assert found.values == [b"1", b"2"]
    assert [place.role for place in found.places if place is not None][1] == "master"


async def test_an_error_that_stays_is_the_key_s_own(shard: FakeShard, gateway: Gateway) -> None:
    """The others have their values."""
    shard.replicas[0].data[b"a"] = b"1"
    wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value"
    shard.replicas[0].script[b"GET"] = deque([b"1", wrong, b"1", wrong])
    first, second = (await read_many(gateway.router, [b"a", b"b"])).values
    assert first == b"1"
    assert isinstance(second, EngineRefused)


async def test_a_slot_without_an_owner_is_waited_for(gateway: Gateway) -> None:
    """As in any batch; the map is learnt anew meanwhile."""
    owners = gateway.topology.map.owners
    owners[:] = [None] * len(owners)
    gateway.topology.map.version += 1
    assert (await read_many(gateway.router, [b"a", b"b"])).values == [None, None]


async def test_what_is_asked_beyond_a_plain_read_goes_the_other_way(gateway: Gateway) -> None:
    """Strong reads, a sync token, long keys, and slots that are moving."""
    router = gateway.router
    assert not is_plain(router, KEYS, How(strong=True))
    assert not is_plain(router, KEYS, How(seen=1))
    assert not is_plain(router, [b"k" * (KEY_BYTES_MAX + 1)], PLAIN)
    router.topology.map.set_moving([1])
    assert not is_plain(router, KEYS, PLAIN)
    router.topology.map.set_moving([])
    assert is_plain(router, KEYS, PLAIN)


async def test_a_batch_beyond_the_limit_is_refused(gateway: Gateway) -> None:
    """As a whole, before anything is sent."""
    gateway.in_flight = gateway.limits.in_flight_max
    answer = await ask(gateway, "batch", body=_batch(KEYS))
    assert (answer.status, document(answer)["error"]["code"]) == (503, "TooBusy")


_strings = st.text(st.sampled_from('ab"\\é\x01 ,:[]{}') | st.characters(codec="utf-8"), max_size=4)


@given(st.lists(_strings, min_size=1, max_size=5), st.sampled_from(BATCH_READS + PIPELINED_READS))
@example(['"},{"op":"get","key":"'], BATCH_READS[0])
@example(['"],["GET","'], PIPELINED_READS[0])
def test_strings_are_cut_out_as_a_parser_reads_them(strings: list[str], way: Written) -> None:
    """Or not at all."""
    inside = [json.dumps(one, ensure_ascii=False)[1:-1].encode() for one in strings]
    body = way.start + way.between.join(inside) + way.end
    found = plain_strings(body, [way])
    assert not found or [one.decode() for one in found] == strings
    assert found or not all(one.isascii() and one.isalnum() for one in strings)
    raw = way.start + way.between.join(one.encode() for one in strings) + way.end
    if cut := plain_strings(raw, [way]):
        read = json.loads(raw)
        pairs = read if isinstance(read, list) else [each.values() for each in read["operations"]]
        assert [key.encode() for _, key in pairs] == cut
    assert plain_strings(way.start[:-1] + way.end, [way]) == []


def test_not_more_strings_than_a_request_may_hold() -> None:
    """The other way refuses them with a sentence."""
    (way, *_) = PIPELINED_READS
    body = way.start + way.between.join([b"a"] * (BATCH_OPERATIONS_MAX + 1)) + way.end
    assert plain_strings(body, [way]) == []


@pytest.mark.parametrize(
    "values",
    [
        [b"1", b"2", b"3"],
        [b"1", None, b"3"],
        [b'"', b"\\", b"\xff\x00"],
        [b"", b"\xc3\xa9", b"\x01"],
    ],
)
async def test_all_ways_of_a_pipeline_answer_alike(
    shard: FakeShard, gateway: Gateway, values: list[bytes | None]
) -> None:
    """Compact, with spaces, and with an escape, which nothing short can read."""
    pairs = zip((b"a", b"b", b"c"), values, strict=True)
    shard.replicas[0].data.update({key: value for key, value in pairs if value is not None})
    bodies = [
        b'[["GET","a"],["GET","b"],["GET","c"]]',
        b'[["get", "a"], ["get", "b"], ["get", "c"]]',
        b'[["GET","\\u0061"],["GET","b"],["GET","c"]]',
    ]
    (found,) = {(await ask(gateway, "pipeline", body=body)).body for body in bodies}
    texts = [value if value is None else value.decode("utf-8", "replace") for value in values]
    assert found == ("[" + ",".join(json_text({"result": t}) for t in texts) + "]\n").encode()
    assert shard.master.count(b"GET") == 0
