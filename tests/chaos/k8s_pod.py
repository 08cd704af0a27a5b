"""The campaign's side of `k8s_inside.py`: starts that program in a pod, and asks it."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.k8s_documents import (
    Document,
    operation_of,
    reading_of,
    seen_of,
    whereabouts,
    written_of,
)
from tests.chaos.k8s_inside import PORT
from tests.chaos.reach import now_ms
from tests.e2e.client_pod import FILES_FOLDER, ClientPod
from tests.e2e.kube import Api, Refused, Store, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardcluster.observed import Address
    from tests.chaos.history import Operation
    from tests.chaos.look import Seen
    from tests.chaos.readout import Reading
    from tests.chaos.taken import Takeover
    from tests.chaos.writers import Written

__all__ = ["InsidePod", "needed_files"]

_ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.chaos.k8s_inside"
NAME = "chaos"
CLOCK_LOOKS = 5


def needed_files(module: str = MODULE) -> dict[str, str]:
    """Path -> text of the module and all of `tests` that it imports, and these, and so on."""
    found: dict[str, str] = {}
    left = [module]
    while left:
        name = left.pop()
        path = f"{name.replace('.', '/')}.py"
        if path not in found and (_ROOT / path).exists():
            found[path] = (_ROOT / path).read_text("utf-8")
            left += _imported(found[path])
    return dict(sorted(found.items()))


def _imported(text: str) -> list[str]:
    """What a module of `tests` takes from others when it runs."""
    return [
        node.module
        for node in ast.parse(text).body  # what only a type checker reads is deeper
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests.")
    ]


def start(store: Store, machine: str) -> InsidePod:
    """Run it on that machine; returns when it answers."""
    pod = ClientPod(
        store,
        NAME,
        ("python3", "-m", MODULE),
        needed_files(),
        machine,
        {"PYTHONPATH": FILES_FOLDER},
    )
    store.kubectl("apply", "-f", "-", text=json.dumps(pod.objects()))
    made = InsidePod(pod)
    until(lambda: made.ask("clock"), f"the answer of {NAME}")
    made.set_clock()
    return made


@dataclass
class InsidePod:
    """The program that runs; each call raises Refused when it can't be reached."""

    pod: ClientPod
    behind_ms: int = 0  # by how much our clock is behind its

    def ask(self, word: str, **asked: object) -> Document:
        """Through the API server."""
        path = f"{self.pod.path}:{PORT}/proxy/{word}"
        return Api.ask("POST", path, asked)

    def set_clock(self) -> None:
        """Of several answers the quickest is the most exact one."""
        found = []
        for _ in range(CLOCK_LOOKS):
            before_ms = now_ms()
            its_ms = self.ask("clock")["now"]
            after_ms = now_ms()
            found.append((after_ms - before_ms, its_ms - (before_ms + after_ms) // 2))
        self.behind_ms = min(found)[1]

    def tell(self, gateway: Address, nodes: Mapping[str, Address]) -> None:
        """Where they are."""
        self.ask("tell", **whereabouts(gateway, nodes))

    def look(self, gateway: Address, nodes: Mapping[str, Address]) -> list[Seen]:
        """The same, and what the nodes say."""
        found = self.ask("look", **whereabouts(gateway, nodes))
        return [seen_of(node) for node in found["nodes"]]

    def begin(self, keys: Sequence[str]) -> None:
        """Clients write."""
        self.ask("begin", keys=keys)

    def end(self) -> tuple[Written, list[Takeover]]:
        """They stop."""
        return written_of(self.ask("end"), self.behind_ms)

    def ballast(self, count: int) -> list[Operation]:
        """Old data."""
        return [
            operation_of(item, self.behind_ms)
            for item in self.ask("ballast", count=count)["operations"]
        ]

    def read(self, keys: Sequence[str], leads: Sequence[str]) -> Reading:
        """What stands there."""
        return reading_of(self.ask("read", keys=keys, leads=leads))

    def forget(self, keys: Sequence[str]) -> None:
        """Delete them."""
        self.ask("forget", keys=keys)

    def views(self) -> Document:
        """Every node's CLUSTER NODES."""
        try:
            return self.ask("views")
        except Refused as error:
            return {"refused": str(error)}
