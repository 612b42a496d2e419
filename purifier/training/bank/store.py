"""The files of a bank: clean pictures in 8 bits, and perturbations of them in 8 bits, in shards.

    bank.json                     the settings that all sources share
    clean/00000.safetensors       "images" (n, 3, S, S), uint8
    SOURCE/source.json            the attack, its networks and its strengths
    SOURCE/00000.safetensors      "perturbations" (n, 3, S, S), int8; "scales", "pictures", "eps", "steps" and
                                  "fooled" (n,)

A perturbation is its integers times its scale; its largest value is exact and the others are off by at most 1/254 of
it. Each file is written whole or not at all, so that a killed run resumes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._files import replacing, write_text
from purifier._records import differences

SHARD = 64  # pictures in a file
CLEAN = "clean"
_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """An attacked picture.

    Attributes:
        clean: The picture before the attack, (3, S, S), float in [0, 1].
        perturbation: What the attack added, (3, S, S), float. Clean plus perturbation is in [0, 1] up to rounding.
        eps: Largest change of a value that the attack was allowed.
        steps: Its number of steps.
        fooled: Whether it changed the network's prediction. False for attacks on features.
    """

    clean: Tensor
    perturbation: Tensor
    eps: float
    steps: int
    fooled: bool


class Bank:
    """A folder of attacked pictures.

    Args:
        folder: The folder, which `purifier bank make` has made.

    Raises:
        InputError: If it is not such a folder, or has an unknown format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings = _read_json(self.folder / "bank.json", "a folder that `purifier bank make` has made")
        if self.settings.get("kind") != "bank" or self.settings.get("format") != _FORMAT:
            raise InputError(
                f"expected a bank of format {_FORMAT} in {self.folder}, got {self.settings.get('kind')!r} of format "
                f"{self.settings.get('format')!r}; make the bank again"
            )

    @classmethod
    def create(cls, folder: str | Path, settings: dict[str, Any]) -> Bank:
        """Makes the folder of a bank, or opens the one that exists.

        Raises:
            OptionError: If the bank that exists has other settings.
        """
        held = json.loads(json.dumps({"kind": "bank", "format": _FORMAT, **settings}))
        _state(Path(folder) / "bank.json", held)
        return cls(folder)

    @property
    def size(self) -> int:
        """S, the side of a picture in pixels."""
        return int(self.settings["size"])

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """The description of each source, by its name. Sources can be added later."""
        found = sorted(self.folder.glob("*/source.json"))
        return {path.parent.name: _read_json(path, "a source of a bank") for path in found}

    def add_source(self, name: str, described: dict[str, Any]) -> None:
        """States a source before its pictures are attacked.

        Raises:
            OptionError: If the bank has a source of that name with another description.
        """
        _state(self.folder / name / "source.json", json.loads(json.dumps(described)))

    def shard(self, source: str, number: int) -> Path:
        """The path of a shard, which need not exist; `source` is "clean" or the name of a source."""
        return self.folder / source / f"{number:05d}.safetensors"

    def shards(self, source: str) -> list[Path]:
        """The shards of a source that exist, in order."""
        return sorted((self.folder / source).glob("[0-9]*.safetensors"))

    def add_clean(self, number: int, images: Tensor) -> None:
        """Writes a shard of clean pictures (n, 3, S, S), uint8."""
        _write(self.shard(CLEAN, number), {"images": images})

    def add(self, source: str, number: int, perturbations: Tensor, facts: dict[str, Tensor]) -> None:
        """Writes a shard of perturbations (n, 3, S, S), float; `facts` are "pictures", "eps", "steps" and "fooled"."""
        largest = perturbations.abs().amax((1, 2, 3)).clamp_min(1e-8)
        integers = (perturbations / largest.view(-1, 1, 1, 1) * 127).round().to(torch.int8).contiguous()
        _write(self.shard(source, number), {"perturbations": integers, "scales": largest / 127, **facts})

    def count(self, source: str) -> int:
        """Number of attacked pictures of a source that exist."""
        return self._counts.get(source, 0)

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {name: sum(map(_length, self.shards(name))) for name in self.sources}

    def entry(self, source: str, index: int) -> Entry:
        """Reads one attacked picture of a source. Only its own bytes are read."""
        number, place = divmod(index, SHARD)
        path = self.shard(source, number)
        try:
            with safe_open(path, framework="pt") as file:
                values = {name: file.get_slice(name)[place : place + 1][0] for name in file.keys()}  # noqa: SIM118
            return Entry(
                clean=self.clean(int(values["pictures"])),
                perturbation=values["perturbations"].float() * values["scales"],
                eps=float(values["eps"]),
                steps=int(values["steps"]),
                fooled=bool(values["fooled"]),
            )
        except (SafetensorError, OSError, KeyError, IndexError) as error:
            raise _broken(path, error) from error

    def clean(self, picture: int) -> Tensor:
        """Reads one clean picture, (3, S, S), float in [0, 1]."""
        number, place = divmod(picture, SHARD)
        path = self.shard(CLEAN, number)
        try:
            with safe_open(path, framework="pt") as file:
                images: Tensor = file.get_slice("images")[place : place + 1][0]
        except (SafetensorError, OSError, IndexError) as error:
            raise _broken(path, error) from error
        return images.float() / 255

    def facts(self, source: str) -> Iterator[dict[str, Tensor]]:
        """Yields the facts of each shard of a source: "pictures", "eps", "steps", "fooled" and "scales", (n,)."""
        for path in self.shards(source):
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name != "perturbations"]  # noqa: SIM118
                yield {name: file.get_tensor(name) for name in names}


def _length(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice("scales").get_shape()[0])
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(
        f"expected a shard of a bank in {path}, got {error}; delete it and run `purifier bank make` again"
    )


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors))


def _state(path: Path, held: dict[str, Any]) -> None:
    """Writes a description, or checks that the one that exists is the same."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(held, indent=1) + "\n")
    elif found := differences(_read_json(path, "a bank"), held):
        raise OptionError(
            f"expected the settings that {path} was made with, got others ({found}); choose another folder, or another "
            "name for the source"
        )


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"expected {what}, got {path.parent}: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"expected {what}, got {path}, which holds {type(found).__name__}")
    return found
