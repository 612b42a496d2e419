"""What the scripts that train have in common: their options, the kit's photographs, and the finished weights."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.kit import kit
from purifier import Purifier

_PLACES = ("data", "masks", "annotations", "init", "teacher")


def photographs() -> tuple[str, ...]:
    """The kit's folders to train on; a smaller kit may have no objects."""
    return tuple(str(kit() / name) for name in ("photos", "objects/train") if (kit() / name).is_dir())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every training."""
    parser.add_argument("--minutes", type=float, help="stop after about that time; the next call goes on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the option that `export` takes."""
    parser.add_argument("--export", type=Path, help="folder for the fp16 weights")


def export(folder: Path, to: Path | None) -> None:
    """Prints where a purifier was written, and saves it once more, in half precision and under its folder's name.

    Of several processes of torchrun only the first does, which is the one that wrote the purifier.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    print(folder)
    if to is not None:
        purifier = Purifier.from_pretrained(folder).half()
        purifier.name = to.name
        purifier.save_pretrained(to)
        (to / "training.yaml").write_text(without_places((folder / "training.yaml").read_text()))


def without_places(settings: str) -> str:
    """Shortens the absolute paths in the text of a training.yaml to their last two parts."""
    return re.sub(r"(?<=[\s'\"=])/(?:[^\s/'\"]+/)*([^\s/'\"]+/[^\s/'\"]+)", r"\1", settings)


def run_presets(
    text: str,
    presets: Mapping[str, Any],
    settings: Callable[[str, list[str], str], Any],
    train: Callable[..., Path],
    out: Path,
) -> None:
    """Reads the command line of a script whose trainings are presets, and trains.

    Args:
        text: The script's own docstring.
        presets: The presets by name.
        settings: Makes the settings of (preset, changes, init).
        train: Takes them and a folder.
        out: Folder of the runs, unless --out says otherwise.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=presets)
    parser.add_argument("--init", default="", help="name or folder of a trained purifier to start from")
    parser.add_argument("--out", type=Path, default=out)
    add_options(parser)
    add_export(parser)
    args = parser.parse_args()
    folder = train(settings(args.preset, args.set, args.init), args.out / args.preset, minutes=args.minutes)
    export(folder, args.export)


def run_commands(
    text: str,
    learn: Callable[[argparse.Namespace], None],
    measure: Callable[[argparse.Namespace], None],
    out: Path,
    *,
    images: int,
    aware_images: int,
) -> None:
    """Reads the command line of a script that trains a purifier for one model and measures it, and does so.

    Args:
        text: The script's own docstring.
        learn: What `train` calls; it has --minutes, --set and --out.
        measure: What `measure` calls; it has --images, --aware-images, --work and --out.
        out: Folder of the run, unless --out says otherwise.
        images: Images that are measured on, unless --images says otherwise.
        aware_images: Those of the attacker who knows the purifier.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the purifier in front of the model")
    add_options(one)
    one.set_defaults(run=learn)
    two = commands.add_parser("measure", help="measure it")
    two.add_argument("--images", type=int, default=images)
    two.add_argument("--aware-images", type=int, default=aware_images)
    two.add_argument("--work", type=Path, default=out / "measured", help="folder for records")
    two.set_defaults(run=measure)
    for command in (one, two):
        command.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    args.run(args)


def curve(out: Path) -> dict[str, Any]:
    """How a training in `out` went: settings without places, validations and seconds."""
    training = torch.load(out / "checkpoint.pt", weights_only=True)
    settings = {name: value for name, value in training["settings"].items() if name not in _PLACES}
    return {"settings": settings, "history": training["history"], "seconds": training["seconds"]}


def joined(*trainings: dict[str, Any]) -> dict[str, Any]:
    """One training of several `curve`s that went on from one another: "settings" is a list then, steps go on."""
    history: list[dict[str, Any]] = []
    for training in trainings:
        done = history[-1]["step"] if history else 0
        history += [{**entry, "step": done + entry["step"]} for entry in training["history"]]
    return {
        "settings": [training["settings"] for training in trainings],
        "history": history,
        "seconds": sum(training["seconds"] for training in trainings),
    }


def read_changes(config: type[Any], changes: Sequence[str]) -> dict[str, Any]:
    """Reads KEY=VALUE entries, each as the type of the field's default.

    Args:
        config: A dataclass of settings.
        changes: The entries; the values of a tuple are separated by commas.
    """
    found: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.partition("=")
        if not hasattr(config, key):
            raise SystemExit(f"expected KEY=VALUE with a field of {config.__name__}, got {change!r}")
        found[key] = _read(value, type(getattr(config, key)))
    return found


def _read(value: str, kind: type[Any]) -> Any:
    if kind is tuple:
        return tuple(value.split(","))
    return value.lower() in ("1", "true") if kind is bool else kind(value)
