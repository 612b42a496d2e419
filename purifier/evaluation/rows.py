"""Rows of a table: the figures of one purifier under one attack, threat model and eps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from purifier._errors import InputError
from purifier._options import check_fields
from purifier.evaluation.metrics.classification import interval

CLEAN = "clean"
WORST_CASE = "worst-case"
# The threat models in which the attacker knows the purifier.
AWARE_THREATS = ("aware", "bpda")
# What threat models can say of their attacker.
KNOWLEDGE = ("blind", "transfer", *AWARE_THREATS)
THREATS = ("none", *KNOWLEDGE, WORST_CASE)
Interval = tuple[float, float]
# A figure in [0, 1] and its 95 % interval, by the name of the measure; the interval is None if it is not known.
Measures = Mapping[str, tuple[float, Interval | None]]


@dataclass(frozen=True, kw_only=True)
class TableRow(ABC):
    """What the rows of all tasks state.

    Attributes:
        purifier: Its name and options; "none" for the bare model.
        attack: The attack's name, or "clean".
        threat: "none", "blind", "transfer", "aware", "bpda", or "worst-case", which counts an image as correct only if
            every attack by an aware attacker fails on it.
        eps: Radius of the ball in [0, 1] units; None for clean images and for attacks without a radius.
        norm: "Linf" or "L2"; None for clean images.
        steps: Steps or queries; None if the attack has neither.
        images: Number of images (n).
        milliseconds: Median time of the purifier for an image; None if it was not measured.
        settings: The settings of the attack and the threat model, and the sizes of the perturbations.
        eight_bit: Whether the attacked images were rounded to 8 bits before the purifier.
        dtype: The dtype in which the purifier ran. The attack's dtype does not change.
    """

    purifier: str
    attack: str
    threat: str
    eps: float | None = None
    norm: str | None = None
    steps: int | None = None
    images: int
    milliseconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    eight_bit: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threat not in THREATS:
            raise InputError(f"expected a threat out of {', '.join(THREATS)}, got {self.threat!r}")

    @property
    @abstractmethod
    def clean_measures(self) -> Measures:
        """The measures on clean images, with the purifier."""

    @property
    @abstractmethod
    def attacked_measures(self) -> Measures:
        """The measures under the attack."""

    @property
    def attack_options(self) -> dict[str, Any]:
        """The options of the attack itself, also if another (EOT) is around it."""
        options: dict[str, Any] = self.settings.get("attack", {})
        while isinstance(inner := options.get("attack"), dict):
            options = inner
        return options

    @property
    def restarts(self) -> int:
        """How often the attack starts; 1 if it has no such option."""
        return int(self.attack_options.get("restarts", 1))

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Row(TableRow):
    """A row of a classifier. It holds counts of images, so that rows can be added and every share has an interval.

    Attributes:
        standard: Number of clean images that are correct with the purifier.
        robust: Number of images, of all n, that are correct under the attack.
        fooled: Number of images that are correct when clean and wrong under the attack.
        restored: Number of images with the class that the bare model predicts for the clean image.
    """

    standard: int
    robust: int
    fooled: int
    restored: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("standard", "robust", "restored"):
            if not 0 <= (count := getattr(self, name)) <= self.images:
                raise InputError(f"expected {name} within 0..{self.images} images, got {count}")
        if not 0 <= self.fooled <= self.standard:
            raise InputError(f"expected fooled within 0..{self.standard} correct clean images, got {self.fooled}")

    @property
    def standard_accuracy(self) -> float:
        """Share of the clean images that are correct with the purifier."""
        return _share(self.standard, self.images)

    @property
    def standard_interval(self) -> Interval:
        """95 % interval of the standard accuracy."""
        return interval(self.standard, self.images)

    @property
    def robust_accuracy(self) -> float:
        """Share of all images that are correct under the attack. State the threat model beside it."""
        return _share(self.robust, self.images)

    @property
    def robust_interval(self) -> Interval:
        """95 % interval of the robust accuracy."""
        return interval(self.robust, self.images)

    @property
    def attack_success_rate(self) -> float:
        """Share of the correct clean images that are wrong under the attack."""
        return _share(self.fooled, self.standard)

    @property
    def attack_success_interval(self) -> Interval:
        """95 % interval of the attack success rate."""
        return interval(self.fooled, self.standard)

    @property
    def purification_success_rate(self) -> float:
        """Share of images with the bare model's class of the clean image (PSR; NCIS paper, section 4)."""
        return _share(self.restored, self.images)

    @property
    def purification_success_interval(self) -> Interval:
        """95 % interval of the purification success rate."""
        return interval(self.restored, self.images)

    @property
    def clean_measures(self) -> Measures:
        return {"accuracy": (self.standard_accuracy, self.standard_interval)}

    @property
    def attacked_measures(self) -> Measures:
        return {"accuracy": (self.robust_accuracy, self.robust_interval)}

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, and each share with its interval, ready for JSON."""
        return super().to_dict() | {
            name: {"share": getattr(self, name), "interval": list(getattr(self, within)), "of": of}
            for name, within, of in (
                ("standard_accuracy", "standard_interval", self.images),
                ("robust_accuracy", "robust_interval", self.images),
                ("attack_success_rate", "attack_success_interval", self.standard),
                ("purification_success_rate", "purification_success_interval", self.images),
            )
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Reads a row from the output of `to_dict`; shares and intervals are computed again."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})


@dataclass(frozen=True, kw_only=True)
class MeasureRow(TableRow):
    """A row of a segmenter or a detector.

    Attributes:
        standard: Measures in [0, 1] on clean images with the purifier: pixel_accuracy and mean_iou, or map and map_50.
        robust: The same measures under the attack.
        standard_intervals: 95 % intervals by bootstrap over images; empty for detection.
        robust_intervals: Likewise.
    """

    standard: dict[str, float]
    robust: dict[str, float]
    standard_intervals: dict[str, Interval] = field(default_factory=dict)
    robust_intervals: dict[str, Interval] = field(default_factory=dict)

    @property
    def clean_measures(self) -> Measures:
        return {name: (value, self.standard_intervals.get(name)) for name, value in self.standard.items()}

    @property
    def attacked_measures(self) -> Measures:
        return {name: (value, self.robust_intervals.get(name)) for name, value in self.robust.items()}


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0
