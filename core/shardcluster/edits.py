"""Changing how many shards there are: the two edits of a spec that people make by one call.

Law: an edit changes which shards are wanted by exactly one name, and nothing else.  A shard in the
middle is taken out by naming it in `retire`; the last one simply falls off.  A name in `retire`
that such a removal leaves above every wanted shard is dropped: it keeps nothing out any more, and
the list would only grow.  A user's own entry above them all stays, since it never did.

Removing is undone by editing the document (or by adding, when the shard was the last one).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shardcluster.names import shard_number, split_node_name
from shardcluster.spec import cross_field_problems
from shardcluster.spec_fields import shown
from shardcluster.spec_limits import SHARDS_MAX

if TYPE_CHECKING:
    from collections.abc import Collection

    from shardcluster.spec import Spec

__all__ = [
    "ALREADY_LEAVING", "INVALID_SPEC", "LAST_SHARD", "TOO_MANY_SHARDS", "UNKNOWN_SHARD",
    "EditError", "add_shard", "remove_shard",
]  # fmt: skip

# Codes of EditError.
ALREADY_LEAVING = "AlreadyLeaving"
INVALID_SPEC = "InvalidSpec"
LAST_SHARD = "LastShard"
TOO_MANY_SHARDS = "TooManyShards"
UNKNOWN_SHARD = "UnknownShard"


class EditError(Exception):
    """The edit is refused; `code` is one CamelCase word, the message a sentence for the caller."""

    def __init__(self, code: str, sentence: str) -> None:
        """Keep both."""
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def add_shard(spec: Spec) -> tuple[Spec, str]:
    """One shard more, and its name; raises EditError (TooManyShards, InvalidSpec)."""
    if spec.shards >= SHARDS_MAX:
        sentence = f"The store has {SHARDS_MAX} shards already; that is the most."
        raise EditError(TOO_MANY_SHARDS, sentence)
    bigger = _checked(replace(spec, shards=spec.shards + 1))
    return bigger, bigger.wanted_shards()[-1]


def remove_shard(spec: Spec, name: str, present: Collection[str]) -> Spec:
    """One shard less: `name` is a shard's, or a node's, whose shard is meant.

    `present` are the shards that stand now, wanted or not.  Raises EditError (UnknownShard,
    AlreadyLeaving, LastShard, InvalidSpec).
    """
    wanted = spec.wanted_shards()
    shard = _shard_meant(spec, name)
    if shard not in wanted:
        if shard in present:
            raise EditError(ALREADY_LEAVING, f"{shard} is being drained and removed already.")
        raise EditError(UNKNOWN_SHARD, f"There is no shard {shown(name)}.")
    if len(wanted) == 1:
        raise EditError(LAST_SHARD, f"{shard} is the last shard: the data would have no place.")
    remaining = tuple(other for other in wanted if other != shard)
    top_before, top = shard_number(wanted[-1]), shard_number(remaining[-1])
    retired = (*spec.retire, shard)
    kept = tuple(other for other in retired if not top < shard_number(other) <= top_before)
    return _checked(replace(spec, shards=spec.shards - 1, retire=kept))


def _shard_meant(spec: Spec, name: str) -> str:
    try:
        shard, ordinal = split_node_name(name)
    except ValueError:
        return name
    if ordinal > spec.replicas_per_shard:
        raise EditError(UNKNOWN_SHARD, f"There is no node {name}.")
    return shard


def _checked(spec: Spec) -> Spec:
    for path, sentence in cross_field_problems(spec):
        raise EditError(INVALID_SPEC, f"{path}: {sentence}.")
    return spec
