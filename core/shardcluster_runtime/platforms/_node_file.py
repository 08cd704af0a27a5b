"""The file in which the engine keeps what a node knows of the cluster, mended before a start.

Law: only a node that leads its shard no more is mended, and only of slots that it was importing.
Such a mark outlives the node's reign in its file.  Valkey 8 and later lets an importing node take a
slot by itself, under a new and highest epoch, once the slot's source says that it has it no more.
The heir has finished the move meanwhile; so the source says just that, and if its word comes
before the heir's, the old master wins all slots of the shard back, and what the heir has answered
since is lost.  A node that still leads needs its marks: without them it would delete, at its start,
the keys that have come to it already.

A node that was reset holds nothing: the engine refuses that to a master with keys, and empties the
memory of a replica.  But what a replica had copied stays in its append-only file until `FLUSHALL`.
That file is put aside, not deleted: a node that lost this one looks the same.

Some engines (Valkey before the end of its issue 2171) hold a file for corrupt in which a replica
has another shard id than the master it follows, and never start again.  They write such files
themselves, about nodes that changed whom they follow as others were away.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["NODES_FILE", "agree_on_shards", "forget_imports", "set_aside", "was_reset"]

NODES_FILE = "nodes.conf"
ASIDE = "set-aside"  # beside the node's data
FIELDS = 8  # of a line; slots follow
HOPS_MAX = 16  # a replica may follow a node that has become one, too
_IMPORTING = re.compile(rb" \[[0-9]+-<-[0-9a-f]{40}\]")
_SHARD_ID = re.compile(rb"shard-id=[0-9a-f]+")


def was_reset(path: Path) -> bool:
    """Whether the file is whole, and that of a master without slots that knows nobody."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    if len(lines) != 2 or not lines[1].startswith("vars "):
        return False
    fields = lines[0].split()
    return len(fields) == FIELDS and fields[2] == "myself,master"


def set_aside(data: Path) -> None:
    """Move all but that file out of the node's folder, beside it; what was there before goes."""
    aside = data.with_name(ASIDE)
    moving = [entry for entry in data.iterdir() if entry.name != NODES_FILE]
    if not moving:
        return
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(mode=0o700)
    for entry in moving:
        entry.replace(aside / entry.name)


def forget_imports(path: Path) -> None:
    """Take the marks of slots that are being imported out of the file, if there is one."""
    _mend(path, lambda content: _IMPORTING.sub(b"", content))


def agree_on_shards(path: Path) -> None:
    """Give each replica in the file the shard id of the master that it follows."""
    _mend(path, _with_one_id_a_shard)


def _mend(path: Path, mended_of: Callable[[bytes], bytes]) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    mended = mended_of(content)
    if mended != content:
        scratch = path.with_name(f"{path.name}.new")
        scratch.write_bytes(mended)
        scratch.replace(path)


def _with_one_id_a_shard(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    nodes = [fields for line in lines if len(fields := line.split()) >= FIELDS]
    follows = {fields[0]: fields[3] for fields in nodes}
    ids = {fields[0]: found.group() for fields in nodes if (found := _SHARD_ID.search(fields[1]))}
    mended = []
    for line in lines:
        own = top = line.split(b" ", 1)[0]
        for _ in range(HOPS_MAX):
            top = follows[top] if follows.get(top) in ids else top
        mended.append(_SHARD_ID.sub(ids[top], line, count=1) if own in ids else line)
    return b"".join(mended)
