"""When replicas took over, read from the nodes' own logs: only these tell the moment."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

from tests.chaos.taken import Takeover

if TYPE_CHECKING:
    from tests.chaos.process_store import ProcessStore

__all__ = ["failovers"]

_TOOK_OVER = re.compile(
    r"^\d+:\w (\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) \* Setting myself to primary", re.MULTILINE
)


def failovers(store: ProcessStore) -> list[Takeover]:
    """Each, on the campaign's clock."""
    behind_s = time.time() - time.monotonic()
    found = []
    for log in sorted(store.state_folder.glob("nodes/*/valkey.log")):
        shard = log.parent.name.rpartition("-")[0]
        for moment in _TOOK_OVER.findall(log.read_text(errors="replace")):
            at = datetime.strptime(moment, "%d %b %Y %H:%M:%S.%f").astimezone()
            at_ms = int((at.timestamp() - behind_s) * 1000)
            found.append(Takeover(shard, at_ms, at_ms))
    return found
