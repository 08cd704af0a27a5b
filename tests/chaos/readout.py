"""After the faults: read what stands there, at every copy, until all copies are the same."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis

from shardcluster.slots import SlotSet, key_slot
from tests.chaos.history import Kind, Readout, Value
from tests.chaos.http_once import Http, NotSent, Unanswered
from tests.chaos.look import Seen, why_not_owned
from tests.chaos.reach import Trouble, ask_node, now_ms
from tests.chaos.writers import command_of, value_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from tests.chaos.reach import Reach

__all__ = ["Reading", "read_once", "read_out"]

COPIES_BOUND_MS = 20_000  # for replicas and gateway to show the same as the masters
POLL_S = 0.05
BATCH_KEYS = 500
GATEWAY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at everything has found."""

    values: dict[str, Value]  # read at the slots' owners
    owners: tuple[tuple[str, SlotSet], ...]
    differs: str  # a sentence, when a replica or the gateway shows something else


async def read_out(
    once: Callable[[], Awaitable[Reading]], keys: Sequence[str], sentence: str
) -> Readout:
    """Read all keys at their owners, and compare what replicas and the gateway show.

    `sentence` says why the spec is not reached, if so.
    """
    ends_ms = now_ms() + COPIES_BOUND_MS
    while True:
        found = await once()
        if not (sentence or found.differs) or now_ms() > ends_ms:
            break
        if sentence and len(found.values) == len(keys):
            break
        await asyncio.sleep(POLL_S)
    said = sentence or found.differs
    values = {key: found.values.get(key) for key in keys}
    return Readout(values, found.owners, not said, said)


async def read_once(
    reach: Reach, nodes: Sequence[Seen], keys: Sequence[str], leads: Collection[str]
) -> Reading:
    """One look.  `leads` are the masters that the controller knows."""
    values: dict[str, Value] = {}
    try:
        # One that left the store may claim slots, too: the store's own masters count.
        for node in sorted(nodes, key=lambda node: node.name in leads):
            if node.is_master:
                own = [key for key in keys if key_slot(key.encode()) in node.slots]
                values |= await _values(reach, node, own)
        # A vote that comes late makes two masters for the moment until the old one hears of it.
        differs = why_not_owned(nodes) or await _copies_differ(reach, nodes, values)
    except Trouble as error:
        differs = str(error)
    owners = tuple((node.name, node.slots) for node in nodes if node.slots)
    return Reading(values, owners, differs)


async def _values(reach: Reach, node: Seen, keys: Sequence[str]) -> dict[str, Value]:
    """The keys' values as that node has them; raises Trouble."""
    found: dict[str, Value] = {}
    for start in range(0, len(keys), BATCH_KEYS):
        batch = keys[start : start + BATCH_KEYS]
        commands = [command_of(Kind.READ, key, 0) for key in batch]
        replies = await ask_node(reach, node.record, ("READONLY",), *commands)
        for key, reply in zip(batch, replies[1:], strict=True):
            if isinstance(reply, hiredis.ReplyError):
                message = f"{node.name} answers {key} by {reply}"
                raise Trouble(message)
            found[key] = value_of(key, reply)
    return found


async def _copies_differ(reach: Reach, nodes: Sequence[Seen], values: dict[str, Value]) -> str:
    """Whether a replica or the gateway shows something else than the masters, in a sentence."""
    masters = {node.record.address: node for node in nodes if node.is_master}
    for node in nodes:
        if node.is_master:
            continue
        if node.master not in masters:
            return f"{node.name} follows nobody"
        master = masters[node.master]
        own = [key for key in values if key_slot(key.encode()) in master.slots]
        for key, value in (await _values(reach, node, own)).items():
            if value != values[key]:
                return f"{node.name} has {key} = {value}, {master.name} has {values[key]}"
        sizes = [await ask_node(reach, other.record, ("DBSIZE",)) for other in (node, master)]
        if sizes[0] != sizes[1]:
            return f"{node.name} has {sizes[0][0]} keys, {master.name} {sizes[1][0]}"
    return await _gateway_differs(reach, values)


async def _gateway_differs(reach: Reach, values: dict[str, Value]) -> str:
    """The same through the gateway, read at the masters."""
    keys, http = list(values), Http(reach.gateway)
    try:
        for start in range(0, len(keys), BATCH_KEYS):
            batch = keys[start : start + BATCH_KEYS]
            replies = await _pipeline(http, batch)
            for key, reply in zip(batch, replies, strict=True):
                if "error" in reply:
                    return f"the gateway answers {key} by {reply['error']}"
                if (value := value_of(key, reply["result"])) != values[key]:
                    return f"the gateway reads {key} = {value}, its master has {values[key]}"
    except (NotSent, Unanswered, ValueError) as error:
        return f"the gateway does not answer: {error}"
    finally:
        http.close()
    return ""


async def _pipeline(http: Http, keys: Sequence[str]) -> list[dict[str, Any]]:
    body = json.dumps([command_of(Kind.READ, key, 0) for key in keys]).encode()
    headers = {"X-ShardCluster-Consistency": "strong"}
    status, answer = await http.ask(
        "POST", "/pipeline", body, headers=headers, timeout_s=GATEWAY_TIMEOUT_S
    )
    found = json.loads(answer)
    if status != 200 or not isinstance(found, list):
        message = f"{status} {answer[:200]!r}"
        raise Unanswered(message)
    return found
