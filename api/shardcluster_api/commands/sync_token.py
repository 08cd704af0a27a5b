"""Read your writes: a token that says which slots its bearer has written.

Reads with the token go to the masters of those slots, whichever gateway gets them; so they see the
writes before, also after a slot has moved or its master was replaced.  Nothing is kept anywhere.
The token has a bit for every 16 slots, so it never grows over a few hundred characters, and a
client that has written everywhere reads from masters everywhere.

Law: a token that can't be read means every slot: slower, never stale.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from shardcluster.slots import SLOT_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVERY_SLOT", "is_seen", "parse", "render", "with_slots"]

_SLOTS_A_BIT = 16
_BITS = SLOT_COUNT // _SLOTS_A_BIT
_VERSION = "1."
EVERY_SLOT = (1 << _BITS) - 1


def is_seen(seen: int, slot: int) -> bool:
    """Whether a read of the slot must go to its master."""
    return bool(seen >> slot // _SLOTS_A_BIT & 1) if seen else False


def with_slots(seen: int, slots: Iterable[int]) -> int:
    """`seen`, and these slots."""
    for slot in slots:
        seen |= 1 << slot // _SLOTS_A_BIT
    return seen


def parse(token: bytes) -> int:
    """What the token says; an empty one is that of a client that has written nothing."""
    if not token:
        return 0
    try:
        version, _, packed = token.decode("ascii").partition(".")
        if f"{version}." != _VERSION:
            return EVERY_SLOT
        found = base64.b64decode(packed, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return EVERY_SLOT
    return int.from_bytes(found, "little") & EVERY_SLOT


def render(seen: int) -> str:
    """The token."""
    packed = seen.to_bytes(_BITS // 8, "little").rstrip(b"\0")
    return _VERSION + base64.urlsafe_b64encode(packed).decode("ascii")
