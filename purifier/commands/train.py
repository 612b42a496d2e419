"""purifier train: trains a purifier on a folder of images."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from purifier.commands._extras import require_extra


class _Recipes(click.Group):
    """The trainable methods; a recipe's options are made when it is asked for, out of its settings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["gad", "ncis"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "gad":
            return _gad()
        return _ncis() if cmd_name == "ncis" else None


@click.group("train", cls=_Recipes)
def command() -> None:
    """Train a purifier on folders of images."""


def _ncis() -> click.Command:
    from purifier.training.ncis._config import NCISTraining

    def run(out: Path, **values: Any) -> None:
        require_extra("accelerate", extra="train", what="purifier train")
        from purifier.training.ncis import train

        folder = train(NCISTraining(**values), out)
        click.echo(f"trained {folder}; load it with Purifier.from_pretrained(Path({str(folder)!r}))")

    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Folder to write; a run that was stopped goes on from what is in it.",
    )
    text = "Train NCIS, self-supervised, on clean images."
    return click.Command("ncis", params=[out, *options_of(NCISTraining)], callback=run, help=text, short_help=text)


def _gad() -> click.Command:
    from purifier.training.gad._config import GADTraining

    def run(out: Path, model: str, **values: Any) -> None:
        require_extra("accelerate", extra="train", what="purifier train")
        from purifier.training.gad import train
        from purifier.training.gad._target import load_target

        folder = train(GADTraining(**values), out, model=load_target(model))
        click.echo(f"trained {folder}; load it with Purifier.from_pretrained(Path({str(folder)!r}))")

    model = click.Option(
        ["--model"],
        required=True,
        help="Model to defend, as module:function, a function without arguments that returns it; of images in [0, 1].",
    )
    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Folder to write; a run that was stopped goes on from what is in it.",
    )
    text = "Train GAD in front of a model of yours, on labelled images."
    settings = options_of(GADTraining)
    return click.Command("gad", params=[model, out, *settings], callback=run, help=text, short_help=text)


def options_of(settings: type[Any]) -> list[click.Option]:
    """Makes a command-line option of every field of a dataclass.

    Types and defaults are the fields'; the help is what the Attributes sections of the class and its bases say. A
    tuple field is an option to be given several times, required where the field's default is empty.
    """
    hints, texts = get_type_hints(settings), _attribute_texts(settings)
    fields = sorted(dataclasses.fields(settings), key=lambda field: field.name != "data")
    return [_option(field, hints[field.name], texts.get(field.name, "")) for field in fields]


def _option(field: dataclasses.Field[Any], kind: Any, text: str) -> click.Option:
    flag = f"--{field.name.replace('_', '-')}"
    if get_origin(kind) is tuple:
        several = {"multiple": True, "type": get_args(kind)[0], "required": not field.default}
        return click.Option([flag, field.name], help=f"{text} Can be given several times.", **several)
    if kind is bool:
        switch = f"{flag}/--no-{flag.removeprefix('--')}"
        return click.Option([switch, field.name], default=field.default, show_default=True, help=text)
    choices: Sequence[str] = get_args(kind) if get_origin(kind) is Literal else ()
    return click.Option(
        [flag, field.name],
        type=click.Choice(choices) if choices else kind,
        default=field.default,
        show_default=True,
        help=text,
    )


def _attribute_texts(settings: type[Any]) -> dict[str, str]:
    """What the Attributes sections of a class and its bases say of each attribute; the class itself comes last."""
    texts: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        section = re.search(r"Attributes:\n((?:[ \t]+.*\n?|\n)*)", vars(base).get("__doc__") or "")
        if section is None:
            continue
        name = ""
        for line in section[1].splitlines():
            if entry := re.match(r"\s+(\w+): (.*)", line):
                name, texts[entry[1]] = entry[1], entry[2].strip()
            elif name and line.strip():
                texts[name] += f" {line.strip()}"
    return texts
