"""`shardctl controller`: the control loop for nodes that somebody else starts.

Under Compose the nodes are containers found by a DNS name; elsewhere a list of addresses.  No
gateway is started, and at the end the nodes keep running.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from shardcluster.spec import parse
from shardcluster_runtime import event_loop
from shardcluster_runtime.cli import supervise
from shardcluster_runtime.cli.common import DEFAULT_DOCUMENT, folder_option, spec_file_option
from shardcluster_runtime.cli.tell import EventPrinter, line_printer
from shardcluster_runtime.desired import DesiredStore
from shardcluster_runtime.loop import Controller
from shardcluster_runtime.platforms.addresses import (
    AddressFile,
    DnsName,
    FixedAddresses,
    parse_address,
)
from shardcluster_runtime.platforms.static import StaticPlatform
from shardcluster_runtime.wire import Credentials

if TYPE_CHECKING:
    from shardcluster_runtime.platforms.addresses import AddressSource

__all__ = ["controller"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8090
PASSWORD_VARIABLE, USERNAME_VARIABLE = "SHARDCLUSTER_PASSWORD", "SHARDCLUSTER_USERNAME"


@dataclass(frozen=True, slots=True)
class _Options:
    """What `controller` was asked for; exactly one of the three sources is set."""

    dns: str | None
    nodes: str | None
    nodes_file: Path | None
    file: Path | None
    folder: Path
    host: str
    port: int


@click.command()
@click.option("--dns", metavar="NAME:PORT", help="A name whose addresses are the nodes.")
@click.option("--nodes", metavar="HOST:PORT,…", help="The nodes' addresses.")
@click.option(
    "--nodes-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A file with one address a line, read again when it changes.",
)
@spec_file_option(required=False)
@folder_option
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Of the control API.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Of the control API.",
)
def controller(**options: Any) -> None:
    """Run the control loop for nodes that run elsewhere; end it with Ctrl-C."""
    asked = _Options(**options)
    if sum(source is not None for source in (asked.dns, asked.nodes, asked.nodes_file)) != 1:
        message = "Give exactly one of --dns, --nodes and --nodes-file."
        raise click.UsageError(message)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    event_loop.run(_run(asked, _source(asked)))


async def _run(options: _Options, source: AddressSource) -> None:
    console = Console(highlight=False)
    stop = supervise.stop_requested()
    with supervise.as_sentences():
        options.folder.mkdir(parents=True, exist_ok=True)
        supervise.check_folder_free(options.folder)
        supervise.check_port_free(options.host, options.port)
        desired = DesiredStore(options.folder)
        line_printer(console)(desired.open(options.file, DEFAULT_DOCUMENT))
        loop = Controller(_platform(options, source, desired), desired)
        await loop.start()
    try:
        async with supervise.serve_control(loop, options.host, options.port) as url:
            supervise.write_whereabouts(options.folder, url, None, None)
            console.print(f"The control API is at {url}; Ctrl-C ends it.", soft_wrap=True)
            printer = EventPrinter(console, {"version": 0, "events": []})
            async with supervise.background(printer.follow(loop)):
                await stop.wait()
    finally:
        console.print("Stopping: the nodes keep running …")
        await loop.stop(stop_nodes=False)
        supervise.forget_whereabouts(options.folder)
    console.print("Stopped.")


def _platform(options: _Options, source: AddressSource, desired: DesiredStore) -> StaticPlatform:
    return StaticPlatform(
        options.folder,
        source,
        credentials=Credentials(
            os.environ.get(PASSWORD_VARIABLE) or None, os.environ.get(USERNAME_VARIABLE) or None
        ),
        keeps_data=not parse(desired.document).memory_only,
    )


def _source(options: _Options) -> AddressSource:
    """Where the nodes are; raises UsageError for an address that is none."""
    if options.nodes_file is not None:
        return AddressFile(options.nodes_file)
    try:
        if options.dns is not None:
            return DnsName(parse_address(options.dns))
        return FixedAddresses(parse_address(text) for text in (options.nodes or "").split(","))
    except ValueError as error:
        message = f"{error}."
        raise click.UsageError(message) from error
