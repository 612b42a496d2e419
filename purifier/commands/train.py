"""purifier train: trains a purifier on a folder of images."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from purifier._errors import OptionError, nearest
from purifier.commands._extras import require_extra
from purifier.commands._model_options import MODEL_HELP

_TEXTS = {
    "alloy": "Train Alloy, self-supervised, against attacks on a list of networks.",
    "gad": "Train GAD in front of a model of yours, on labelled images.",
    "ncis": "Train NCIS, self-supervised, on clean images.",
    "nrp": "Train NRP, self-supervised, against perturbations of a network's features.",
}

_TARGET = click.Option(
    ["--model"],
    required=True,
    help=f"Model to defend: {MODEL_HELP}",
)


class _Recipes(click.Group):
    """The trainable methods; a recipe's options are made when it is asked for, out of its settings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_TEXTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "alloy":
            from purifier.training.alloy._config import AlloyTraining

            return _training(cmd_name, AlloyTraining)
        if cmd_name == "ncis":
            from purifier.training.ncis._config import NCISTraining

            return _training(cmd_name, NCISTraining)
        if cmd_name == "nrp":
            from purifier.training.nrp._config import NRPTraining

            return _training(cmd_name, NRPTraining)
        if cmd_name == "gad":
            from purifier.training.gad._config import GADTraining

            return _training(cmd_name, GADTraining, _TARGET)
        return None


@click.group("train", cls=_Recipes)
def command() -> None:
    """Train a purifier on folders of images."""


def _training(name: str, settings: type[Any], *more: click.Parameter) -> click.Command:
    """Makes the command that trains a method: its package has `train`, its settings give the options."""

    def run(out: Path, minutes: float | None, model: str | None = None, **values: Any) -> None:
        require_extra("accelerate", extra="train", what="purifier train")
        if values["tensorboard"]:
            require_extra("tensorboard", extra="train", what="purifier train --tensorboard")
        train = importlib.import_module(f"purifier.training.{name}").train
        target = {}
        if model is not None:
            target["model"] = _target(model)
        config = settings(**values)
        folder = train(config, out, minutes=minutes, **target)
        ends = "trained" if _is_done(config, out) else "not done yet, the same command goes on; so far there is"
        click.echo(f"{ends} {folder}; load it with Purifier.from_pretrained(Path({str(folder)!r}))")

    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Folder to write; a run that was stopped goes on from what is in it.",
    )
    config = click.Option(
        ["--config"],
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, option, path: _use_config(ctx, path, settings),
        help="YAML file of settings, such as the training.yaml of a trained purifier; options given beside it win.",
    )
    minutes = click.Option(
        ["--minutes"],
        type=float,
        help="Stop after about that time; the same command then goes on. No limit if left out.",
    )
    text = _TEXTS[name]
    params: list[click.Parameter] = [*more, out, config, minutes, *options_of(settings)]
    return click.Command(name, params=params, callback=run, help=text, short_help=text)


def _target(spec: str) -> Any:
    """Loads the model to defend, with the names of its classes where they are known."""
    from torch import nn

    from purifier.models.loading import load_model

    loaded = load_model(spec)
    if not isinstance(loaded.call, nn.Module):
        raise OptionError(f"expected {spec} to return an nn.Module, got {type(loaded.call).__name__}")
    if loaded.classes is not None and getattr(loaded.call, "classes", None) is None:
        loaded.call.classes = loaded.classes  # type: ignore[assignment]
    return loaded.call


def _is_done(config: Any, out: Path) -> bool:
    from purifier.training._checkpoint import load_checkpoint
    from purifier.training._loop import is_over

    state = load_checkpoint(out / "checkpoint.pt")
    return state is not None and is_over(config, state["step"], state["seconds"])


def _use_config(ctx: click.Context, path: Path | None, settings: type[Any]) -> None:
    """Makes what a YAML file says the defaults of the command's options."""
    if path is None:
        return
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"expected YAML in {path}, got {error}") from error
    if not isinstance(values, dict):
        raise click.UsageError(f"expected 'name: value' lines in {path}, got {type(values).__name__}")
    names = [field.name for field in dataclasses.fields(settings)]
    for key in values:
        if key not in names:
            raise click.UsageError(
                f"expected settings of {settings.__name__} in {path}, got {key!r}{nearest(str(key), names)}"
            )
    hints = get_type_hints(settings)
    ctx.default_map = {name: _from_yaml(name, value, hints[name], path) for name, value in values.items()}


def _from_yaml(name: str, value: Any, kind: Any, path: Path) -> Any:
    """A value of a YAML file as the option of that name takes it."""
    if get_origin(kind) is tuple and not isinstance(value, list | tuple):
        return [value]
    # YAML reads a plain `no` as false.
    if get_origin(kind) is Literal and value is False:
        return "no"
    if kind is int and isinstance(value, float):
        raise click.UsageError(f"expected a whole number for {name} in {path}, got {value!r}")
    return value


def options_of(settings: type[Any]) -> list[click.Option]:
    """Makes a command-line option of every field of a dataclass.

    Types and defaults are the fields'; the help is what the Attributes sections of the class and its bases say. A
    tuple field is an option to be given several times, all of which replace its default, and required where that is
    empty.
    """
    hints, texts = get_type_hints(settings), _attribute_texts(settings)
    fields = sorted(dataclasses.fields(settings), key=lambda field: field.name != "data")
    return [_option(field, hints[field.name], texts.get(field.name, "")) for field in fields]


def _option(field: dataclasses.Field[Any], kind: Any, text: str) -> click.Option:
    flag = f"--{field.name.replace('_', '-')}"
    if get_origin(kind) is tuple:
        default = field.default or None
        several = {"multiple": True, "type": get_args(kind)[0], "required": not default, "default": default}
        text = f"{text} Can be given several times."
        return click.Option([flag, field.name], help=text, show_default=bool(default), **several)
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
