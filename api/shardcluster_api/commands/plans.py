"""Makes parts for single slots of one command, and one answer of their answers.

MGET, MSET, DEL, UNLINK, EXISTS and TOUCH are split when their keys hash to several slots: each
slot's keys still go together, but the whole is not atomic.  Every other command has one slot.
What concerns all shards is in spanning.py.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from shardcluster.slots import SLOT_COUNT, key_slot
from shardcluster_api.commands.table import CommandRefused, Reach, check_sizes, checked_slot
from shardcluster_api.commands.wave import Part
from shardcluster_api.errors import ApiError
from shardcluster_api.limits import KEY_BYTES_MAX
from shardcluster_runtime.wire import packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardcluster_api.commands.table import Command

__all__ = ["PARTS_MAX", "Plan", "first_failure", "packed", "plan", "simple_part"]

PARTS_MAX = 10_000  # slots of one command


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, and how the answers become one."""

    parts: list[Part]
    join: Callable[[list[Part]], Any]

    def joined(self) -> Any:
        """The command's answer, once every part has its own."""
        failure = first_failure(self.parts)
        return self.join(self.parts) if failure is None else failure


def simple_part(command: Command, arguments: list[bytes]) -> Part:
    """`plan` for a command with `key_at`, which nearly all have: a few steps fewer for each."""
    slot = key_slot(arguments[command.key_at])
    whole = packed(arguments)
    if len(whole) > KEY_BYTES_MAX:
        check_sizes(arguments, command.keys(arguments))
    return Part(slot, whole, not command.reads, command.at_master)


def plan(command: Command, arguments: list[bytes]) -> Plan | Part:
    """How to carry out a command that does not concern all shards; raises CommandRefused.

    A plan for one that is split, else its only part.
    """
    keys = command.keys(arguments)
    check_sizes(arguments, keys)
    if command.reach is Reach.KEYS:
        by_slot = _by_slot(command, arguments, keys)
        if len(by_slot) > 1:
            return Plan(*_split(command, arguments, by_slot))
    slot = checked_slot(keys)
    if command.name == "publish":
        slot = key_slot(arguments[1])  # one node for a channel, or its messages change places
    elif slot is None:
        slot = random.randrange(SLOT_COUNT)  # noqa: S311 - any node will do
    return Part(slot, packed(arguments), not command.reads, command.at_master)


def _by_slot(command: Command, arguments: list[bytes], keys: list[bytes]) -> dict[int, list[int]]:
    """Slot -> which of the keys; raises CommandRefused."""
    if command.name == "mset" and len(arguments) % 2 == 0:
        message = "ERR wrong number of arguments for 'mset' command"
        raise CommandRefused(message)
    found: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        slot = key_slot(key)
        if slot in found:
            found[slot].append(index)
        else:
            found[slot] = [index]
    if len(found) > PARTS_MAX:
        message = f"ERR the keys hash to more than {PARTS_MAX} slots; split the command"
        raise CommandRefused(message)
    return found


def _split(
    command: Command, arguments: list[bytes], by_slot: dict[int, list[int]]
) -> tuple[list[Part], Callable[[list[Part]], Any]]:
    name, writing = arguments[0], not command.reads
    parts = []
    for slot, indexes in by_slot.items():
        if command.name == "mset":
            chosen = [arguments[at] for index in indexes for at in (2 * index + 1, 2 * index + 2)]
        else:
            chosen = [arguments[index + 1] for index in indexes]
        whole = packed((name, *chosen))
        parts.append(Part(slot, whole, writing, command.at_master))
    if command.name == "mget":
        return parts, partial(_in_order, list(by_slot.values()))
    return parts, _first if command.name == "mset" else _sum


def _in_order(places: list[list[int]], parts: list[Part]) -> list[Any]:
    found: list[Any] = [None] * sum(map(len, places))
    for part, indexes in zip(parts, places, strict=True):
        for index, value in zip(indexes, part.value, strict=True):
            found[index] = value
    return found


def _sum(parts: list[Part]) -> int:
    return sum(part.value for part in parts)


def _first(parts: list[Part]) -> Any:
    return parts[0].value


def first_failure(parts: list[Part]) -> Any:
    """The error of a command that some of its parts failed, or None.

    A write of which other parts were applied says so: `not_applied` would be a lie.
    """
    failed = next((part for part in parts if part.failed), None)
    if failed is None:
        return None
    error = failed.value
    if not failed.writing or all(part.failed and not _maybe_applied(part) for part in parts):
        return error
    done = sum(not part.failed for part in parts)
    message = f"{error} ({done} of {len(parts)} parts of the command were applied)"
    return ApiError(error.status, "PartlyApplied", message, fields={"outcome": "unknown"})


def _maybe_applied(part: Part) -> bool:
    value = part.value
    return isinstance(value, ApiError) and value.fields.get("outcome") in {"unknown", "applied"}
