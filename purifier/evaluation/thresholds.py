"""Thresholds of attack scores, calibrated on clean pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from purifier._errors import InputError
from purifier._files import write_text
from purifier._identity import weights_sha256
from purifier._options import check_number
from purifier._purifier import Purifier
from purifier._records import differences
from purifier.methods import describe
from purifier.methods.chain import Chain

__all__ = ["Threshold"]

_KIND, _FORMAT = "purifier-threshold", 1
# Half of what a 95 % interval leaves out.
_TAIL = 0.025


@dataclass(frozen=True)
class Threshold:
    """A threshold of attack scores: a picture whose score is above it counts as attacked.

    Attributes:
        value: The threshold, in [0, 1].
        false_positive_rate: The share of clean pictures that may be above it.
        pictures: Number of clean pictures that it was calibrated on.
        interval: 95 % interval of the true quantile, (low, high).
        purifier: Name of the purifier that it was calibrated for.
        detector: What the scores depend on, from `detector_identity`.
    """

    value: float
    false_positive_rate: float
    pictures: int
    interval: tuple[float, float]
    purifier: str
    detector: dict[str, Any]

    @classmethod
    def of(cls, scores: Sequence[float], false_positive_rate: float, purifier: Purifier) -> Self:
        """Returns the threshold that a share of clean pictures exceeds.

        It is the k-th smallest of n scores with k = ceil((n + 1) (1 - rate)): a further picture of the same kind
        exceeds it with a probability of at most `false_positive_rate`. The interval holds for any distribution of the
        scores (order statistics, binomial).

        Args:
            scores: `Purifier.attack_score` of clean pictures of one's own, prepared as those that will be judged.
            false_positive_rate: A share between 0 and 1, such as 0.01.
            purifier: The purifier that scored them.

        Raises:
            OptionError: If the rate is out of its range.
            InputError: If the pictures are too few for the rate, or a score is not in [0, 1].
        """
        rate, ordered, count = false_positive_rate, sorted(scores), len(scores)
        check_count(count, rate)
        if not all(0 <= score <= 1 for score in ordered):
            raise InputError("expected scores in [0, 1] from Purifier.attack_score, got others")
        low, high = _order_interval(count, 1 - rate)
        value = ordered[math.ceil((count + 1) * (1 - rate) - 1e-9) - 1]
        interval = ordered[low - 1], ordered[high - 1]
        return cls(value, rate, count, interval, purifier.name, detector_identity(purifier))

    def save(self, path: Path) -> None:
        """Writes a JSON file.

        Raises:
            OutputError: If it cannot be written.
        """
        write_text(path, json.dumps({"kind": _KIND, "format": _FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, purifier: Purifier | None = None) -> Self:
        """Reads a file of `save`.

        Args:
            path: The file.
            purifier: The purifier whose scores will be judged. None skips the comparison.

        Raises:
            InputError: If it is another file, or was calibrated for another gate.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            low, high = map(float, stored["interval"])
            value, rate = float(stored["value"]), float(stored["false_positive_rate"])
            if (stored["kind"], stored["format"]) != (_KIND, _FORMAT) or not 0 <= value <= 1:
                raise ValueError(f"kind {stored['kind']!r}, format {stored['format']!r}, value {value}")
            name, detector = str(stored["purifier"]), dict(stored["detector"])
            made = cls(value, rate, int(stored["pictures"]), (low, high), name, detector)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"expected a threshold from purifier detect --calibrate, got {path}: {type(error).__name__}: {error}"
            ) from error
        if purifier is not None and (found := differences(made.detector, detector_identity(purifier))):
            raise InputError(
                f"expected a threshold for the gate of {purifier.name!r}, got one for another ({found}); calibrate it "
                "again"
            )
        return made


def detector_identity(purifier: Purifier) -> dict[str, Any]:
    """Returns what attack scores depend on: the gate, the methods in front of it, and the dtype.

    Raises:
        OptionError: If the purifier does not have exactly one gate.
    """
    part, gate = purifier.gated_part()
    links = purifier.method.sequence
    before = Chain(links[: links.index(part)])
    return {
        "gate": {"filters": gate.filters, "blocks": gate.blocks, "sha256": weights_sha256(gate)},
        "in_front": {"links": [describe(link) for link in before.methods], "sha256": weights_sha256(before)},
        "dtype": str(purifier.dtype).removeprefix("torch."),
    }


def check_count(count: int, false_positive_rate: float) -> None:
    """Checks that so many pictures are enough for a rate: that the upper end of the 95 % interval exists.

    Raises:
        OptionError: If the rate is out of its range.
        InputError: If there are too few.
    """
    rate = check_number("false_positive_rate", false_positive_rate, low=1e-6, high=0.5)
    needed = math.ceil(math.log(_TAIL) / math.log1p(-rate))
    if count < needed:
        raise InputError(
            f"expected at least {needed} clean pictures for a false-positive rate of {rate:g}, got {count}; add "
            f"pictures, or allow a rate of {_least_rate(count)}"
        )


def _least_rate(count: int) -> str:
    """The lowest rate that so many pictures are enough for, as text, rounded up."""
    rate = -math.expm1(math.log(_TAIL) / max(count, 1))
    return f"{math.ceil(rate * 1000) / 1000:g}" if rate <= 0.5 else "0.5 with at least 6 pictures"


def _order_interval(count: int, share: float) -> tuple[int, int]:
    """Returns the ranks (from 1) of the ordered values between which the quantile of `share` lies with 95 %."""
    below = torch.distributions.Binomial(count, torch.tensor(share, dtype=torch.float64))
    chances = below.log_prob(torch.arange(count + 1, dtype=torch.float64)).exp().cumsum(0)
    # The value of rank r is above the quantile with the chance of at most r - 1 values below it.
    low = int((chances <= _TAIL).sum())
    high = int((chances < 1 - _TAIL).sum()) + 1
    return max(low, 1), min(high, count)
