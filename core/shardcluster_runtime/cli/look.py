"""The commands that only look: status, events, key, ring, version."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from shardcluster.slots import SlotSet, key_slot
from shardcluster_runtime.cli import tables
from shardcluster_runtime.cli.client import Client, CliError
from shardcluster_runtime.cli.common import client_options, output_option, show

__all__ = ["events", "key", "status", "version"]

POLL_INTERVAL_S = 1.0  # where only the gateway is known, which doesn't hold a request
REDRAW_INTERVAL_S = 0.25  # at most so often, however fast the state changes
PACKAGE = "shardcluster"

Document = dict[str, Any]


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Stay and show every change; end with Ctrl-C.")
@output_option
@client_options
def status(client: Client, output: str, *, watch: bool) -> None:
    """Show shards, nodes, what is going on and what happened."""
    state = client.status()
    if not watch:
        show(output, state, lambda: tables.status_view(state))
        return
    if output == "json":
        message = "--watch draws for people: leave --output json away."
        raise click.UsageError(message)
    try:
        _watch(client, state)
    except KeyboardInterrupt:
        return


def _watch(client: Client, state: Document) -> None:
    """Draw the state until Ctrl-C; a store that stops answering is said and waited for."""
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(tables.status_view(state), refresh=True)
            time.sleep(REDRAW_INTERVAL_S)
            state = _next(client, state)


def _next(client: Client, state: Document) -> Document:
    try:
        newer = client.next_status(state.get("version", 0))
        if newer is None:
            time.sleep(POLL_INTERVAL_S)
            newer = client.status()
    except CliError as error:
        time.sleep(POLL_INTERVAL_S)
        return {**state, "phase": "Unknown", "healthy": False, "message": error.format_message()}
    return newer


@click.command()
@click.option(
    "--last", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)
@output_option
@client_options
def events(client: Client, output: str, last: int) -> None:
    """Show what happened last, the newest at the end."""
    found = (client.status().get("events") or [])[-last:]
    show(output, found, lambda: tables.events_table(found))


@click.command()
@click.argument("keys", nargs=-1, required=True)
@output_option
@client_options
def key(client: Client, output: str, keys: tuple[str, ...]) -> None:
    """Show which slot, shard and node each key belongs to."""
    shards = client.status().get("shards") or []
    owned = [(SlotSet.parse(shard["slot_ranges"]), shard) for shard in shards]
    rows = [_where(os.fsencode(name), owned) for name in keys]
    show(output, rows, lambda: tables.keys_table(rows))


def _where(name: bytes, owned: list[tuple[SlotSet, Document]]) -> Document:
    slot = key_slot(name)
    owner = next((shard for slots, shard in owned if slot in slots), None)
    return {
        "key": name.decode(errors="backslashreplace"),
        "slot": slot,
        "shard": owner["name"] if owner else None,
        "node": owner["master"] if owner else None,
        "replicas": owner["replicas"] if owner else [],
    }


@click.command()
@output_option
def version(output: str) -> None:
    """Show the version of ShardCluster and what it runs on."""
    try:
        own = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        own = "not installed (run from its source)"
    found = {
        "shardcluster": own,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    show(output, found, lambda: "\n".join(f"{name} {what}" for name, what in found.items()))
