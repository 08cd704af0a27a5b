"""What the commands share: where the store is (`--url …`) and how to print (`--output …`)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from shardcluster_runtime.cli.client import Client, CliError
from shardcluster_runtime.desired import DesiredError, load_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

__all__ = [
    "DEFAULT_DOCUMENT", "DEFAULT_FOLDER", "client_options", "folder_option", "output_option",
    "read_spec_file", "show", "spec_file_option",
]  # fmt: skip

DEFAULT_FOLDER = Path(".shardcluster")
# Three shards of a master and a replica, as the spec's own defaults have it, with their data on
# disk: somebody who types `shardctl up` twice expects to find again what was written.
DEFAULT_DOCUMENT: dict[str, Any] = {"spec": {"storage": {"size": "10Gi"}}}

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    envvar="SHARDCLUSTER_FOLDER",
    show_default=True,
    help="The state folder of a local store.",
)

output_option = click.option(
    "--output",
    "-o",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or for programs.",
)


def spec_file_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`-f FILE`: a ShardCluster document."""
    return click.option(
        "--file",
        "-f",
        "file",
        type=click.Path(dir_okay=False, path_type=Path),
        required=required,
        help="A ShardCluster document, YAML or JSON.",
    )


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command `client`, a Client found through its options and `controller.json`."""

    @click.option(
        "--url",
        envvar="SHARDCLUSTER_URL",
        help="The store's HTTP API  [default: the one in the state folder, else "
        "http://127.0.0.1:8080].",
    )
    @click.option(
        "--control-url",
        envvar="SHARDCLUSTER_CONTROL_URL",
        help="The controller's own API  [default: the one in the state folder].",
    )
    @folder_option
    @functools.wraps(command)
    def with_client(
        url: str | None, control_url: str | None, folder: Path, **options: object
    ) -> object:
        return command(client=Client.find(url, control_url, folder), **options)

    return with_client


def show(output: str, document: object, view: Callable[[], RenderableType]) -> None:
    """Print `document` as JSON, or what `view` draws."""
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    Console(highlight=False).print(view())


def read_spec_file(file: Path) -> dict[str, Any]:
    """The document in `file`; raises CliError with a sentence."""
    try:
        return load_document(file)
    except DesiredError as error:
        raise CliError(str(error)) from error
