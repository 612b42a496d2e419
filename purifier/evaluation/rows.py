"""Rows: what was measured for one purifier, attack, threat model and eps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from purifier._errors import InputError
from purifier.evaluation.metrics.classification import interval

CLEAN = "clean"
WORST_CASE = "worst-case"
# The threat models in which the attacker knows the purifier.
AWARE_THREATS = ("aware", "bpda")
THREATS = ("none", "blind", "transfer", *AWARE_THREATS, WORST_CASE)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Counts over images, for one purifier under one attack.

    Counts, not shares, so that rows add up and every share has its interval.

    Attributes:
        purifier: Its name and options; "none" for no defence.
        attack: The attack's name, or "clean".
        threat: "none", "blind", "transfer", "aware", "bpda", or "worst-case": per image, the minimum over the attacks
            of an attacker who knows the purifier.
        eps: Radius of the ball in [0, 1] units; None for clean images and attacks without a radius.
        norm: "Linf" or "L2"; None for clean images.
        steps: Steps or queries; None where the attack has none.
        images: How many images (n).
        standard: How many clean images are right with this purifier on.
        robust: How many of all n are right under the attack.
        fooled: How many of the images that are right when clean are wrong under the attack.
        restored: How many get the class that the undefended model gives the clean image.
        milliseconds: Median time that the purifier takes an image; None where it was not measured.
        settings: Everything that the figure depends on: the attack's and threat's settings and more.
        eight_bit: Whether the attacked images were rounded to 8 bits before the defence saw them.
        dtype: What the defence computed in; the attack always has float32.
    """

    purifier: str
    attack: str
    threat: str
    eps: float | None = None
    norm: str | None = None
    steps: int | None = None
    images: int
    standard: int
    robust: int
    fooled: int
    restored: int
    milliseconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    eight_bit: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.threat not in THREATS:
            raise InputError(f"expected a threat out of {', '.join(THREATS)}, got {self.threat!r}")
        counts = {"standard": self.standard, "robust": self.robust, "restored": self.restored}
        for name, count in counts.items():
            if not 0 <= count <= self.images:
                raise InputError(f"expected {name} within 0..{self.images} images, got {count}")
        if not 0 <= self.fooled <= self.standard:
            raise InputError(f"expected fooled within 0..{self.standard} right when clean, got {self.fooled}")

    @property
    def standard_accuracy(self) -> float:
        """Share of the clean images that are right with the purifier on."""
        return _share(self.standard, self.images)

    @property
    def standard_interval(self) -> tuple[float, float]:
        """95 % interval of the standard accuracy."""
        return interval(self.standard, self.images)

    @property
    def robust_accuracy(self) -> float:
        """Share of all the images that are right under the attack; say with it which threat model it is for."""
        return _share(self.robust, self.images)

    @property
    def robust_interval(self) -> tuple[float, float]:
        """95 % interval of the robust accuracy."""
        return interval(self.robust, self.images)

    @property
    def attack_success_rate(self) -> float:
        """Share of the images that are right when clean and wrong under the attack."""
        return _share(self.fooled, self.standard)

    @property
    def attack_success_interval(self) -> tuple[float, float]:
        """95 % interval of the attack success rate."""
        return interval(self.fooled, self.standard)

    @property
    def purification_success_rate(self) -> float:
        """PSR: share of images that get the undefended model's class of the clean image (NCIS paper, section 4)."""
        return _share(self.restored, self.images)

    @property
    def purification_success_interval(self) -> tuple[float, float]:
        """95 % interval of the purification success rate."""
        return interval(self.restored, self.images)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts, with each share and its interval beside them, ready for JSON."""
        return asdict(self) | {
            name: {"share": getattr(self, name), "interval": list(getattr(self, within)), "of": of}
            for name, within, of in (
                ("standard_accuracy", "standard_interval", self.images),
                ("robust_accuracy", "robust_interval", self.images),
                ("attack_success_rate", "attack_success_interval", self.standard),
                ("purification_success_rate", "purification_success_interval", self.images),
            )
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Row:
        """Reads back what `to_dict` gave; shares and intervals are counted anew."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})


def _share(right: int, count: int) -> float:
    return right / count if count else 0.0
