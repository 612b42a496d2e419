"""From the records of images to the rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from purifier.data.sets import BoxedImages, ImageSet
from purifier.evaluation.defences import Defences, Variant
from purifier.evaluation.metrics.detection import mean_average_precision
from purifier.evaluation.metrics.segmentation import PixelCounts, bootstrap
from purifier.evaluation.plan import UNDEFENDED, Cell
from purifier.evaluation.rows import AWARE_THREATS, CLEAN, WORST_CASE, Interval, MeasureRow, Row
from purifier.evaluation.tasks import Classification, Segmentation, Task

# What records state of the perturbation in patches.
_PATCHES = ("patch_mean", "patch_skewness")


@dataclass(frozen=True)
class Table:
    """The records of an evaluation, by cell and image.

    Attributes:
        cells: The cells, clean images first.
        records: The record of each image, by the cell's name and the image's index.
        defences: The model with its purifiers.
    """

    cells: Sequence[Cell]
    records: Mapping[str, Mapping[int, dict[str, Any]]]
    defences: Defences

    def rows(self, task: Task, data: ImageSet) -> list[Row] | list[MeasureRow]:
        """Returns a row for each cell, purifier and variant; for a classifier also the worst cases."""
        every = [(cell, name, way) for cell in self.cells for name, way in self.defences.runs(cell.purifiers)]
        if isinstance(task, Classification):
            return [self._counted(*each) for each in every] + self._worst()
        measured = {each: _measures(task, self._predictions(*each), data) for each in every}
        rows = []
        for cell, name, way in every:
            standard, standard_intervals = measured[self.cells[0], name, way]
            robust, robust_intervals = measured[cell, name, way]
            row = MeasureRow(
                standard=standard,
                robust=robust,
                standard_intervals=standard_intervals,
                robust_intervals=robust_intervals,
                **self._defence(name, way),
                **_facts(cell, self.records[cell.name]),
            )
            rows.append(row)
        return rows

    @cached_property
    def _clean(self) -> list[dict[str, Any]]:
        records = self.records[self.cells[0].name]
        return [records[index] for index in sorted(records)]

    def _predictions(self, cell: Cell, name: str, way: Variant) -> list[Any]:
        records = self.records[cell.name]
        return [records[index]["predictions"][way.key][name] for index in sorted(records)]

    def _correct(self, cell: Cell, name: str, way: Variant) -> list[bool]:
        predictions = self._predictions(cell, name, way)
        return [predicted == record["label"] for predicted, record in zip(predictions, self._clean, strict=True)]

    def _restored(self, cell: Cell, name: str, way: Variant) -> list[bool]:
        wanted = self._predictions(self.cells[0], UNDEFENDED, Variant())
        return [a == b for a, b in zip(self._predictions(cell, name, way), wanted, strict=True)]

    def _counted(self, cell: Cell, name: str, way: Variant) -> Row:
        facts = _facts(cell, self.records[cell.name])
        return self._row(name, way, self._correct(cell, name, way), self._restored(cell, name, way), facts)

    def _row(self, name: str, way: Variant, robust: list[bool], restored: list[bool], facts: dict[str, Any]) -> Row:
        standard = self._correct(self.cells[0], name, way)
        return Row(
            standard=sum(standard),
            robust=sum(robust),
            fooled=sum(before and not after for before, after in zip(standard, robust, strict=True)),
            restored=sum(restored),
            **self._defence(name, way),
            **facts,
        )

    def _worst(self) -> list[Row]:
        """A row for each ball in which several aware attacks ran on a purifier: correct only if all of them fail."""
        groups: dict[tuple[str, str | None, float], list[Cell]] = {}
        for cell in self.cells:
            eps = _radius(cell)
            if cell.threat is not None and cell.threat.name in AWARE_THREATS and eps is not None:
                groups.setdefault((cell.target, getattr(cell.attack, "norm", None), eps), []).append(cell)
        # If no ball has several attacks, the worst cases would only repeat the rows above.
        if not any(len(cells) > 1 for cells in groups.values()):
            return []
        rows = []
        for way in self.defences.variants:
            for (name, norm, eps), cells in groups.items():
                robust = _all(self._correct(cell, name, way) for cell in cells)
                restored = _all(self._restored(cell, name, way) for cell in cells)
                attack = " + ".join(dict.fromkeys(cell.attack.name for cell in cells if cell.attack is not None))
                over = [f"{cell.attack_key} ({cell.threat_key})" for cell in cells]
                facts = {"attack": attack, "threat": WORST_CASE, "eps": eps, "norm": norm, "settings": {"over": over}}
                rows.append(self._row(name, way, robust, restored, facts))
        return rows

    def _defence(self, name: str, way: Variant) -> dict[str, Any]:
        """What a row states of its purifier."""
        milliseconds = None
        if way == Variant():
            times = [record["milliseconds"][name] for record in self._clean]
            milliseconds = 0.0 if name == UNDEFENDED else statistics.median(times)
        return {
            "purifier": name,
            "images": len(self._clean),
            "milliseconds": milliseconds,
            "eight_bit": way.eight_bit,
            "dtype": self.defences.dtype(name, way),
        }


def _measures(task: Task, predictions: list[Any], data: ImageSet) -> tuple[dict[str, float], dict[str, Interval]]:
    if isinstance(task, Segmentation):
        counts = [PixelCounts.from_dict(record) for record in predictions]
        total = sum(counts[1:], counts[0])
        return {"pixel_accuracy": total.pixel_accuracy, "mean_iou": total.mean_iou}, bootstrap(counts)
    assert isinstance(data, BoxedImages)
    return mean_average_precision(predictions, [data.target(index) for index in range(len(data))]), {}


def _all(columns: Iterable[list[bool]]) -> list[bool]:
    return [all(each) for each in zip(*columns, strict=True)]


def _facts(cell: Cell, records: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """What a row states of its attack."""
    settings: dict[str, Any] = {"cell": cell.name}
    if cell.attack is None or cell.threat is None:
        return {"attack": CLEAN, "threat": "none", "settings": settings}
    settings |= {
        "attack_key": cell.attack_key,
        "attack": cell.attack.settings(),
        "threat_key": cell.threat_key,
        "threat": cell.threat.settings(),
        "queries": hasattr(cell.attack, "queries"),
        "largest_linf": max(record["linf"] for record in records.values()),
        "median_l2": statistics.median(record["l2"] for record in records.values()),
        **{name: statistics.median(found) for name in _PATCHES if (found := _stated(name, records))},
    }
    return {
        "attack": cell.attack.name,
        "threat": cell.threat.name,
        "eps": _radius(cell),
        "norm": getattr(cell.attack, "norm", "L2"),
        "steps": getattr(cell.attack, "steps", getattr(cell.attack, "queries", None)),
        "settings": settings,
    }


def _stated(name: str, records: Mapping[int, dict[str, Any]]) -> list[float]:
    """Returns a figure of all records; empty if some were written before it was measured."""
    found = [record[name] for record in records.values() if name in record]
    return found if len(found) == len(records) else []


def _radius(cell: Cell) -> float | None:
    return cell.attack.eps if cell.attack is not None and cell.attack.bounded else None
