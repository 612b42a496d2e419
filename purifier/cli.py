"""The `purifier` command.

The module of a sub-command is imported when it is called, and slow imports are inside its functions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from purifier._errors import PurifierError
from purifier._version import __version__

_COMMANDS = tuple(
    ["attack", "bank", "bench", "convert", "demo", "doctor", "evaluate", "export", "list", "purify", "train", "tune"]
)


class LazyGroup(click.Group):
    """The group of the sub-commands; `purifier.commands.NAME` is imported when a sub-command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"purifier.commands.{cmd_name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="purifier")
def command() -> None:
    """Remove adversarial perturbations from images before a model sees them; the model stays unchanged."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits with 0 for success, 1 for an error of this library, or 2 for a wrong call.

    Args:
        arguments: The command line without the program's name. None means that of the process.
    """
    try:
        command.main(arguments, prog_name="purifier")
    except PurifierError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
