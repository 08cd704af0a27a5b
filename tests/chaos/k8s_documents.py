"""What the campaign and its pod in the cluster tell each other, as JSON.  Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from shardcluster.observed import Address
from shardcluster.slots import SlotSet
from tests.chaos.history import Kind, Operation, Outcome, Value
from tests.chaos.look import Seen
from tests.chaos.reach import NodeRecord
from tests.chaos.readout import Reading
from tests.chaos.taken import Takeover
from tests.chaos.writers import Written

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Document", "operation_document", "operation_of", "reading_document", "reading_of",
    "seen_document", "seen_of", "whereabouts", "written_document", "written_of",
]  # fmt: skip

Document = dict[str, Any]


def whereabouts(gateway: Address, nodes: Mapping[str, Address]) -> Document:
    """Where everything is."""
    return {
        "gateway": _address_document(gateway),
        "nodes": {name: _address_document(address) for name, address in nodes.items()},
    }


def _value_of(found: Any) -> Value:
    return tuple(found) if isinstance(found, list) else found


def operation_document(operation: Operation) -> list[Any]:
    """In one line: there are many."""
    return [
        operation.number, operation.key, operation.kind.value, operation.outcome.value,
        operation.began_ms, operation.ended_ms, operation.seen,
    ]  # fmt: skip


def operation_of(found: list[Any], behind_ms: int) -> Operation:
    """Its times on the campaign's clock, which is behind the pod's by so much."""
    number, key, kind, outcome, began_ms, ended_ms, seen = found
    return Operation(
        number, key, Kind(kind), Outcome(outcome), began_ms - behind_ms, ended_ms - behind_ms,
        _value_of(seen),
    )  # fmt: skip


def written_document(written: Written, takeovers: list[Takeover]) -> Document:
    """What a round's clients have done and seen."""
    return {
        "operations": [operation_document(operation) for operation in written.operations],
        "throughGateway": sorted(written.through_gateway),
        "refusals": written.refusals,
        "statuses": {str(status): count for status, count in written.statuses.items()},
        "takeovers": [[one.shard, one.since_ms, one.until_ms] for one in takeovers],
    }


def written_of(found: Document, behind_ms: int) -> tuple[Written, list[Takeover]]:
    """The inverse, on the campaign's clock."""
    written = Written(
        [operation_of(operation, behind_ms) for operation in found["operations"]],
        set(found["throughGateway"]),
        Counter(found["refusals"]),
        Counter({int(status): count for status, count in found["statuses"].items()}),
    )
    return written, [
        Takeover(shard, since_ms - behind_ms, until_ms - behind_ms)
        for shard, since_ms, until_ms in found["takeovers"]
    ]


def _address_of(found: list[Any]) -> Address:
    host, port = found
    return Address(host, port)


def _address_document(address: Address) -> list[Any]:
    return [address.host, address.port]


def seen_document(seen: Seen) -> Document:
    """A node that answered."""
    return {
        "name": seen.name,
        "address": _address_document(seen.record.address),
        "isMaster": seen.is_master,
        "master": _address_document(seen.master),
        "linkUp": seen.link_up,
        "onDisk": seen.on_disk,
        "slots": str(seen.slots),
        "openSlots": str(seen.open_slots),
    }


def seen_of(found: Document) -> Seen:
    """The inverse."""
    return Seen(
        NodeRecord(found["name"], _address_of(found["address"])),
        found["isMaster"],
        _address_of(found["master"]),
        found["linkUp"],
        found["onDisk"],
        SlotSet.parse(found["slots"]),
        SlotSet.parse(found["openSlots"]),
    )


def reading_document(reading: Reading) -> Document:
    """What stands there."""
    owners = [[name, str(slots)] for name, slots in reading.owners]
    return {"values": reading.values, "owners": owners, "differs": reading.differs}


def reading_of(found: Document) -> Reading:
    """The inverse."""
    return Reading(
        {key: _value_of(value) for key, value in found["values"].items()},
        tuple((name, SlotSet.parse(slots)) for name, slots in found["owners"]),
        found["differs"],
    )
