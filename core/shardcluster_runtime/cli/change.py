"""The commands that change something (and `plan`, which shows what one of them would)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardcluster_runtime.cli import tables
from shardcluster_runtime.cli.common import (
    client_options,
    output_option,
    read_spec_file,
    show,
    spec_file_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from shardcluster_runtime.cli.client import Client

__all__ = ["add_shard", "apply", "kill", "plan", "rebalance", "remove_shard"]


@click.command("add-shard")
@output_option
@client_options
def add_shard(client: Client, output: str) -> None:
    """Ask for one shard more; slots move to it while reads and writes go on."""
    _show_plan(output, client.add_shard())


@click.command("remove-shard")
@click.argument("name")
@output_option
@client_options
def remove_shard(client: Client, output: str, name: str) -> None:
    """Drain and remove a shard, named by itself or by one of its nodes."""
    _show_plan(output, client.remove_shard(name))


@click.command()
@output_option
@client_options
def rebalance(client: Client, output: str) -> None:
    """Move slots to where the ring wants them."""
    _show_plan(output, client.rebalance())


@click.command()
@spec_file_option(required=True)
@output_option
@client_options
def plan(client: Client, output: str, file: Path) -> None:
    """Show what a spec would change, without changing it."""
    _show_plan(output, client.plan(read_spec_file(file)))


@click.command()
@spec_file_option(required=True)
@output_option
@client_options
def apply(client: Client, output: str, file: Path) -> None:
    """Make a spec the desired one."""
    _show_plan(output, client.apply(read_spec_file(file)))


@click.command()
@click.argument("node")
@click.option(
    "--signal",
    "signal_name",
    type=click.Choice(["KILL", "STOP", "CONT"], case_sensitive=False),
    default="KILL",
    show_default=True,
    help="KILL ends it, STOP lets it hang, CONT lets a hanging one go on.",
)
@output_option
@client_options
def kill(client: Client, output: str, node: str, signal_name: str) -> None:
    """Kill a node's process, to try failover."""
    _show_plan(output, client.kill(node, signal_name.upper()))


def _show_plan(output: str, answer: dict[str, Any]) -> None:
    show(output, answer, lambda: tables.plan_view(answer))
