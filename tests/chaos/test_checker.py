"""Each promise of the checker with a history that keeps it and one that breaks it."""

from __future__ import annotations

from shardcluster.slots import SlotSet
from tests.chaos.checker import Rule, check
from tests.chaos.history import (
    Cause,
    Excuse,
    History,
    Kind,
    Operation,
    Outcome,
    Readout,
    Value,
)

OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN
ALL = (("shard-0-0", SlotSet.full()),)


def broken(
    key: str,
    asked: list[tuple[Kind, Outcome]],
    final: Value,
    *excuses: Excuse,
    late_ms: int = 0,
) -> set[Rule]:
    """The rules that are broken when those requests, numbered from 1, lead to `final`."""
    operations = [
        Operation(number, key, kind, outcome, number * 10, number * 10 + 5)
        for number, (kind, outcome) in enumerate(asked, start=1)
    ]
    history = History(operations, list(excuses))
    found = check(history, Readout({key: final}, ALL, spec_reached=True), late_ms=late_ms)
    return {violation.rule for violation in found}


def registers(*outcomes: Outcome) -> list[tuple[Kind, Outcome]]:
    return [(Kind.SET, outcome) for outcome in outcomes]


def read(key: str, seen: Value, *before: tuple[Kind, Outcome]) -> set[Rule]:
    """Rules broken by a read after those writes."""
    operations = [
        Operation(number, key, kind, outcome, number * 10, number * 10 + 5)
        for number, (kind, outcome) in enumerate(before, start=1)
    ]
    operations.append(Operation(99, key, Kind.READ, OK, 500, 505, seen))
    count = len(before)
    final: dict[str, Value] = {"register": 1, "counter": count, "list": tuple(range(1, count + 1))}
    readout = Readout({key: final[key.partition("-")[0]]}, ALL, spec_reached=True)
    return {violation.rule for violation in check(History(operations), readout)}


def test_the_last_acknowledged_value_of_a_register_is_there() -> None:
    """An older one in its place, or none, is a loss."""
    assert not broken("register-0", registers(OK, OK), 2)
    assert broken("register-0", registers(OK, OK), 1) == {Rule.LOST}
    assert broken("register-0", registers(OK, OK), None) == {Rule.LOST}


def test_a_write_of_unknown_fate_may_be_there_or_not() -> None:
    """In both cases nothing is broken; an acknowledged write after it ends the doubt."""
    assert not broken("register-0", registers(OK, UNKNOWN), 2)
    assert not broken("register-0", registers(OK, UNKNOWN), 1)
    assert broken("register-0", registers(UNKNOWN, OK), 1) == {Rule.LOST}
    assert not broken("register-0", registers(UNKNOWN, OK), 1, late_ms=100)


def test_a_refused_write_has_no_effect() -> None:
    """Its value was never written, nor one that nobody asked for."""
    assert not broken("register-0", registers(OK, FAILED), 1)
    assert broken("register-0", registers(OK, FAILED), 2) == {Rule.INVENTED}
    assert broken("register-0", registers(OK), 77) == {Rule.INVENTED}


def test_a_deleted_value_stays_away() -> None:
    """When it comes back it was resurrected."""
    asked = [(Kind.SET, OK), (Kind.DELETE, OK)]
    assert not broken("register-0", asked, None)
    assert broken("register-0", asked, 1) == {Rule.RESURRECTED}


def test_an_excused_write_may_be_missing_and_no_other() -> None:
    """By its number, or by its key and the time of its acknowledgement."""
    by_number = Excuse(Cause.FORCED, frozenset({2}))
    assert not broken("register-0", registers(OK, OK), 1, by_number)
    assert broken("register-0", registers(OK, OK), None, by_number) == {Rule.LOST}
    by_time = Excuse(Cause.FORCED, keys=frozenset({"list-0"}), since_ms=20, until_ms=30)
    appended = [(Kind.APPEND, OK), (Kind.APPEND, OK)]
    assert not broken("list-0", appended, (1,), by_time)
    assert broken("list-0", appended, (2,), by_time) == {Rule.LOST}
    both = Excuse(Cause.LAST_COPY, frozenset({1, 2}))
    assert not broken("register-0", registers(OK, OK), None, both)


def test_a_counter_is_exact_within_what_is_unknown() -> None:
    """Less is a loss, more was counted twice."""
    asked = [(Kind.INCREMENT, OK), (Kind.INCREMENT, UNKNOWN), (Kind.INCREMENT, FAILED)]
    assert not broken("counter-0", asked, 1)
    assert not broken("counter-0", asked, 2)
    assert broken("counter-0", asked, 0) == {Rule.LOST}
    assert broken("counter-0", asked, 3) == {Rule.TWICE}
    assert not broken("counter-0", asked, 0, Excuse(Cause.FORCED, frozenset({1})))


def test_a_list_has_each_element_once_in_its_order() -> None:
    """Acknowledged ones are there, refused ones and strangers are not."""
    asked = [(Kind.APPEND, OK), (Kind.APPEND, UNKNOWN), (Kind.APPEND, FAILED), (Kind.APPEND, OK)]
    assert not broken("list-0", asked, (1, 2, 4))
    assert not broken("list-0", asked, (1, 4))
    assert broken("list-0", asked, (1,)) == {Rule.LOST}
    assert broken("list-0", asked, (1, 2, 4, 2)) == {Rule.TWICE}
    assert broken("list-0", asked, (1, 3, 4)) == {Rule.INVENTED}
    assert broken("list-0", asked, (4, 1)) == {Rule.ORDER}


def test_what_is_read_on_the_way_was_written() -> None:
    """Also while faults are in force."""
    assert not read("register-0", 1, (Kind.SET, OK))
    assert Rule.INVENTED in read("register-0", 9, (Kind.SET, OK))
    assert not read("list-0", (1,), (Kind.APPEND, OK))
    assert Rule.INVENTED in read("list-0", (1, 9), (Kind.APPEND, OK))
    assert not read("counter-0", 1, (Kind.INCREMENT, OK))
    assert Rule.TWICE in read("counter-0", 2, (Kind.INCREMENT, OK))


def test_every_slot_has_exactly_one_owner() -> None:
    """None and two are told apart."""
    half = SlotSet.of(range(8192))
    for owners, sentence in (
        ((("a", half),), "nobody owns them"),
        ((("a", SlotSet.full()), ("b", half)), "a, b own them"),
    ):
        found = check(History(), Readout({}, owners, spec_reached=True))
        assert [(item.rule, item.sentence) for item in found] == [(Rule.OWNERS, sentence)]


def test_the_spec_is_reached() -> None:
    """Else the controller's last sentence says what it waits for."""
    found = check(History(), Readout({}, ALL, spec_reached=False, sentence="shard-0 waits."))
    assert [str(item) for item in found] == ["the spec is not reached: the store: shard-0 waits."]
