"""`shardctl up`: a whole store on this machine, and its supervision until Ctrl-C.

Order: everything that can be refused is looked at first (second instance, busy port, missing
packages, bad spec), then the nodes start, then the API.  At the end the gateway goes first, so
that no request meets a node that is leaving, then the nodes with their data on disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from shardcluster.spec import ignored_on_local, parse
from shardcluster_runtime import event_loop
from shardcluster_runtime.cli import supervise
from shardcluster_runtime.cli.common import (
    DEFAULT_DOCUMENT,
    folder_option,
    spec_file_option,
)
from shardcluster_runtime.cli.tell import EventPrinter, line_printer, shown_path, welcome
from shardcluster_runtime.desired import DesiredStore
from shardcluster_runtime.loop import Controller
from shardcluster_runtime.platforms.process import NodeSettings, ProcessPlatform
from shardcluster_runtime.server_binary import find_server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from shardcluster_runtime.control import ControllerLike
    from shardcluster_runtime.server_binary import Server

__all__ = ["up"]

Document = dict[str, Any]

CONTROL_HOST = "127.0.0.1"
WATCH_WAIT_S = 30.0  # how long one look at the state may wait for news
SERVED_PHASES = ("Ready", "Rebalancing", "Paused")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `up` was asked for."""

    file: Path | None
    folder: Path
    host: str
    port: int
    base_port: int

    @property
    def gateway_url(self) -> str:
        """Where people reach the HTTP API."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104
        scheme = "https" if os.environ.get("SHARDCLUSTER_HTTPS_CERT") else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@click.command()
@spec_file_option(required=False)
@folder_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of the API."
)
@click.option(
    "--base-port",
    type=click.IntRange(1024, 55000),
    default=7100,
    show_default=True,
    help="The first node's port; the others follow.",
)
def up(**options: Any) -> None:
    """Start a whole store here: nodes, control loop and HTTP API; end it with Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    event_loop.run(_up(UpOptions(**options)))


async def _up(options: UpOptions) -> None:
    console = Console(highlight=False)
    stop = supervise.stop_requested()
    controller, server = await _start_controller(options, console)
    try:
        await _serve(options, controller, console, stop, server)
    finally:
        line_printer(console)(_farewell(controller.state(), options))
        with supervise.as_sentences():
            await controller.stop(stop_nodes=True)
        supervise.forget_whereabouts(options.folder)
    console.print("Stopped.")


async def _start_controller(options: UpOptions, console: Console) -> tuple[Controller, Server]:
    """Check what can be checked, then start nodes and loop; raises CliError with a sentence."""
    supervise.check_gateway_installed()
    with supervise.as_sentences():
        server = find_server()
        options.folder.mkdir(parents=True, exist_ok=True)
        supervise.check_folder_free(options.folder)
        supervise.end_leftover_gateway(options.folder)
        supervise.check_port_free(options.host, options.port)
        desired = DesiredStore(options.folder)
        _open_desired(desired, options, line_printer(console))
        platform = ProcessPlatform(
            options.folder,
            server,
            spec_settings=_settings_of(desired),
            base_port=options.base_port,
        )
        controller = Controller(platform, desired)
        await controller.start()
    return controller, server


def _open_desired(desired: DesiredStore, options: UpOptions, say: Callable[[str], None]) -> None:
    say(desired.open(options.file, DEFAULT_DOCUMENT))
    if options.file is not None:
        for sentence in ignored_on_local(parse(desired.document)):
            say(sentence)


def _settings_of(desired: DesiredStore) -> Callable[[], NodeSettings]:
    """What the spec, as it is desired at the time of asking, says about each node."""
    seen: list[tuple[Document, NodeSettings]] = []  # the platform asks in every pass

    def ask() -> NodeSettings:
        document = desired.document
        if not seen or seen[0][0] is not document:
            spec = parse(document)
            settings = NodeSettings(
                node_timeout_ms=spec.failover.node_timeout_ms,
                memory_only=spec.memory_only,
                max_memory_bytes=spec.max_memory_bytes,
                config=spec.config,
            )
            seen[:] = [(document, settings)]
        return seen[0][1]

    return ask


async def _serve(
    options: UpOptions,
    controller: Controller,
    console: Console,
    stop: asyncio.Event,
    server: Server,
) -> None:
    """Run the control API and the gateway until a stop is asked for."""
    async with contextlib.AsyncExitStack() as stack:
        control_url = await stack.enter_async_context(
            supervise.serve_control(controller, CONTROL_HOST, 0)
        )
        command = supervise.GatewayProcess.command(control_url, options.host, options.port)
        gateway = supervise.GatewayProcess(command, options.folder, line_printer(console))
        gateway.on_started = lambda process_id: supervise.write_whereabouts(
            options.folder, control_url, options.gateway_url, process_id
        )
        await stack.enter_async_context(supervise.background(gateway.run()))
        if await supervise.stopped_first(stop, _until_serving(controller, options, console)):
            return
        state = controller.state()
        words = welcome(state, options.gateway_url, options.folder, server.cli)
        line_printer(console)(words)
        printer = EventPrinter(console, state)
        await stack.enter_async_context(supervise.background(printer.follow(controller)))
        await stop.wait()


async def _until_serving(controller: ControllerLike, options: UpOptions, console: Console) -> None:
    """Show what the loop is doing until the store can be used."""
    told = ""
    with console.status("Starting …") as spinner:
        state = controller.state()
        while state["phase"] not in SERVED_PHASES:
            if state["message"] != told:
                told = state["message"]
                spinner.update(escape(told))
                if not console.is_terminal:
                    line_printer(console)(told)
            state = await controller.wait_state(state["version"], WATCH_WAIT_S)
        spinner.update("Waiting for the HTTP API …")  # it learns who owns what
        await supervise.gateway_ready(options.gateway_url)


def _farewell(state: Document, options: UpOptions) -> str:
    if parse(state["spec"]).memory_only:
        return "\nStopping … (nothing is kept: the spec asks for no storage)"
    return f"\nStopping … data is kept in {shown_path(options.folder)}"
