"""The table of certified accuracy."""

from __future__ import annotations

from collections.abc import Iterable

from purifier.evaluation.certified import RADII, CertifiedRow

CERTIFIED_NOTE = (
    "Share of images, in %, that are right with a certificate: no perturbation of a smaller L2 norm than the radius "
    "changes the prediction, whatever the attacker knows. An abstention counts as an error. Brackets hold 95 % "
    "intervals over the choice of images."
)


def certified_heads() -> list[str]:
    """Returns the heads of the table of certified accuracy."""
    return ["Purifier", "sigma", "draws", "n", *(f"radius {radius:g}" for radius in RADII), "abstained"]


def certified_lines(rows: Iterable[CertifiedRow]) -> list[list[str]]:
    """Returns the lines of that table; figures are in %, with intervals in brackets."""
    return [
        [
            row.purifier, f"{row.certification.sigma:g}", f"{row.certification.draws:,}", str(row.images),
            *(f"{100 * share:.1f} [{100 * low:.0f}-{100 * high:.0f}]" for share, (low, high) in row.accuracies),
            f"{100 * row.abstained / row.images:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
