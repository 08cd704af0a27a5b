"""What a process that stays in the terminal tells: the welcome, and events as they come."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardcluster_runtime.cli.common import DEFAULT_FOLDER
from shardcluster_runtime.cli.tables import event_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from shardcluster_runtime.control import ControllerLike

__all__ = ["EventPrinter", "line_printer", "own_command", "shown_path", "welcome"]

PROGRAM = "shardctl"
WATCH_WAIT_S = 30.0  # how long one look at the state may wait for news
REPEAT_AFTER_S = 5.0  # a repeated event is printed again after so long

Document = dict[str, Any]


class EventPrinter:
    """Prints each event once, one line each, as they come."""

    def __init__(self, console: Console, state: Document) -> None:
        """What `state` tells already is not printed."""
        self._say = line_printer(console)
        self._version: int = state["version"]
        self._printed_s: dict[tuple[str, str], float] = {}
        self._told = {_identity(event) for event in state["events"]}

    async def follow(self, controller: ControllerLike) -> None:
        """Print until cancelled."""
        while True:
            state = await controller.wait_state(self._version, WATCH_WAIT_S)
            self._version = state["version"]
            self.show(state["events"])

    def show(self, events: Sequence[Document]) -> None:
        """Print those of `events` that are new; a repeated one not more than every few seconds."""
        now_s = time.monotonic()
        for event in events:
            if _identity(event) in self._told:
                continue
            words = (event["reason"], event["message"])
            last_s = self._printed_s.get(words)
            if last_s is None or now_s - last_s > REPEAT_AFTER_S:
                self._printed_s[words] = now_s
                self._say(event_line(event))
        self._told = {_identity(event) for event in events}
        kept = {(event["reason"], event["message"]) for event in events}
        self._printed_s = {words: at for words, at in self._printed_s.items() if words in kept}


def _identity(event: Document) -> tuple[str, str, str]:
    return event["at"], event["reason"], event["message"]


def line_printer(console: Console) -> Callable[[str], None]:
    """Print text as it is: no markup read in it, no line broken."""
    return lambda text: console.print(text, markup=False, soft_wrap=True)


def welcome(state: Document, url: str, folder: Path, node_cli: Path | None) -> str:
    """Where things are and what to try."""
    command = own_command(folder)
    nodes = [node for node in state["nodes"] if node["host"]]
    ports = sorted(node["port"] for node in nodes)
    first = next((shard["master"] for shard in state["shards"]), "shard-0-0")
    around = f"{nodes[0]['host']}, ports {ports[0]} to {ports[-1]}" if nodes else "none yet"
    lines = [
        "",
        f"The store is up: {_of(len(state['shards']), 'shard')}, {_of(len(nodes), 'node')}.",
        "",
        f"  HTTP API   {url}",
        f"  nodes      {around} (for every Redis Cluster client)",
        f"  data       {shown_path(folder)}",
        "",
        "Try in another terminal:",
        "",
        f"""  curl {url}/write -d '{{"key": "greeting", "value": "hello"}}'""",
        f"  curl '{url}/read?key=greeting'",
        f"  curl -X POST {url}/add_node",
        f"  curl {url}/status",
        f"  {command} status --watch",
        f"  {command} kill {first}",
    ]
    if node_cli is not None and ports:
        lines.append(f"  {shown_path(node_cli)} -c -p {ports[0]}")
    return "\n".join([*lines, "", "Ctrl-C ends it; what happens is told below.", ""])


def own_command(folder: Path) -> str:
    """How the reader starts `shardctl`, as briefly as it works from here."""
    started_as = Path(sys.argv[0])
    if shutil.which(PROGRAM):
        command = PROGRAM
    elif started_as.name == PROGRAM:
        command = shown_path(started_as.absolute())
    else:
        command = "python -m shardcluster_runtime.cli"
    return command if folder == DEFAULT_FOLDER else f"{command} --folder {shlex.quote(str(folder))}"


def shown_path(path: Path) -> str:
    """A path as people would type it here."""
    with contextlib.suppress(ValueError):
        return f"./{path.absolute().relative_to(Path.cwd())}"
    return str(path)


def _of(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
