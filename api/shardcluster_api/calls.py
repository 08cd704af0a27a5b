"""What the router remembers of one request between its tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardcluster_api.errors import EngineRefused
    from shardcluster_api.links import NodeLink

__all__ = ["Call"]


class Call:
    """One request on its way; the router alone changes it."""

    __slots__ = (
        "asking",
        "commands",
        "deadline_s",
        "packed",
        "pauses",
        "redirects",
        "refusal",
        "slot",
        "target",
        "trouble",
        "wait",
        "writing",
    )

    def __init__(self, slot: int, packed: bytes, deadline_s: float) -> None:
        """`deadline_s` is of the loop's clock, for all tries together."""
        self.slot = slot
        self.packed = packed
        self.commands: tuple[bytes, ...] = (packed,)  # several make up a transaction
        self.deadline_s = deadline_s
        self.target: NodeLink | None = None  # where ASK sent us
        self.asking = False
        self.redirects = 0
        self.pauses = 0
        self.refusal: EngineRefused | None = None  # what is answered when the time is over
        self.trouble = "no owner of the slot is known"
        self.writing = False
        self.wait: tuple[str | int, ...] | None = None  # WAIT or WAITAOF after the write
