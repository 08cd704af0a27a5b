"""`shardctl`: run a store on this machine, look at one, change one.

Exit codes: 0 done, 1 refused or failed (one sentence on standard error), 2 wrong usage.
Each command's module is imported only when that command runs, so that `shardctl status` does
not wait for the server side to load.
"""

from __future__ import annotations

import importlib

import click

__all__ = ["main"]

_PACKAGE = "shardcluster_runtime.cli"

# command -> the module and the attribute it is in; in the order that `--help` shows
_COMMANDS = {
    "up": ("up", "up"),
    "controller": ("controller", "controller"),
    "status": ("look", "status"),
    "events": ("look", "events"),
    "key": ("look", "key"),
    "ring": ("ring", "ring"),
    "plan": ("change", "plan"),
    "apply": ("change", "apply"),
    "add-shard": ("change", "add_shard"),
    "remove-shard": ("change", "remove_shard"),
    "rebalance": ("change", "rebalance"),
    "kill": ("change", "kill"),
    "token": ("token", "token"),
    "bench": ("bench", "bench"),
    "version": ("look", "version"),
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run, watch and change a sharded key-value store."""
