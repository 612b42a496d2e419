"""The `purifier` command.

The module of a sub-command is imported when it is called, and slow imports are inside its functions.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import StringIO

import click

from purifier._errors import PurifierError
from purifier._version import __version__
from purifier.commands._terminal import abandon_output, echo, echo_error, safe_streams

_COMMANDS = (
    *("app", "attack", "bank", "bench", "convert", "demo", "detect", "doctor", "evaluate"),
    *("export", "list", "purify", "train", "tune"),
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
    """Runs the command and exits with 0 for success, 1 for an error, or 2 for a wrong call.

    Args:
        arguments: The command line without the program's name. None means that of the process.
    """
    with safe_streams():
        sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """Runs the command and returns the exit code; every expected kind of error is one line."""
    try:
        code: int | None = command.main(arguments, prog_name="purifier", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        shown = StringIO()
        error.show(shown)
        with suppress(OSError):
            echo(shown.getvalue().rstrip("\n"), err=True)
        return error.exit_code
    except click.Abort:
        echo_error("interrupted")
        return 1
    except PurifierError as error:
        echo_error(str(error))
        return 1
    except MemoryError:
        echo_error("expected enough memory, got none; use smaller batches, images or tiles")
        return 1
    except OSError as error:
        abandon_output()
        if error.errno != errno.EPIPE:
            place = f"{error.filename}: " if error.filename else ""
            echo_error(f"expected files and outputs that can be read and written, got {place}{error.strerror or error}")
        return 1
    return code if isinstance(code, int) else 0
