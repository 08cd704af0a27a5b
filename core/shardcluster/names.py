"""Names of shards and nodes: `shard-3`, and `shard-3-1` for its node of ordinal 1.

Law: a name says all there is to know about the place, and is read back to the same parts.  The
same words are used by every platform, in the spec, in status, logs and file names.  Numbers are
written without leading zeros, so that a place has one name only.
"""

from __future__ import annotations

import re

__all__ = ["SHARD_NUMBER_MAX", "node_name", "shard_name", "shard_number", "split_node_name"]

# Five digits: `<cluster of 40 characters>-shard-99999` and a hash of 10 still fit a Kubernetes
# label of 63 characters.
SHARD_NUMBER_MAX = 99_999

_NUMBER = r"(0|[1-9][0-9]{0,4})"
_SHARD = re.compile(rf"shard-{_NUMBER}")
_NODE = re.compile(rf"(shard-{_NUMBER})-(0|[1-9][0-9]?)")


def shard_name(number: int) -> str:
    """The name of the shard of that number."""
    return f"shard-{number}"


def shard_number(name: str) -> int:
    """The number in a shard's name; raises ValueError for anything else."""
    match = _SHARD.fullmatch(name)
    if match is None:
        message = f'{name!r} is not a shard\'s name like "shard-3"'
        raise ValueError(message)
    return int(match[1])


def node_name(shard: str, ordinal: int) -> str:
    """The name of the shard's node of that ordinal."""
    return f"{shard}-{ordinal}"


def split_node_name(name: str) -> tuple[str, int]:
    """A node's shard and ordinal; raises ValueError for anything else."""
    match = _NODE.fullmatch(name)
    if match is None:
        message = f'{name!r} is not a node\'s name like "shard-3-1"'
        raise ValueError(message)
    return match[1], int(match[3])
