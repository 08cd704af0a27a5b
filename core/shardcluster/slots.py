"""Hash slots: which slot a key belongs to, and sets of slots.

The cluster divides all keys over `SLOT_COUNT` slots (Valkey cluster specification, "Key
distribution model").  A set of slots is an `int` used as a bit mask inside `SlotSet`, because
unions, differences and counts over 16,384 slots then cost a few machine words, and because two
sets compare and hash at once.
"""

from __future__ import annotations

import binascii
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SLOT_COUNT", "SlotSet", "key_slot"]

SLOT_COUNT = 16384

_NONE = b"0" * SLOT_COUNT
_RUN = re.compile("1+")


def key_slot(key: bytes) -> int:
    """The slot of `key`, 0..16383.

    CRC16 (XMODEM, which the standard library calls `crc_hqx`) of the key, or of what stands
    between the first `{` and the next `}` when that is not empty (the "hash tag").
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOT_COUNT


@dataclass(frozen=True, slots=True, repr=False)
class SlotSet:
    """An immutable set of slots; bit `n` of `mask` stands for slot `n`."""

    mask: int = 0

    @classmethod
    def of(cls, slots: Iterable[int]) -> SlotSet:
        """The set of the given slot numbers; raises ValueError for one outside 0..16383."""
        mask = 0
        for slot in slots:
            if not 0 <= slot < SLOT_COUNT:
                message = f"slot {slot} is not in 0..{SLOT_COUNT - 1}"
                raise ValueError(message)
            mask |= 1 << slot
        return cls(mask)

    @classmethod
    def full(cls) -> SlotSet:
        """All 16,384 slots."""
        return cls((1 << SLOT_COUNT) - 1)

    @classmethod
    def parse(cls, text: str) -> SlotSet:
        """Read ranges as the engine writes them: `0-5460 5462 10923-16383`.

        Raises ValueError for anything that is not such a list.
        """
        flags = bytearray(_NONE)  # lowest slot first; a mask of 2 KiB for each range would be slow
        for part in text.split():
            first_text, dash, last_text = part.partition("-")
            first = int(first_text)
            last = int(last_text) if dash else first
            if not 0 <= first <= last < SLOT_COUNT:
                message = f"{part!r} is not a range of slots"
                raise ValueError(message)
            flags[first : last + 1] = b"1" * (last + 1 - first)
        return cls(int(flags[::-1], 2))

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The set as inclusive (first, last) pairs, ascending."""
        lowest_first = f"{self.mask:b}"[::-1]
        return tuple((run.start(), run.end() - 1) for run in _RUN.finditer(lowest_first))

    def __str__(self) -> str:
        """The set as the engine writes it; the inverse of `parse`."""
        return _text(self)

    def __repr__(self) -> str:
        """Ranges, for Python refuses to write a mask of 4,932 digits."""
        return f"SlotSet.parse({str(self)!r})"

    def __len__(self) -> int:
        """How many slots are in the set."""
        return self.mask.bit_count()

    def __bool__(self) -> bool:
        """Whether there is any; asked very often, and counting takes long."""
        return self.mask != 0

    def __iter__(self) -> Iterator[int]:
        """The slot numbers, ascending."""
        for first, last in self.ranges():
            yield from range(first, last + 1)

    def __contains__(self, slot: int) -> bool:
        """Whether the slot is in the set."""
        return bool(self.mask >> slot & 1)

    def __or__(self, other: SlotSet) -> SlotSet:
        """Slots in either."""
        return SlotSet(self.mask | other.mask)

    def __and__(self, other: SlotSet) -> SlotSet:
        """Slots in both."""
        return SlotSet(self.mask & other.mask)

    def __sub__(self, other: SlotSet) -> SlotSet:
        """Slots in this one only."""
        return SlotSet(self.mask & ~other.mask)


@functools.lru_cache(maxsize=1024)  # each look at a store at rest tells of the same sets
def _text(slots: SlotSet) -> str:
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in slots.ranges())
