"""Which of the engine's commands people may use, where their keys are, and who may use them.

Arity, groups, flags and key positions are the engine's own (`engine.txt`, made by
tools/command_table.py, compared with a real Valkey by a test).  What is decided here: a command
whose keys are known is allowed when it reads or writes; one without keys only when `_WITHOUT_KEYS`
names it; what waits, administers nodes, or is about one connection is refused with a sentence.
Reads may go to replicas and be asked again; nothing else is ever sent twice (see router.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

from shardcluster.slots import key_slot
from shardcluster_api.access import Role
from shardcluster_api.errors import ApiError
from shardcluster_api.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ALLOWED", "WORDS", "Command", "CommandRefused", "Reach", "check_sizes", "checked_slot", "find",
]  # fmt: skip

_QUOTED_MAX = 128  # bytes of a client's own words in an error, as the engine quotes

Arguments = list[bytes]


class CommandRefused(ApiError):
    """A command that nothing was sent of; the message is in the engine's form, `CODE words`."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        """`message` begins with the engine's code; `forbidden`: nobody may, whatever is asked."""
        super().__init__(400, "CommandRefused", message)
        self.forbidden = forbidden


class Reach(enum.Enum):
    """How many nodes a command concerns."""

    SLOT = "slot"  # the one whose slot its keys hash to
    KEYS = "keys"  # as SLOT, and split by slots when its keys hash to several
    ANY = "any"  # one, whichever
    SHARDS = "shards"  # every shard, and their answers become one


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a container's subcommand."""

    name: str  # lower case; `xgroup|create`
    arity: int
    group: str
    role: Role
    reads: bool  # changes nothing: may go to a replica
    reach: Reach
    finders: tuple[Callable[[Arguments], Arguments], ...]
    refusal: str = ""  # why nobody may
    at_master: bool = False  # though it reads
    key_at: int = 0  # where its only key is, when that is all there is to know; else 0

    def keys(self, arguments: Arguments) -> Arguments:
        """The keys among the arguments (the command's name is the first of those)."""
        if len(self.finders) == 1:
            return self.finders[0](arguments)
        return [key for finder in self.finders for key in finder(arguments)]


# -- what is allowed -----------------------------------------------------------------------

_SPLIT = frozenset({"mget", "mset", "del", "unlink", "exists", "touch"})
# Without keys: who may, and how far it reaches.  KEYS and SCAN need more than reading, as with
# Upstash: whoever may read what they can name is not thereby allowed to list everything.
_WITHOUT_KEYS = {
    "dbsize": (Role.READ, Reach.SHARDS),
    "echo": (Role.READ, Reach.ANY),
    "flushall": (Role.ADMIN, Reach.SHARDS),
    "flushdb": (Role.ADMIN, Reach.SHARDS),
    "function|delete": (Role.ADMIN, Reach.SHARDS),
    "function|flush": (Role.ADMIN, Reach.SHARDS),
    "function|list": (Role.ADMIN, Reach.ANY),
    "function|load": (Role.ADMIN, Reach.SHARDS),
    "info": (Role.READ, Reach.SHARDS),
    "keys": (Role.WRITE, Reach.SHARDS),
    "lolwut": (Role.READ, Reach.ANY),
    "ping": (Role.READ, Reach.ANY),
    "publish": (Role.WRITE, Reach.ANY),
    "randomkey": (Role.READ, Reach.SHARDS),
    "scan": (Role.WRITE, Reach.SHARDS),
    "script|exists": (Role.READ, Reach.SHARDS),
    "script|flush": (Role.ADMIN, Reach.SHARDS),
    "script|load": (Role.WRITE, Reach.SHARDS),
    "time": (Role.READ, Reach.ANY),
}
_DATA = frozenset({"readonly", "write"})  # the engine's flags of commands that read or write keys
_KEYED = frozenset({"eval", "evalsha", "fcall", "spublish"})  # neither flag, but a slot
_LISTING = frozenset({"keys", "scan"})
# Reads that only one node answers alike from call to call: cursors depend on a node's hash seed,
# and what was used when is not replicated.
_AT_MASTER = frozenset({"hscan", "sscan", "zscan", "touch", "object|freq", "object|idletime"})
_WAITS = "it waits, which would hold up all other requests to the node"
_CONNECTION = "it is about the state of one connection, and requests share theirs"
_ADMINISTERS = "it administers a node, which the controller does"
_REFUSED = {
    "migrate": _ADMINISTERS,
    "move": "a cluster has one database",
    "restore": "a node trusts what RESTORE gives it",
    "restore-asking": "a node trusts what RESTORE gives it",
    "wait": "ask for it by the header X-ShardCluster-Durability: replica",
    "waitaof": "ask for it by the header X-ShardCluster-Durability: disk",
    "subscribe": "listen at /subscribe/CHANNEL",
    "psubscribe": "listen at /psubscribe/PATTERN",
}
_REFUSED_GROUPS = {
    "cluster": _ADMINISTERS,
    "connection": _CONNECTION,
    "pubsub": "it is about one connection or one node; listen at /subscribe/CHANNEL",
    "server": _ADMINISTERS,
    "scripting": _ADMINISTERS,
    "transactions": "send the commands of a transaction to /multi-exec",
    "generic": "it has no key",
}
_OPTIONS_FROM = {"xread": 1, "xreadgroup": 4}  # they wait only when told to by BLOCK
# Commands of Valkey 9 and Redis 8: a node that doesn't know them says so itself.
_NEWER = """
delifeq 3 string write i1/r0,1,0
hexpire -6 hash write i1/r0,1,0
hexpireat -6 hash write i1/r0,1,0
hexpiretime -5 hash readonly i1/r0,1,0
hgetdel -5 hash write i1/r0,1,0
hgetex -5 hash write i1/r0,1,0
hpersist -5 hash write i1/r0,1,0
hpexpire -6 hash write i1/r0,1,0
hpexpireat -6 hash write i1/r0,1,0
hpexpiretime -5 hash readonly i1/r0,1,0
hpttl -5 hash readonly i1/r0,1,0
hsetex -6 hash write i1/r0,1,0
httl -5 hash readonly i1/r0,1,0
"""


# -- where keys are ------------------------------------------------------------------------


def _range(begin: Callable[[Arguments], int], text: str, arguments: Arguments) -> Arguments:
    last, step, limit = map(int, text.split(","))
    first = begin(arguments)
    if first <= 0:
        return []
    count = len(arguments)
    if last >= 0:
        end = first + last
    elif limit > 1:  # the first half (or third …) of what is left
        end = first + (count - first) // limit + last
    else:
        end = count + last
    return arguments[first : end + 1 : step]


def _numbered(begin: Callable[[Arguments], int], text: str, arguments: Arguments) -> Arguments:
    number_at, first_at, step = map(int, text.split(","))
    start = begin(arguments)
    try:
        count = int(arguments[start + number_at])
    except (IndexError, ValueError):
        return []  # the engine will say what is wrong
    first = start + first_at
    return arguments[first : first + max(0, count) * step : step]


def _at(index: int, arguments: Arguments) -> int:
    return index if index < len(arguments) else 0


def _behind(keyword: bytes, start: int, arguments: Arguments) -> int:
    for index in range(start, len(arguments)):
        if arguments[index].upper() == keyword:
            return index + 1
    return 0


def _only(index: int, arguments: Arguments) -> Arguments:
    """The commonest case, without detours."""
    return arguments[index : index + 1]


def _finder(text: str) -> partial[Arguments]:
    where, _, how = text.partition("/")
    if where[0] == "i" and how == "r0,1,0":
        return partial(_only, int(where[1:]))
    if where[0] == "i":
        begin = partial(_at, int(where[1:]))
    else:
        keyword, _, start = where[1:].partition(",")
        begin = partial(_behind, keyword.encode(), int(start))
    return partial(_range if how[0] == "r" else _numbered, begin, how[1:])


# -- the table -----------------------------------------------------------------------------


def _command(line: str) -> Command:
    name, arity, group, flags_text, *where = line.split()
    flags = frozenset(flags_text.split(","))
    refusal, reach, reads = "", Reach.SLOT, "readonly" in flags
    role = Role.READ if reads else Role.WRITE
    if name in _REFUSED:
        refusal = _REFUSED[name]
    elif "blocking" in flags and name not in _OPTIONS_FROM:
        refusal = _WAITS
    elif name in _WITHOUT_KEYS:
        role, reach = _WITHOUT_KEYS[name]
        reads = role is Role.READ or name in _LISTING
    elif "admin" in flags or not where or not (flags & _DATA or name in _KEYED):
        refusal = _REFUSED_GROUPS.get(group, _ADMINISTERS)
    elif name in _SPLIT:
        reach = Reach.KEYS
    # Keys that only the engine finds are left to it: it refuses what crosses slots.
    known = (one for one in where if one != "?")
    finders = tuple(map(_finder, known)) if not refusal else ()
    at_master = name in _AT_MASTER
    key_at = 0
    if reach is Reach.SLOT and [finder.func for finder in finders] == [_only]:
        (key_at,) = finders[0].args
        key_at = key_at if key_at < abs(int(arity)) else 0
    return Command(name, int(arity), group, role, reads, reach, finders, refusal, at_master, key_at)


def _table() -> Iterator[Command]:
    text = (files(__package__) / "engine.txt").read_text(encoding="utf-8")
    seen = set()
    for line in (*text.splitlines(), *_NEWER.split("\n")):
        if not line or line.startswith("#"):
            continue
        command = _command(line)
        if command.name not in seen:  # a newer engine's own word counts more
            seen.add(command.name)
            yield command


_COMMANDS = {command.name.encode(): command for command in _table()}
_CONTAINERS = frozenset(name.partition(b"|")[0] for name in _COMMANDS if b"|" in name)
# Every first word that the engine knows, refused ones too.
WORDS = frozenset(name.partition(b"|")[0] for name in _COMMANDS)
ALLOWED = tuple(command for command in _COMMANDS.values() if not command.refusal)


# -- looking one up ------------------------------------------------------------------------


def find(arguments: Arguments) -> Command:
    """The command that the arguments are; raises CommandRefused."""
    if not arguments:
        message = "ERR empty command"
        raise CommandRefused(message)
    name = arguments[0].lower()
    command = _COMMANDS.get(name)
    if command is None:
        command = _subcommand(name, arguments)
    count = len(arguments)
    if command.refusal:
        words = command.name.upper().replace("|", " ")
        message = f"ERR {words} is not offered here: {command.refusal}."
        raise CommandRefused(message, forbidden=True)
    if count != command.arity if command.arity > 0 else count < -command.arity:
        message = f"ERR wrong number of arguments for '{command.name}' command"
        raise CommandRefused(message)
    if command.name in _OPTIONS_FROM:
        _refuse_waiting(command, arguments)
    return command


def _subcommand(name: bytes, arguments: Arguments) -> Command:
    if name not in _CONTAINERS:
        quoted = " ".join(f"'{_quoted(one)}'" for one in arguments[1:9])[:_QUOTED_MAX]
        message = f"ERR unknown command '{_quoted(arguments[0])}', with args beginning with: "
        raise CommandRefused(message + quoted)
    if len(arguments) == 1:
        message = f"ERR wrong number of arguments for '{name.decode()}' command"
        raise CommandRefused(message)
    command = _COMMANDS.get(name + b"|" + arguments[1].lower())
    if command is None:
        message = f"ERR unknown subcommand '{_quoted(arguments[1])}'."
        raise CommandRefused(message)
    return command


def _quoted(words: bytes) -> str:
    return words[:_QUOTED_MAX].decode("utf-8", "replace").replace("\r", " ").replace("\n", " ")


def _refuse_waiting(command: Command, arguments: Arguments) -> None:
    """Options stand before STREAMS."""
    for argument in arguments[_OPTIONS_FROM[command.name] :]:
        word = argument.upper()
        if word == b"STREAMS":
            return
        if word == b"BLOCK":
            message = f"ERR {command.name.upper()} BLOCK is not offered here: {_WAITS}."
            raise CommandRefused(message, forbidden=True)


def checked_slot(keys: Arguments) -> int | None:
    """The one slot of all keys, or None when there are none; raises CommandRefused."""
    found: int | None = None
    for key in keys:
        slot = key_slot(key)
        if found is None:
            found = slot
        elif slot != found:
            message = "CROSSSLOT Keys in request don't hash to the same slot"
            raise CommandRefused(message)
    return found


def check_sizes(arguments: Arguments, keys: Arguments) -> None:
    """Keep to the limits of keys and values; raises CommandRefused."""
    longest = max(map(len, arguments))
    if longest <= KEY_BYTES_MAX:
        return
    if longest > VALUE_BYTES_MAX:
        message = f"ERR an argument is longer than {VALUE_BYTES_MAX} bytes"
        raise CommandRefused(message)
    if keys and max(map(len, keys)) > KEY_BYTES_MAX:
        message = f"ERR a key is longer than {KEY_BYTES_MAX} bytes"
        raise CommandRefused(message)
