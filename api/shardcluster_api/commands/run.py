"""Carries out a list of commands for one request: what is refused, what goes together, the order.

Law: a command that is refused changes nothing and does not stop the others; answers stand in the
commands' order; the commands of one slot take effect in theirs.  One that concerns all shards
starts when those before it are done, and those after it wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardcluster.slots import key_slot
from shardcluster_api.access import Role, refusal_of_role
from shardcluster_api.commands.many import is_plain, read_many
from shardcluster_api.commands.plans import Plan, plan, simple_part
from shardcluster_api.commands.spanning import on_every_shard
from shardcluster_api.commands.sync_token import EVERY_SLOT, with_slots
from shardcluster_api.commands.table import (
    CommandRefused,
    Reach,
    check_sizes,
    checked_slot,
    find,
)
from shardcluster_api.commands.wave import Part, carry_out
from shardcluster_api.durability import WAITS, reached
from shardcluster_api.errors import ApiError, TooBusy
from shardcluster_api.limits import BATCH_ANSWER_BYTES_MAX, BATCH_OPERATIONS_MAX
from shardcluster_runtime.wire import packed

if TYPE_CHECKING:
    from shardcluster_api.commands.wave import How
    from shardcluster_api.gateway import Gateway

__all__ = ["Done", "read_all", "run", "run_transaction"]

_PLAIN = frozenset({bytes, type(None)})
MANY = 2  # reads, from which on they are sent and gathered in one go

Arguments = list[bytes]


@dataclass(slots=True)
class Done:
    """The answers, each a reply or an `ApiError` (EngineRefused with the engine's own words)."""

    values: list[Any]
    answer_bytes: int = 0
    written: int = 0  # slots, as `sync_token` counts them
    parts: list[Part] = field(default_factory=list)  # of the last ones, which say where it was


async def run(gateway: Gateway, commands: list[Arguments], role: Role, how: How) -> Done:
    """Carry out the commands; raises TooBusy before anything is sent, if at all."""
    reads, router = role >= Role.READ, gateway.router
    if reads and (keys := _keys_read(commands)) and is_plain(router, keys, how):
        return await read_all(gateway, keys)
    if reads and (keys := _keys_of_mget(commands)) and is_plain(router, keys, how):
        values = (await read_all(gateway, keys)).values
        if _PLAIN.issuperset(map(type, values)):  # what is no string is null to MGET
            return Done([values])
    done, saw = Done([None] * len(commands)), router.hot_keys.saw
    waiting: list[tuple[int, Part | Plan]] = []
    with gateway.admitted(len(commands)):
        for index, arguments in enumerate(commands):
            try:
                command = find(arguments)
                if role < command.role:
                    done.values[index] = refusal_of_role(role, command.role)
                elif command.key_at:
                    waiting.append((index, simple_part(command, arguments)))
                    saw(arguments[command.key_at])
                elif command.reach is Reach.SHARDS:
                    check_sizes(arguments, [])
                    await _flush(gateway, waiting, how, done)
                    value = await on_every_shard(gateway.router, command, arguments, how)
                    done.values[index] = value
                    if not command.reads:
                        done.written = EVERY_SLOT
                else:
                    waiting.append((index, plan(command, arguments)))
                    for key in command.keys(arguments):
                        saw(key)
            except ApiError as error:
                done.values[index] = error
        await _flush(gateway, waiting, how, done)
    return done


async def read_all(gateway: Gateway, keys: list[bytes]) -> Done:
    """GET each of the keys, which `is_plain`; raises TooBusy before anything is sent."""
    with gateway.admitted(len(keys)):
        gateway.router.hot_keys.saw_all(keys)
        return Done(_bounded((await read_many(gateway.router, keys)).values))


def _keys_read(commands: list[Arguments]) -> list[bytes]:
    """The keys, when there are several commands and each is a GET; else nothing."""
    if len(commands) < MANY or not all(
        len(one) == 2 and (one[0] == b"GET" or one[0] == b"get") for one in commands
    ):
        return []
    return [key for _, key in commands]


def _keys_of_mget(commands: list[Arguments]) -> list[bytes]:
    """The keys, when the only command is an MGET of several slots; else nothing."""
    if len(commands) != 1 or not MANY < len(commands[0]) <= BATCH_OPERATIONS_MAX:
        return []
    name, *keys = commands[0]
    several = name.lower() == b"mget" and key_slot(keys[0]) != key_slot(keys[1])
    return keys if several else []


def _bounded(values: list[Any]) -> list[Any]:
    """The values; those for which there is no room any more become errors."""
    left = BATCH_ANSWER_BYTES_MAX
    sizes = [len(value) if type(value) is bytes else 0 for value in values]
    if sum(sizes) <= left:
        return values
    found: list[Any] = []
    for value, size in zip(values, sizes, strict=True):
        left -= size
        found.append(value if left >= 0 else _too_large(applied=False))
    return found


async def _flush(
    gateway: Gateway, waiting: list[tuple[int, Part | Plan]], how: How, done: Done
) -> None:
    parts: list[Part] = []
    for _, planned in waiting:
        if isinstance(planned, Part):
            parts.append(planned)
        else:
            parts += planned.parts
    more = len(parts) - len(waiting)  # one a command is admitted already
    try:
        with gateway.admitted(max(0, more)):
            await carry_out(gateway.router, parts, how)
    except TooBusy as busy:
        for part in parts:
            part.value = busy
    for index, planned in waiting:
        value = planned.value if isinstance(planned, Part) else planned.joined()
        done.answer_bytes += len(value) if type(value) is bytes else _size(value)
        if done.answer_bytes > BATCH_ANSWER_BYTES_MAX:
            value = _too_large(applied=_writes(planned))
        done.values[index] = value
    done.written = with_slots(done.written, {part.slot for part in parts if part.writing})
    done.parts = parts
    waiting.clear()


def _writes(planned: Part | Plan) -> bool:
    return planned.writing if isinstance(planned, Part) else planned.parts[0].writing


def _size(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list) else 0


def _too_large(*, applied: bool) -> ApiError:
    message = f"The answers to this request are longer than {BATCH_ANSWER_BYTES_MAX} bytes."
    fields = {"outcome": "applied"} if applied else {}
    return ApiError(413, "TooLarge", message, fields=fields)


async def run_transaction(
    gateway: Gateway, commands: list[Arguments], role: Role, how: How
) -> Done:
    """All commands by MULTI and EXEC on the master of their one slot, or none.

    Raises ApiError, and then nothing was carried out unless the error says so.
    """
    keys: list[bytes] = []
    for arguments in commands:
        command = find(arguments)
        refusal = refusal_of_role(role, command.role)
        if refusal is not None:
            raise refusal
        if command.reach is Reach.SHARDS:
            words = command.name.upper().replace("|", " ")
            message = f"ERR {words} concerns all shards, so it can't be part of a transaction"
            raise CommandRefused(message)
        mine = command.keys(arguments)
        check_sizes(arguments, mine)
        keys += mine
    if not commands:
        message = "ERR a transaction needs a command"
        raise CommandRefused(message)
    slot = checked_slot(keys) or 0
    with gateway.admitted(len(commands)):
        reply = await gateway.router.transaction(
            slot, tuple(map(packed, commands)), WAITS[how.durability]
        )
    reached(how.durability, reply, slot)
    return Done(list(reply.value), with_slots(0, (slot,)))
