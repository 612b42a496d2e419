"""A perturbation that smoothing cannot average out.

Source: Cha et al., WACV 2024, section 3.2, https://arxiv.org/abs/2106.11644: perturbations of PGD have a mean of nearly
zero in small patches, which is why smoothing removes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.metrics.perturbation import PATCH
from purifier.evaluation.rows import Row

# Measured on 20 photographs of 224 pixels: PGD, MI-FGSM and FGSM have 0.15 to 0.21, TI-FGSM, Square and low-frequency
# PGD 0.40 to 0.63.
_MOST = 0.3
COARSE = Check(
    "perturbation that smoothing keeps",
    f"in patches of {PATCH} x {PATCH} pixels, the mean of the perturbation is over {100 * _MOST:.0f} % of its size, "
    "where independent pixels would give 11 %",
    "Smoothing removes only what averages out within its kernel. What purifiers that smooth (gs, ncis, median, tvm) do "
    "under PGD does not carry over to this attack, nor the reverse: measure both.",
)


def coarse_rows(rows: Sequence[Row]) -> Finding | None:
    """Checks whether the perturbations of an attack have a mean of zero in patches."""
    seen = {
        f"{row.attack} ({row.threat}) {100 * row.settings['patch_mean']:.0f} %"
        for row in rows
        if row.settings.get("patch_mean", 0.0) > _MOST
    }
    return COARSE.found("; ".join(sorted(seen))) if seen else None
