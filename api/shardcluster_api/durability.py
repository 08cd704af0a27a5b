"""How safe a write is to be, and what became of that.

Law: a write that the master applied but that is less safe than asked is an error that says so
(`"outcome": "applied"`), never a success.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcluster.spec_model import Durability
from shardcluster_api.answers import place_fields
from shardcluster_api.errors import DurabilityNotReached
from shardcluster_api.limits import DURABILITY_WAIT_S

if TYPE_CHECKING:
    from shardcluster_api.router import Reply

__all__ = ["WAITS", "reached"]

_WAIT_MS = int(DURABILITY_WAIT_S * 1000)
WAITS: dict[Durability, tuple[str | int, ...] | None] = {
    Durability.ASYNC: None,
    Durability.REPLICA: ("WAIT", 1, _WAIT_MS),
    Durability.DISK: ("WAITAOF", 1, 0, _WAIT_MS),
}
_ACKED_FIELD = {Durability.REPLICA: "replicas_acked", Durability.DISK: "disks_acked"}


def reached(durability: Durability, reply: Reply, slot: int) -> dict[str, Any]:
    """What WAIT said; raises DurabilityNotReached when that is less than asked."""
    said: dict[str, Any] = {"durability": durability.value}
    if durability is Durability.ASYNC:
        return said
    acked = reply.acked
    said[_ACKED_FIELD[durability]] = acked if isinstance(acked, int) else 0
    if acked != 0 and isinstance(acked, int):
        return said
    where = "a replica" if durability is Durability.REPLICA else "the master's disk"
    why = f" ({acked})" if isinstance(acked, str) else ""
    message = (
        f"{reply.node} applied the write, but {where} did not confirm it within "
        f"{DURABILITY_WAIT_S:g} s{why}."
    )
    raise DurabilityNotReached(message, {**said, **place_fields(slot, reply)})
