"""`shardctl token`: a new bearer token for the HTTP API, and the line that makes it known.

The token goes to standard output alone, so that it can be put where it is needed by a pipe; the
line goes into the file, or to standard error for people to copy.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import click

from shardcluster.tokens import ROLES, TokenBook, TokensError, token_line
from shardcluster_runtime.cli.client import CliError

__all__ = ["token"]

TOKEN_BYTES = 32
PREFIX = "sct_"  # so that scanners for leaked secrets, and people, know what it is
FILE_MODE = 0o600


@click.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(ROLES), required=True, help="Each may do what those before it may."
)
@click.option(
    "--file",
    "-f",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the line to this file, which SHARDCLUSTER_TOKENS_FILE names for the gateway.",
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Take the token from standard input.")
def token(name: str, role: str, file: Path | None, *, from_stdin: bool) -> None:
    """Make a bearer token for the HTTP API; only its digest is kept."""
    made = (
        sys.stdin.readline().strip() if from_stdin else PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    )
    try:
        line = token_line(name, role, made)
        if file is not None:
            _add(file, line)
    except TokensError as error:
        message = f"{file}: {error}." if file is not None else f"{str(error).capitalize()}."
        raise CliError(message) from error
    except OSError as error:
        message = f"{file} can't be written: {error.strerror}."
        raise CliError(message) from error
    if file is None:
        click.echo(line, err=True)
    if not from_stdin:
        click.echo(made)


def _add(file: Path, line: str) -> None:
    """Add the line; the file is replaced whole, so that a gateway never reads half of it."""
    before = file.read_bytes() if file.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    after = before + line.encode() + b"\n"
    TokenBook.read(after)
    beside = file.with_name(f".{file.name}.new")
    beside.touch(FILE_MODE)
    beside.write_bytes(after)
    if file.exists():
        beside.chmod(file.stat().st_mode & 0o777)
    beside.replace(file)
