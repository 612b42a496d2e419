"""Measuring one cell of an evaluation, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from purifier._random import isolated_randomness, seed_of
from purifier.data.sets import ImageSet
from purifier.evaluation.defences import Defences, Variant
from purifier.evaluation.metrics.perturbation import patch_statistics
from purifier.evaluation.pictures import save_pictures
from purifier.evaluation.plan import UNDEFENDED, Cell
from purifier.evaluation.settings import EvaluationSettings
from purifier.evaluation.tasks import Classification, Task

# The predictions of a batch, by variant and purifier.
_Predictions = dict[str, dict[str, list[Any]]]


class Job(NamedTuple):
    """A batch of a cell that is to be measured.

    Attributes:
        cell: The cell.
        batch: Numbers of the images.
        pictures: How many of them become pictures of the report.
    """

    cell: Cell
    batch: list[int]
    pictures: int


@dataclass(frozen=True)
class CellRunner:
    """Attacks the images of a cell, purifies them and records the model's predictions.

    Attributes:
        task: The task of the model.
        data: Images and targets.
        defences: The model with its purifiers.
        settings: How the evaluation runs.
        pictures: Folder for the pictures of the report.
    """

    task: Task
    data: ImageSet
    defences: Defences
    settings: EvaluationSettings
    pictures: Path

    def jobs(self, cell: Cell, done: Mapping[int, Any]) -> list[Job]:
        """Returns the batches of a cell that are not done."""
        batches = list(self.data.batches(self.settings.batch_size))
        # Pictures from all over the data, because neighbours often share a class.
        pictured = [number * len(batches) // self.settings.pictures for number in range(self.settings.pictures)]
        return [
            Job(cell, batch, pictured.count(number))
            for number, batch in enumerate(batches)
            if not all(index in done for index in batch)
        ]

    def measure(self, job: Job) -> list[dict[str, Any]]:
        """Returns the records of a batch. Their random numbers depend on the cell and the batch only."""
        cell, batch, pictures = job
        images, targets = to_device(self.data.load(batch), self.defences.device)
        attacked = self._attack(cell, batch, images, targets)
        predictions, milliseconds = self._predict(cell, batch[0], attacked, targets)
        if cell.attack is not None and pictures:
            chosen = self._telling(cell, targets, predictions)[:pictures]
            self._save_pictures(cell, batch, sorted(chosen), images, attacked)
        scores = self._scores(cell, batch[0], attacked)
        names = self.data.names
        return [
            {
                "index": index,
                "file": names[index],
                **self.task.truth(targets, place),
                "predictions": {
                    key: {name: kept[place] for name, kept in by_name.items()} for key, by_name in predictions.items()
                },
                **({"scores": {name: found[place] for name, found in scores.items()}} if scores else {}),
                **({"milliseconds": milliseconds} if cell.attack is None else _sizes(images[place], attacked[place])),
            }
            for place, index in enumerate(batch)
        ]

    def _seed(self, cell: Cell, first: int, what: str) -> int:
        return seed_of(self.settings.seed, cell.name, first, what)

    def _attack(self, cell: Cell, batch: list[int], images: Any, targets: Any) -> Any:
        if cell.attack is None or cell.threat is None:
            return images
        if cell.attacked is not None:
            return cell.attacked.load(batch, images)
        seed = self._seed(cell, batch[0], "attack")
        with isolated_randomness(self.defences.device, seed=seed):
            attack, defended = cell.attack.seeded(seed), self.defences.defended[cell.target]
            return cell.threat(attack, defended, images, self.task.attack_targets(targets))

    def _predict(self, cell: Cell, first: int, images: Any, targets: Any) -> tuple[_Predictions, dict[str, float]]:
        """Returns the predictions, and each purifier's milliseconds for an image."""
        predictions: _Predictions = {}
        milliseconds = {}
        for name, way in self.defences.runs(cell.purifiers):
            found, times = [], []
            submissions, votes = self._calls(cell, name)
            for number in range(submissions * votes):
                with self._randomness(cell, first, name, way, number), torch.inference_mode():
                    purified, took = self.defences.timed(name, way, images)
                    found.append(self.task.record(self.defences.model(purified), targets))
                    times.append(took)
            judged = [self.task.majority(found[start : start + votes]) for start in range(0, len(found), votes)]
            predictions.setdefault(way.key, {})[name] = self.task.worst(judged, targets)
            if way == Variant():
                milliseconds[name] = round(times[0], 4)
        return predictions, milliseconds

    def _scores(self, cell: Cell, first: int, images: Any) -> dict[str, list[float]]:
        """Returns the attack scores of a classifier's images, for each purifier that has one gate."""
        if not isinstance(self.task, Classification):
            return {}
        found = {}
        for name in cell.purifiers:
            if name in self.defences.scored:
                with self._randomness(cell, first, name, Variant()), torch.inference_mode():
                    found[name] = self.defences.purifiers[name].attack_score(images).tolist()
        return found

    def _calls(self, cell: Cell, name: str) -> tuple[int, int]:
        """How often an image is submitted, and goes through the purifier each time; once if that is always the same."""
        random = name != UNDEFENDED and getattr(self.defences.purifiers[name], "random", False)
        return (getattr(cell.threat, "submissions", 1), self.settings.votes) if random else (1, 1)

    def _randomness(
        self, cell: Cell, first: int, name: str, way: Variant, number: int = 0
    ) -> AbstractContextManager[None]:
        again = f" {number}" if number else ""
        return isolated_randomness(self.defences.device, seed=self._seed(cell, first, f"{name} {way.key}{again}"))

    def _telling(self, cell: Cell, targets: Any, predictions: _Predictions) -> list[int]:
        """Places in the batch, for a classifier those of the images first that the attack fools."""
        places = list(range(len(targets)))
        if isinstance(self.task, Classification):
            first = predictions[Variant().key][cell.purifiers[0]]
            places.sort(key=lambda place: first[place] == int(targets[place]))
        return places

    def _save_pictures(self, cell: Cell, batch: list[int], places: list[int], images: Any, attacked: Any) -> None:
        purified = []
        for name in cell.purifiers:
            if name != UNDEFENDED:
                with self._randomness(cell, batch[0], name, Variant()), torch.inference_mode():
                    shown = self.defences.purify(name, Variant(), attacked)
                purified.append([shown[place] for place in places])
        for number, place in enumerate(places):
            save_pictures(
                self.pictures / cell.name,
                batch[place],
                images[place],
                attacked[place],
                [shown[number] for shown in purified],
                self._draw,
            )

    @torch.inference_mode()
    def _draw(self, images: list[Tensor]) -> list[Tensor]:
        return self.task.draw(self.defences.model, images)


# Measures batches, and yields the records of each in their order.
Engine = Callable[[CellRunner, Sequence[Job]], Iterable[list[dict[str, Any]]]]


def here(runner: CellRunner, jobs: Sequence[Job]) -> Iterable[list[dict[str, Any]]]:
    """The engine that measures one batch after another in this process."""
    return map(runner.measure, jobs)


def to_device(value: Any, device: torch.device) -> Any:
    """Returns the value with every tensor in it on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_device(part, device) for part in value)
    return value


def _sizes(clean: Tensor, attacked: Tensor) -> dict[str, float]:
    """Largest change of a value, Euclidean length of the perturbation, and its mean and skewness in patches."""
    change = (attacked - clean).cpu()
    return {"linf": float(change.abs().max()), "l2": float(change.double().norm()), **patch_statistics(change)}
