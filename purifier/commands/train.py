"""purifier train: trains a purifier on a folder of images."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from purifier._errors import OptionError, shown
from purifier._extras import require_extra
from purifier.commands._model_options import MODEL_HELP
from purifier.commands._terminal import echo

_MOST_YAML = 1 << 20
# Settings class and help text of each method.
_METHODS = {
    "alloy": ("AlloyTraining", "Train Alloy, self-supervised, against attacks on a list of networks."),
    "denoiser": ("DenoiserTraining", "Train a denoiser for certified predictions, on photographs."),
    "gad": ("GADTraining", "Train GAD in front of a model of yours, on labelled images."),
    "ncis": ("NCISTraining", "Train NCIS, self-supervised, on clean images."),
    "nrp": ("NRPTraining", "Train NRP, self-supervised, against attacks on a network's features."),
}


class _Methods(click.Group):
    """The trainable methods. A method's options are made from its settings when its command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_METHODS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _training(cmd_name) if cmd_name in _METHODS else None


@click.group("train", cls=_Methods)
def command() -> None:
    """Train a purifier on folders of images."""


class _Training(click.Command):
    """A command that says what became of an option of earlier versions."""

    former: Mapping[str, str]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.removeprefix("--").removeprefix("no-").replace("-", "_")
            if name in self.former:
                raise click.UsageError(f"No such option: {error.option_name}; {self.former[name]}") from None
            raise


def _training(name: str) -> click.Command:
    """Makes the command that trains a method: its module has `train`, its settings give the options."""
    class_name, text = _METHODS[name]
    settings = getattr(importlib.import_module(f"purifier.training.{name}"), class_name)

    def run(out: Path, minutes: float | None, model: str | None = None, **values: Any) -> None:
        require_extra("accelerate", extra="train", what="purifier train")
        if values["tensorboard"]:
            require_extra("tensorboard", extra="train", what="purifier train --tensorboard")
        if minutes is not None and not minutes >= 0:
            raise OptionError(f"expected --minutes of at least 0, got {minutes}")
        check_out(out, values)
        train = importlib.import_module(f"purifier.training.{name}").train
        config = settings(**values)
        target = {} if model is None else {"model": _target(model)}
        folder = train(config, out, minutes=minutes, **target)
        load = f"Purifier.from_pretrained(Path({str(folder)!r}))"
        if _is_done(config, out):
            echo(f"Trained {folder}; load it with {load}")
        else:
            echo("Stopped early: the purifier is not trained yet. Run the same command to resume.")
            echo(f"Current purifier: {folder}; load it with {load}")

    target = click.Option(["--model"], required=True, help=f"Model to defend: {MODEL_HELP}")
    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Folder to write. A stopped run resumes from the checkpoint in it.",
    )
    config = yaml_option(settings)
    minutes = click.Option(
        ["--minutes"],
        type=float,
        help="Stop after about that time; the same command then resumes. No limit by default.",
    )
    params = [*([target] if name == "gad" else []), out, config, minutes, *options_of(settings)]
    made = _Training(name, params=params, callback=run, help=text, short_help=text)  # type: ignore[arg-type]
    made.former = settings.former
    return made


def yaml_option(settings: type[Any]) -> click.Option:
    """Makes the option --config, a YAML file that gives the defaults of the other options."""
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, option, path: _use_config(ctx, path, settings),
        help="YAML file of settings, such as the training.yaml of a trained purifier. Options override it.",
    )


def check_out(out: Path, settings: Mapping[str, Any]) -> None:
    """Checks that what a training or a bank writes does not become pictures of the next run.

    Args:
        out: Folder to write.
        settings: Values of the settings: `data`, a folder or several, and for detection `annotations`, which list the
            pictures in it.

    Raises:
        OptionError: If the folder is inside one of pictures.
    """
    from purifier.data.outputs import check_outside

    data = settings["data"]
    if not settings.get("annotations"):
        check_outside(out, *(Path(folder) for folder in ([data] if isinstance(data, str) else data) if folder))


def _target(spec: str) -> Any:
    """Loads the model to defend, with the names of its classes if they are known."""
    from torch import nn

    from purifier.models.loading import load_model

    loaded = load_model(spec)
    if not isinstance(loaded.call, nn.Module):
        raise OptionError(f"expected {spec} to return an nn.Module, got {type(loaded.call).__name__}")
    if loaded.classes is not None and getattr(loaded.call, "classes", None) is None:
        loaded.call.classes = loaded.classes  # type: ignore[assignment]
    return loaded.call


def _is_done(config: Any, out: Path) -> bool:
    from purifier.training.checkpoints import load_checkpoint

    state = load_checkpoint(out / "checkpoint.pt")
    return state is not None and config.is_over(state["step"], state["seconds"])


def _use_config(ctx: click.Context, path: Path | None, settings: type[Any]) -> None:
    """Makes the values of a YAML file the defaults of the command's options."""
    if path is None:
        return
    import yaml

    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_YAML + 1)
        if len(text) > _MOST_YAML:
            raise ValueError(f"more than {_MOST_YAML:,} characters")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise click.UsageError(f"expected YAML in {path}, got {shown(error)}") from error
    if not isinstance(values, dict):
        raise click.UsageError(f"expected 'name: value' lines in {path}, got {type(values).__name__}")
    for key in values:
        try:
            settings.check_name(str(key))
        except OptionError as error:
            raise click.UsageError(f"{path}: {error}") from None
    hints = get_type_hints(settings)
    ctx.default_map = {name: _from_yaml(name, value, hints[name], path) for name, value in values.items()}


def _from_yaml(name: str, value: Any, kind: Any, path: Path) -> Any:
    """Returns a value of a YAML file in the form that its option takes."""
    several = get_origin(kind) is tuple
    parts = value if several and isinstance(value, list | tuple) else [value]
    numbers = kind in (int, float)
    if any(not isinstance(part, str | int | float) or (numbers and isinstance(part, bool)) for part in parts):
        raise click.UsageError(f"expected {name} in {path} as a {'number' if numbers else 'text'}, got {shown(value)}")
    if several:
        return parts
    # YAML reads a plain `no` as false.
    if get_origin(kind) is Literal and value is False:
        return "no"
    if kind is int and isinstance(value, float):
        raise click.UsageError(f"expected a whole number for {name} in {path}, got {shown(value)}")
    return value


def options_of(settings: type[Any]) -> list[click.Option]:
    """Makes a command-line option of every field of a dataclass.

    Types and defaults are those of the fields. The help comes from the Attributes sections of the class and its bases.
    The option of a tuple field can be given several times, which replaces its default; it is required if the default
    is empty.
    """
    hints, texts = get_type_hints(settings), _attribute_texts(settings)
    fields = sorted(dataclasses.fields(settings), key=lambda field: field.name != "data")
    return [_option(field, hints[field.name], texts.get(field.name, "")) for field in fields]


def _option(field: dataclasses.Field[Any], kind: Any, text: str) -> click.Option:
    flag = f"--{field.name.replace('_', '-')}"
    if get_origin(kind) is tuple:
        default = None if field.default is dataclasses.MISSING else field.default or None
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
    """Returns the texts of the Attributes sections of a class and its bases. Those of the class itself override."""
    texts: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        section = re.search(r"Attributes:\n(.*?)(?=\n\s*\n|\Z)", vars(base).get("__doc__") or "", re.DOTALL)
        if section is None:
            continue
        name = ""
        for line in section[1].splitlines():
            if entry := re.match(r"\s+(\w+): (.*)", line):
                name, texts[entry[1]] = entry[1], entry[2].strip()
            elif name and line.strip():
                texts[name] += f" {line.strip()}"
    return texts
