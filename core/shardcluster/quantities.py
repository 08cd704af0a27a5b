"""Amounts as Kubernetes writes them (`500m`, `2Gi`, `1e9`), read exactly.

Law: what is accepted here, the Kubernetes API server accepts with the same meaning.  Not all that
it accepts is accepted here: signs and exponents of three digits have no use in a spec, and a
bounded pattern keeps a hostile `1e999999999` from costing anything.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["parse_quantity"]

_PATTERN = re.compile(
    r"([0-9]{1,19}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})"
    r"(?:([eE][+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE]))?"
)
_FACTORS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "k": Fraction(10**3),
    **{letter: Fraction(1000 ** (power + 2)) for power, letter in enumerate("MGTPE")},
    **{f"{letter}i": Fraction(1024 ** (power + 1)) for power, letter in enumerate("KMGTPE")},
}


def parse_quantity(text: str) -> Fraction:
    """The exact amount; raises ValueError for anything that is no quantity."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        message = f"{text!r} is not a quantity"
        raise ValueError(message)
    number, exponent, suffix = match.groups()
    return Fraction(number + (exponent or "")) * _FACTORS.get(suffix or "", Fraction(1))
