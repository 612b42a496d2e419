"""Result files of the headline table: one digit an image, so that results can be extended and compared in pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import kit
from benchmarks.accuracy.attacked_images import AttackedImages, check_same
from purifier._files import write_text
from purifier._identity import commit
from purifier.evaluation.metrics.classification import interval

SAVE = 10  # images between two writes of the result files


class Result:
    """The result file of one classifier.

    Args:
        path: The file. One that exists is extended; one of another classifier or other images is refused.
        settings: What all its figures depend on.
        notes: What else a reader must know, by subject.
    """

    def __init__(self, path: Path, settings: dict[str, Any], notes: dict[str, str]) -> None:
        self.path = path
        self.data: dict[str, Any] = {"settings": settings, "attacks": {}, "purifiers": {}, "rows": {}, "commits": []}
        if path.exists():
            self.data = json.loads(path.read_text())
        check_same(self.data["settings"], settings, path)
        self.data["notes"] = notes
        if (now := commit()) not in self.data["commits"]:
            self.data["commits"].append(now)

    def state(self, part: str, name: str, settings: dict[str, Any]) -> None:
        """States the settings of one of the "attacks" or "purifiers"; refuses others than the file's."""
        check_same(self.data[part].setdefault(name, settings), settings, self.path)

    def right(self, attack: str, purifier: str) -> str:
        """One digit an image that was measured: 1 if the classifier is right."""
        return self.data["rows"].get(attack, {}).get(purifier, {}).get("right", "")

    def add(self, attack: str, purifier: str, right: bool) -> None:
        """Adds the next image, with the accuracy so far and its 95 % interval."""
        digits = self.right(attack, purifier) + str(int(right))
        n, hits = len(digits), digits.count("1")
        row = {"n": n, "accuracy": hits / n, "interval": list(interval(hits, n)), "right": digits}
        self.data["rows"].setdefault(attack, {})[purifier] = row

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps({**self.data, "environment": kit.environment()}, indent=1) + "\n")


@dataclass(frozen=True)
class Cell:
    """A classifier that looks at the images of an attack, and the row of its result file."""

    result: Result
    network: nn.Module
    row: str

    def right(self, purifier: str) -> str:
        return self.result.right(self.row, purifier)

    def shown(self, purifier: str) -> str:
        """The accuracy so far, for the log."""
        return f"{self.row} {100 * self.right(purifier).count('1') / max(1, len(self.right(purifier))):.1f}"


@torch.inference_mode()
def measure(
    attacked: AttackedImages, purify: Callable[[Tensor], Tensor], purifier: str, cells: list[Cell], count: int
) -> None:
    """Purifies the first `count` images and classifies them for each cell, as far as results are missing."""
    for index in range(min(len(cell.right(purifier)) for cell in cells), count):
        image = purify(attacked[index])
        for cell in cells:
            if len(cell.right(purifier)) == index:
                right = cell.network(image).argmax(1) == attacked.pictures.labels[index]
                cell.result.add(cell.row, purifier, bool(right))
        if (index + 1) % SAVE == 0 or index + 1 == count:
            for cell in cells:
                cell.result.save()


def grid(path: Path, classifier: str, attacks: Sequence[str], purifiers: Sequence[str]) -> str:
    """The table of a result file: attacks down, purifiers across, accuracy in % with its 95 % interval."""
    if not path.exists():
        return f"{classifier}: not measured yet."
    rows = json.loads(path.read_text())["rows"]
    shown = [name for name in purifiers if any(name in row for row in rows.values())]
    lines = [f"| {classifier} | n | " + " | ".join(shown) + " |", "|" + "---|" * (len(shown) + 2)]
    for attack in (name for name in attacks if name in rows):
        n = max(cell["n"] for cell in rows[attack].values())
        cells = [_cell(rows[attack].get(name), n) for name in shown]
        lines.append(f"| {attack} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(cell: dict[str, Any] | None, n: int) -> str:
    """One figure; it states its number of images if that is not the row's."""
    if cell is None:
        return "not measured"
    low, high = (100 * value for value in cell["interval"])
    return f"{100 * cell['accuracy']:.1f} ({low:.0f}-{high:.0f})" + (f", n={cell['n']}" if cell["n"] != n else "")
