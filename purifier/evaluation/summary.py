"""From the records of images to the rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from purifier.data.sets import ImageSet
from purifier.evaluation.defences import Defences, Variant
from purifier.evaluation.metrics.detection import mean_average_precision
from purifier.evaluation.metrics.segmentation import bootstrap
from purifier.evaluation.plan import UNDEFENDED, Cell
from purifier.evaluation.rows import AWARE_THREATS, CLEAN, WORST_CASE, Row
from purifier.evaluation.tasks import Segmentation, Task, pixel_counts

Found = Mapping[str, dict[int, dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class MeasureRow:
    """Measures of a segmenter or detector, for one purifier under one attack; see `Row` for what is the same.

    Attributes:
        purifier: Its name; "none" for no defence.
        attack: The attack's name, or "clean".
        threat: What the attacker knows.
        eps: Radius of the ball.
        norm: "Linf" or "L2".
        steps: Steps of the attack.
        images: How many images.
        standard: Measures on clean images with this purifier on, in [0, 1]: pixel_accuracy and mean_iou, or map and
            map_50.
        robust: The same under the attack.
        standard_intervals: 95 % intervals by bootstrap over images; for detection none.
        robust_intervals: Likewise.
        milliseconds: Median time that the purifier takes an image.
        settings: Everything that the figures depend on.
        eight_bit: Whether the attacked images were rounded to 8 bits.
        dtype: What the defence computed in.
    """

    purifier: str
    attack: str
    threat: str
    eps: float | None = None
    norm: str | None = None
    steps: int | None = None
    images: int
    standard: dict[str, float]
    robust: dict[str, float]
    standard_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    robust_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    milliseconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    eight_bit: bool = False
    dtype: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it, ready for JSON."""
        return asdict(self)


def rows_of(cells: Sequence[Cell], found: Found, defences: Defences, ways: Sequence[Variant]) -> list[Row]:
    """Counts a classifier's records: a row for each cell, purifier and variant, then the worst cases."""
    table = _Table(cells, found, defences)
    rows = [
        table.row(cell, name, way)
        for cell in cells
        for way in ways
        for name in cell.purifiers
        if defences.has(name, way)
    ]
    return rows + [row for way in ways for row in table.worst(way)]


class _Table:
    """Counts over images."""

    def __init__(self, cells: Sequence[Cell], found: Found, defences: Defences) -> None:
        self.cells, self.found, self.defences = cells, found, defences
        self.clean = found[cells[0].name]
        self.order = sorted(self.clean)

    def predictions(self, cell: Cell, name: str, way: Variant) -> list[int]:
        records = self.found[cell.name]
        return [records[index]["predictions"][way.key][name] for index in self.order]

    def right(self, cell: Cell, name: str, way: Variant) -> list[bool]:
        said = self.predictions(cell, name, way)
        return [guess == self.clean[index]["label"] for guess, index in zip(said, self.order, strict=True)]

    def restored(self, cell: Cell, name: str, way: Variant) -> list[bool]:
        wanted = self.predictions(self.cells[0], UNDEFENDED, Variant())
        return [a == b for a, b in zip(self.predictions(cell, name, way), wanted, strict=True)]

    def row(self, cell: Cell, name: str, way: Variant) -> Row:
        robust = self.right(cell, name, way)
        return self._row(name, way, robust, self.restored(cell, name, way), **_facts(cell, self.found[cell.name]))

    def _row(self, name: str, way: Variant, robust: list[bool], restored: list[bool], **facts: Any) -> Row:
        standard = self.right(self.cells[0], name, way)
        return Row(
            purifier=name,
            images=len(robust),
            standard=sum(standard),
            robust=sum(robust),
            fooled=sum(before and not after for before, after in zip(standard, robust, strict=True)),
            restored=sum(restored),
            milliseconds=_milliseconds(self.clean, name) if way == Variant() else None,
            eight_bit=way.eight_bit,
            dtype=self.defences.dtype(name, way),
            **facts,
        )

    def worst(self, way: Variant) -> list[Row]:
        """A row for each purifier and ball that several attacks of an attacker who knows it were run in."""
        groups: dict[tuple[str, str | None, float], list[Cell]] = {}
        for cell in self.cells:
            eps = _radius(cell)
            if cell.threat is None or cell.threat.name not in AWARE_THREATS or eps is None:
                continue
            groups.setdefault((cell.purifiers[0], getattr(cell.attack, "norm", None), eps), []).append(cell)
        rows = []
        # With one attack a ball the rows would say what is said already.
        several = any(len(cells) > 1 for cells in groups.values())
        for (name, norm, eps), cells in groups.items():
            if not several or not self.defences.has(name, way):
                continue
            robust = [all(each) for each in zip(*(self.right(cell, name, way) for cell in cells), strict=True)]
            restored = [all(each) for each in zip(*(self.restored(cell, name, way) for cell in cells), strict=True)]
            members = [f"{cell.attack_key} ({cell.threat_key})" for cell in cells]
            facts = {"attack": " + ".join(dict.fromkeys(_name(cell) for cell in cells)), "threat": WORST_CASE}
            rows.append(self._row(name, way, robust, restored, **facts, eps=eps, norm=norm, settings={"over": members}))
        return rows


def measure_rows(
    task: Task, cells: Sequence[Cell], found: Found, defences: Defences, ways: Sequence[Variant], data: ImageSet
) -> list[MeasureRow]:
    """Sums up the records of a segmenter or detector: a row for each cell, purifier and variant."""
    clean = found[cells[0].name]
    measured: dict[tuple[str, str, Variant], Any] = {}

    def measures(cell: Cell, name: str, way: Variant) -> Any:
        key = (cell.name, name, way)
        if key not in measured:
            records = found[cell.name]
            kept = [records[index]["predictions"][way.key][name] for index in sorted(records)]
            measured[key] = _measures(task, kept, data)
        return measured[key]

    rows = []
    for cell in cells:
        for way in ways:
            for name in cell.purifiers:
                if not defences.has(name, way):
                    continue
                standard, standard_intervals = measures(cells[0], name, way)
                robust, robust_intervals = measures(cell, name, way)
                row = MeasureRow(
                    purifier=name,
                    images=len(clean),
                    standard=standard,
                    robust=robust,
                    standard_intervals=standard_intervals,
                    robust_intervals=robust_intervals,
                    milliseconds=_milliseconds(clean, name) if way == Variant() else None,
                    eight_bit=way.eight_bit,
                    dtype=defences.dtype(name, way),
                    **_facts(cell, found[cell.name]),
                )
                rows.append(row)
    return rows


def _measures(task: Task, kept: list[Any], data: ImageSet) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    if isinstance(task, Segmentation):
        counts = [pixel_counts(record) for record in kept]
        total = counts[0]
        for count in counts[1:]:
            total = total + count
        return {"pixel_accuracy": total.pixel_accuracy, "mean_iou": total.mean_iou}, bootstrap(counts)
    targets = [data.load([index])[1][0] for index in range(len(data))]
    return mean_average_precision(kept, targets), {}


def _facts(cell: Cell, records: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """What a row says of its attack."""
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
    }
    return {
        "attack": _name(cell),
        "threat": cell.threat.name,
        "eps": _radius(cell),
        "norm": getattr(cell.attack, "norm", "L2"),
        "steps": getattr(cell.attack, "steps", getattr(cell.attack, "queries", None)),
        "settings": settings,
    }


def _name(cell: Cell) -> str:
    return CLEAN if cell.attack is None else cell.attack.name


def _radius(cell: Cell) -> float | None:
    return cell.attack.eps if cell.attack is not None and cell.attack.bounded else None


def _milliseconds(clean: Mapping[int, dict[str, Any]], name: str) -> float | None:
    if name == UNDEFENDED:
        return 0.0
    taken = [record["milliseconds"][name] for record in clean.values()]
    return statistics.median(taken) if taken else None
