"""The `purifier` command.

Sub-commands are loaded when they are called. Each imports heavy packages inside its own function.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from purifier._errors import PurifierError
from purifier._version import __version__

_COMMANDS = {
    "attack": "purifier.commands.attack:command",
    "bench": "purifier.commands.bench:command",
    "convert": "purifier.commands.convert:command",
    "demo": "purifier.commands.demo:command",
    "evaluate": "purifier.commands.evaluate:command",
    "export": "purifier.commands.export:command",
    "list": "purifier.commands.list:command",
    "purify": "purifier.commands.purify:command",
    "train": "purifier.commands.train:command",
    "tune": "purifier.commands.tune:command",
}


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is called.

    Args:
        *args: For `click.Group`.
        places: Location of each sub-command, as "module:attribute".
        **kwargs: For `click.Group`.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = dict(places)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._places:
            return super().get_command(ctx, cmd_name)
        module, attribute = self._places[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, places=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="purifier")
def command() -> None:
    """Removes adversarial perturbations from images before they reach a model, which stays unchanged."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits with 0 after success, 1 after a PurifierError, and 2 after a wrong call.

    Args:
        arguments: The command line without the program's name. None means the process's own.
    """
    try:
        command.main(arguments, prog_name="purifier")
    except PurifierError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
