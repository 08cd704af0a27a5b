"""Which commands are allowed, where their keys are, and what else is decided without a node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcluster.slots import SLOT_COUNT, key_slot
from shardcluster_api.access import Role
from shardcluster_api.commands.info import joined_info
from shardcluster_api.commands.plans import Plan, plan, simple_part
from shardcluster_api.commands.resp import resp2
from shardcluster_api.commands.sync_token import (
    EVERY_SLOT,
    is_seen,
    parse,
    render,
    with_slots,
)
from shardcluster_api.commands.table import (
    ALLOWED,
    CommandRefused,
    Reach,
    checked_slot,
    find,
)
from shardcluster_api.commands.wave import Part
from shardcluster_api.limits import KEY_BYTES_MAX
from shardcluster_api.operations import COMMAND_WORDS, OPERATIONS
from shardcluster_runtime.wire import packed

if TYPE_CHECKING:
    from shardcluster_api.commands.table import Command


def _words(line: str) -> list[bytes]:
    return [word.encode() for word in line.split()]


def _found(line: str) -> tuple[Command, list[bytes]]:
    arguments = _words(line)
    command = find(arguments)
    return command, command.keys(arguments)


KEYS = {
    "GET a": "a",
    "set a v EX 100": "a",
    "MGET a b c": "a b c",
    "MSET a 1 b 2": "a b",
    "DEL a b": "a b",
    "BITOP AND d a b": "d a b",
    "RENAME a b": "a b",
    "LMOVE a b LEFT RIGHT": "a b",
    "LMPOP 2 a b LEFT": "a b",
    "ZADD z 1 m": "z",
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2": "d a b",
    "ZINTER 2 a b": "a b",
    "SINTERCARD 2 a b LIMIT 1": "a b",
    "XADD s * f v": "s",
    "XGROUP CREATE s g $": "s",
    "XREAD COUNT 2 STREAMS a b 0 0": "a b",
    "XREADGROUP GROUP g c STREAMS a >": "a",
    "EVAL return 2 a b arg": "a b",
    "EVALSHA sha 0 arg": "",
    "EVAL script nonsense a": "",
    "FCALL f 1 a": "a",
    "GEORADIUS g 1 2 3 km STORE d": "g d",
    "SORT a BY w_* GET #": "a",
    "OBJECT ENCODING a": "a",
    "MEMORY USAGE a": "a",
    "PFCOUNT a b": "a b",
    "SPUBLISH channel message": "channel",
    "PING": "",
    "PUBLISH channel message": "",
    "SCAN 0": "",
    "HEXPIRE h 10 FIELDS 1 f": "h",
}


@pytest.mark.parametrize(("line", "keys"), KEYS.items())
def test_keys_are_found_where_the_engine_has_them(line: str, keys: str) -> None:
    """By index, by number, and behind a keyword."""
    assert _found(line)[1] == _words(keys)


ROLES = {
    "GET a": Role.READ, "MGET a": Role.READ, "XRANGE s - +": Role.READ, "DBSIZE": Role.READ,
    "EVAL_RO s 0": Role.READ, "PING": Role.READ, "INFO": Role.READ, "SCRIPT EXISTS a": Role.READ,
    "SET a b": Role.WRITE, "GETDEL a": Role.WRITE, "EVAL s 0": Role.WRITE, "KEYS *": Role.WRITE,
    "PUBLISH a b": Role.WRITE, "SCRIPT LOAD s": Role.WRITE, "SCAN 0": Role.WRITE,
    "FLUSHDB": Role.ADMIN, "FLUSHALL": Role.ADMIN, "FUNCTION LOAD x": Role.ADMIN,
}  # fmt: skip


@pytest.mark.parametrize(("line", "role"), ROLES.items())
def test_a_command_needs_a_role(line: str, role: Role) -> None:
    """Reading, writing, or what concerns the whole store."""
    assert _found(line)[0].role is role


def test_only_what_reads_may_be_asked_of_a_replica() -> None:
    """No command that writes is marked as one that reads."""
    assert {c.role for c in ALLOWED if c.reads} == {Role.READ, Role.WRITE}
    assert {c.name for c in ALLOWED if c.reads and c.role is Role.WRITE} == {"keys", "scan"}


REFUSED = [
    "CONFIG GET *", "SHUTDOWN", "DEBUG SLEEP 0", "CLUSTER RESET", "REPLICAOF no one", "ACL LIST",
    "CLIENT LIST", "MONITOR", "BLPOP a 0", "BZPOPMIN a 0", "WAIT 1 0", "MULTI", "EXEC", "WATCH a",
    "SELECT 1", "AUTH p", "HELLO 3", "QUIT", "SUBSCRIBE a", "PSUBSCRIBE a", "PUBSUB CHANNELS",
    "MIGRATE h 1 k 0 1", "RESTORE k 0 v", "MODULE LOAD x", "XREAD BLOCK 0 STREAMS a 0",
    "XREADGROUP GROUP g c BLOCK 0 STREAMS a >", "SAVE", "SWAPDB 0 1", "FAILOVER", "SCRIPT KILL",
    "READONLY", "ASKING", "RESET", "SLOWLOG GET", "LATENCY DOCTOR", "OBJECT HELP",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_waits_administers_or_is_about_a_connection_is_refused(line: str) -> None:
    """With a sentence that says why."""
    with pytest.raises(CommandRefused, match=r"^ERR [A-Z -]+ is not offered here: .+\.$"):
        find(_words(line))


def test_no_command_that_blocks_or_administers_is_allowed() -> None:
    """Whatever else a newer engine brings: by its flags."""
    names = {command.name for command in ALLOWED}
    assert len(names) > 180
    for command in ALLOWED:
        assert command.group not in {"cluster", "transactions"}, command.name
        assert command.finders or command.reach in {Reach.ANY, Reach.SHARDS}, command.name
    assert names.isdisjoint({"blpop", "config|set", "debug", "shutdown", "migrate"})


MISTAKES = {
    "GET": "ERR wrong number of arguments for 'get' command",
    "GET a b": "ERR wrong number of arguments for 'get' command",
    "XGROUP": "ERR wrong number of arguments for 'xgroup' command",
    "XGROUP CREATE s": "ERR wrong number of arguments for 'xgroup|create' command",
    "XGROUP nonsense s": "ERR unknown subcommand 'nonsense'.",
    "NONSENSE a b": "ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b'",
    "": "ERR empty command",
}


@pytest.mark.parametrize(("line", "words"), MISTAKES.items())
def test_mistakes_are_told_in_the_engine_s_words(line: str, words: str) -> None:
    """Clients know them."""
    with pytest.raises(CommandRefused, match=f"^{re.escape(words)}$"):
        find(_words(line))


def test_keys_of_several_slots_are_refused_unless_the_command_is_split() -> None:
    """MGET and its like are split, each slot's keys together."""
    with pytest.raises(CommandRefused, match=r"^CROSSSLOT Keys in request don't hash"):
        plan(*_planned("SUNION a b"))
    assert isinstance(plan(*_planned("SUNION {t}a {t}b")), Part)
    assert isinstance(plan(*_planned("MGET {t}a {t}b")), Part)
    split = plan(*_planned("MSET {t}a 1 b 2 {t}c 3"))
    assert isinstance(split, Plan)
    assert [part.packed for part in split.parts] == [
        packed(_words("MSET {t}a 1 {t}c 3")), packed(_words("MSET b 2"))
    ]  # fmt: skip
    assert [part.slot for part in split.parts] == [key_slot(b"t"), key_slot(b"b")]
    with pytest.raises(CommandRefused, match="wrong number of arguments for 'mset'"):
        plan(*_planned("MSET a 1 b"))
    assert checked_slot([]) is None


def _planned(line: str) -> tuple[Command, list[bytes]]:
    return find(_words(line)), _words(line)


def test_a_key_over_its_limit_is_refused() -> None:
    """As everywhere else."""
    arguments = [b"GET", b"k" * (KEY_BYTES_MAX + 1)]
    with pytest.raises(CommandRefused, match="longer than"):
        plan(find(arguments), arguments)
    with pytest.raises(CommandRefused, match="longer than"):
        simple_part(find(arguments), arguments)


@pytest.mark.parametrize(
    "command", [one for one in ALLOWED if one.key_at], ids=lambda one: one.name
)
def test_a_command_with_one_key_is_planned_alike_both_ways(command: Command) -> None:
    """The short way finds the same key as the long one."""
    arguments = [*command.name.encode().split(b"|"), *(b"%d" % n for n in range(10))]
    arguments = arguments[: abs(command.arity)]
    short, long = simple_part(command, arguments), plan(command, arguments)
    assert isinstance(long, Part)
    assert (short.slot, short.packed, short.writing, short.strong) == (
        long.slot, long.packed, long.writing, long.strong
    )  # fmt: skip


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40))
def test_mget_puts_answers_where_their_keys_are(keys: list[bytes]) -> None:
    """Also for keys that are named twice."""
    arguments = [b"MGET", *keys]
    planned = plan(find(arguments), arguments)
    parts = [planned] if isinstance(planned, Part) else planned.parts
    for part in parts:
        reader = hiredis.Reader()
        reader.feed(part.packed)
        command = reader.gets()
        assert {key_slot(key) for key in command[1:]} == {part.slot}
        part.value = [b"value of " + key for key in command[1:]]
    answer = planned.value if isinstance(planned, Part) else planned.joined()
    assert answer == [b"value of " + key for key in keys]


def test_no_operation_of_ours_is_hidden_by_a_command() -> None:
    """The engine has no command by the first word of a path of ours."""
    own = {
        operation.path[1:].partition("/")[0].encode()
        for operation in OPERATIONS
        if not operation.path.startswith(("/{", "/subscribe", "/psubscribe"))
    }
    assert own.isdisjoint(COMMAND_WORDS)


@given(st.sets(st.integers(0, SLOT_COUNT - 1)))
def test_a_token_tells_the_slots_that_were_written(slots: set[int]) -> None:
    """All of them, and few others."""
    seen = with_slots(0, slots)
    assert parse(render(seen).encode()) == seen
    assert all(is_seen(seen, slot) for slot in slots)
    assert len(render(seen)) < 200


@pytest.mark.parametrize("token", [b"x", b"2.AA", b"1.%%", b"1.\xff", b"AAABBB"])
def test_a_token_that_can_t_be_read_means_every_slot(token: bytes) -> None:
    """Slower, but never stale."""
    assert parse(token) == EVERY_SLOT
    assert parse(b"") == 0


REPLIES: list[object] = [None, 5, -1, b"", b"text\r\n\x00", [], [1, [b"a", None], b"b"], [[[]]]]


@pytest.mark.parametrize("value", REPLIES)
def test_resp_is_written_as_the_engine_writes_it(value: object) -> None:
    """A client's parser reads the same value, fed whole or byte by byte."""
    whole = hiredis.Reader()
    whole.feed(resp2(value))
    assert whole.gets() == value
    slow = hiredis.Reader()
    for index, byte in enumerate(resp2(value)):
        slow.feed(bytes([byte]))
        if index + 1 < len(resp2(value)):
            assert slow.gets() is False
    assert slow.gets() == value


def test_info_of_several_shards_is_one() -> None:
    """Counters are summed, what all say alike is said once, the rest is left out."""
    one = b"# Server\r\nversion:8\r\nport:1\r\n\r\n# Memory\r\nused_memory:10\r\n# Keyspace\r\n"
    two = b"# Server\r\nversion:8\r\nport:2\r\n\r\n# Memory\r\nused_memory:32\r\n# Keyspace\r\n"
    lines = joined_info(
        ["s1", "s2"], [one + b"db0:keys=3,expires=1\r\n", two + b"db0:keys=4,expires=0\r\n"]
    ).splitlines()
    assert lines[:3] == [b"# Shards", b"shards:2", b"shard0:name=s1,used_memory=10"]
    assert b"version:8" in lines
    assert b"used_memory:42" in lines
    assert b"db0:keys=7,expires=1" in lines
    assert not any(line.startswith(b"port:") for line in lines)


def test_the_list_of_commands_in_the_documents_is_the_table() -> None:
    """docs/http.md names every allowed command, by group and role."""
    page = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text(encoding="utf-8")
    for group in {command.group for command in ALLOWED}:
        cells = next(line for line in page.splitlines() if line.startswith(f"| {group} |"))
        told = [re.findall(r"`([^`]+)`", cell) for cell in cells.split("|")[2:5]]
        for role, names in zip((Role.READ, Role.WRITE, Role.ADMIN), told, strict=True):
            allowed = [c for c in ALLOWED if (c.group, c.role) == (group, role)]
            assert names == sorted(c.name.upper().replace("|", " ") for c in allowed), group
