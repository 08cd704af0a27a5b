"""Reading an untrusted document field by field, and telling *everything* that is wrong with it.

Law: reading never raises and never stops at the first problem: a wrong field is noted with its
path and stands in as its default, so that one answer names all mistakes.  A field that nobody
asked for is a mistake too (a typing error in `replicasPerShard` must not silently give the
default).  `null` is the same as absent, as for Kubernetes; a bool is no number, and neither are
NaN and infinity.

The document may come from YAML: keys may be anything, mappings may contain themselves, strings
may hold lone surrogates, numbers may have a million digits.  What is shown of a value is short.
"""

from __future__ import annotations

import difflib
import enum
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from shardcluster.quantities import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

__all__ = ["Fields", "Problems", "SpecError", "shown"]

PROBLEMS_MAX = 100  # noted; more of them help nobody
SHOWN_CHARS_MAX = 60
PLAIN_KEY_CHARS_MAX = 63
FREE_DEPTH_MAX = 20  # of a free mapping; Kubernetes' own affinity terms nest about 10 deep
FREE_VALUES_MAX = 5_000  # in a free mapping, aliases counted each time they stand somewhere
QUANTITY_MAX = 2**63 - 1  # the Kubernetes API server's own limit

_Choice = TypeVar("_Choice", bound=enum.StrEnum)
_PLAIN_KEY = re.compile(rf"[A-Za-z0-9_.\[\]-]{{1,{PLAIN_KEY_CHARS_MAX}}}")


class SpecError(ValueError):
    """A document is no valid ShardCluster; `problems` has every (path, sentence)."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        """Keep the problems; the message is all of them in one line."""
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{path}: {text}" for path, text in self.problems) + ".")


class Problems:
    """What was found wrong so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.found: list[tuple[str, str]] = []

    @property
    def full(self) -> bool:
        """Whether no more are noted."""
        return len(self.found) >= PROBLEMS_MAX

    def note(self, path: str, sentence: str) -> None:
        """Remember one."""
        if not self.full:
            self.found.append((path, sentence))

    def raise_if_any(self) -> None:
        """Raise SpecError with all of them."""
        if self.found:
            raise SpecError(self.found)


class Fields:
    """One mapping of the document; what is not read before `finish` is an unknown field."""

    def __init__(self, value: object, path: str, problems: Problems) -> None:
        """A value that is no mapping is noted and reads as an empty one."""
        self.path = path
        self._problems = problems
        self._values: Mapping[object, object] = {}
        self._known: dict[str, None] = {}
        if isinstance(value, Mapping):
            self._values = value
        elif value is not None:
            problems.note(path or "document", f"must be a mapping, not {shown(value)}")

    def path_of(self, name: object) -> str:
        """The path of a field of this mapping."""
        plain = name if isinstance(name, str) and _PLAIN_KEY.fullmatch(name) else shown(name)
        return f"{self.path}.{plain}" if self.path else str(plain)

    def note(self, name: object, sentence: str) -> None:
        """Say what is wrong with a field, or with the name of one."""
        self._problems.note(self.path_of(name), sentence)

    def take(self, name: str) -> object:
        """The field's raw value, None if absent; the name counts as known from now on."""
        self._known[name] = None
        return self._values.get(name)

    def entries(self) -> Iterator[tuple[object, object]]:
        """Every field that is not null; for a mapping with free keys, so `finish` is not called."""
        return ((key, value) for key, value in self._values.items() if value is not None)

    def nested(self, name: str) -> Fields:
        """The mapping in a field; empty if absent."""
        return Fields(self.take(name), self.path_of(name), self._problems)

    def optional(self, name: str) -> Fields | None:
        """The mapping in a field; None if absent or wrong."""
        nested = self.nested(name)
        return nested if isinstance(self.take(name), Mapping) else None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.note(name, f"must be a whole number from {low} to {high}, not {shown(value)}")
        return default

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        value = self.take(name)
        if value is None:
            return default
        # NaN fails every comparison, infinity the range.
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        self.note(name, f"must be a number from {low:g} to {high:g}, not {shown(value)}")
        return default

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.take(name)
        if isinstance(value, bool):
            return value
        if value is not None:
            self.note(name, f"must be true or false, not {shown(value)}")
        return default

    def choice(self, name: str, default: _Choice) -> _Choice:
        """One of the words of the default's enum."""
        value = self.take(name)
        words = {member.value: member for member in type(default)}
        if value is None:
            return default
        if isinstance(value, str) and value in words:
            return words[value]
        self.note(name, f"must be one of {', '.join(words)}, not {shown(value)}")
        return default

    def text(self, name: str, pattern: re.Pattern[str], chars_max: int, meaning: str) -> str | None:
        """A string that matches; None if absent or wrong."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, str) and len(value) <= chars_max and pattern.fullmatch(value):
            return value
        self.note(name, f"must be {meaning}, not {shown(value)}")
        return None

    def quantity(self, name: str, least: str, example: str) -> str | None:
        """A Kubernetes quantity of at least `least`, as text; None if absent or wrong."""
        value = self.take(name)
        if value is None:
            return None
        amount = _amount(value)
        if amount is None or amount > QUANTITY_MAX:
            self.note(name, f'must be a quantity like "{example}", not {shown(value)}')
            return None
        if amount < parse_quantity(least):
            self.note(name, f'must be at least {least} (like "{example}"), not {shown(value)}')
            return None
        return str(value)

    def free(self, name: str) -> str:
        """A mapping of any JSON values, as canonical JSON text; `{}` if absent or wrong."""
        value = self.take(name)
        if value is None:
            return "{}"
        if not isinstance(value, Mapping):
            self.note(name, f"must be a mapping, not {shown(value)}")
            return "{}"
        wrong = _why_not_json(value)
        if wrong:
            self.note(name, wrong)
            return "{}"
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)

    def finish(self, elsewhere: Mapping[str, str] | None = None) -> None:
        """Note every field that was not read; `elsewhere` says where a name belongs instead."""
        for key in self._values:
            if self._problems.full:
                return
            if not isinstance(key, str) or key not in self._known:
                hint = self._hint(key, elsewhere or {}) if isinstance(key, str) else ""
                self._problems.note(self.path_of(key), f"unknown field{hint}")

    def _hint(self, key: str, elsewhere: Mapping[str, str]) -> str:
        if key in elsewhere:
            return f"; it belongs at {elsewhere[key]}"
        if len(key) > PLAIN_KEY_CHARS_MAX:
            return ""
        lower = {name.lower(): name for name in self._known}
        # A beginning counts ("replicas"), because the rest of the name is what people forget.
        alike = [name for name in lower if name.startswith(key.lower())] or (
            difflib.get_close_matches(key.lower(), lower, n=1)
        )
        return f"; did you mean {lower[alike[0]]}?" if alike else ""


def shown(value: object) -> str:
    """A value as it may stand in a sentence: JSON, short, and safe whatever it is."""
    if isinstance(value, str):
        whole = json.dumps(value[: SHOWN_CHARS_MAX + 1])
        return whole if len(whole) <= SHOWN_CHARS_MAX + 2 else f'{whole[:SHOWN_CHARS_MAX]}…"'
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        # Python refuses to write integers of thousands of digits.
        return str(value) if value.bit_length() <= QUANTITY_MAX.bit_length() else "a huge number"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _amount(value: object) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int) and value.bit_length() > QUANTITY_MAX.bit_length():
        return None
    try:
        return parse_quantity(str(value))
    except ValueError:
        return None


def _why_not_json(root: object) -> str:
    """What keeps a value from being plain JSON of a sane size; empty if nothing does."""
    seen = 0
    pending: list[tuple[object, int]] = [(root, 0)]
    while pending:
        value, depth = pending.pop()
        seen += 1
        if depth > FREE_DEPTH_MAX or seen > FREE_VALUES_MAX:
            return f"must nest at most {FREE_DEPTH_MAX} deep and hold {FREE_VALUES_MAX} values"
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                return "must have strings as keys"
            pending.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple):
            pending.extend((item, depth + 1) for item in value)
        elif isinstance(value, float) and not abs(value) < float("inf"):
            return f"must not hold {value}"
        elif value is not None and not isinstance(value, str | int | float):
            return f"must hold JSON values only, not {shown(value)}"
        elif isinstance(value, int) and value.bit_length() > QUANTITY_MAX.bit_length():
            return "must not hold a huge number"
    return ""
