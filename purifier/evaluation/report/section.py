"""Tables of a report beside the headline table: certified accuracy, and attack scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from purifier.evaluation.certified import RADII, CertifiedRow
from purifier.evaluation.detected import RATE, DetectedRow
from purifier.evaluation.metrics.classification import interval


class Section(NamedTuple):
    """A table with its title and what its figures are."""

    title: str
    note: str
    heads: list[str]
    lines: list[list[str]]


def sections(certified: Sequence[CertifiedRow], detected: Sequence[DetectedRow]) -> list[Section]:
    """Returns the tables that have lines."""
    return [section for section in (_certified(certified), _detected(detected)) if section.lines]


def _certified(rows: Iterable[CertifiedRow]) -> Section:
    return Section(
        "Certified accuracy",
        "Share of images, in %, that are right with a certificate: no perturbation of a smaller L2 norm than the "
        "radius changes the prediction, whatever the attacker knows. An abstention counts as an error. Brackets hold "
        "95 % intervals over the choice of images.",
        ["Purifier", "sigma", "draws", "n", *(f"radius {radius:g}" for radius in RADII), "abstained"],
        [
            [
                row.purifier, f"{row.certification.sigma:g}", f"{row.certification.draws:,}", str(row.images),
                *(_percent(share, within) for share, within in row.accuracies),
                f"{100 * row.abstained / row.images:.1f}",
            ]
            for row in rows
        ],
    )  # fmt: skip


def _detected(rows: Iterable[DetectedRow]) -> Section:
    return Section(
        "Attack scores",
        "How well the purifier's gate tells attacked images from clean ones. Area: the chance that an attacked image "
        f"has the higher score. Detected: share, in %, above the score that {100 * RATE:.0f} % of the clean images of "
        "this evaluation exceed. Wrong and undetected: share that passes both. Brackets hold 95 % intervals.",
        ["Purifier", "attack", "threat", "knows the gate", "n", "area", "detected", "wrong and undetected"],
        [
            [
                row.purifier, row.attack, row.threat, "yes" if row.knows_gate else "no", str(row.images),
                f"{row.area:.3f}", *(_share(count, row.images) for count in (row.detected, row.hidden)),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _share(count: int | None, images: int) -> str:
    return "too few images" if count is None else _percent(count / images, interval(count, images))


def _percent(share: float, within: tuple[float, float]) -> str:
    low, high = within
    return f"{100 * share:.1f} [{100 * low:.0f}-{100 * high:.0f}]"
