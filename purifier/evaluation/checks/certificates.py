"""A certificate that is computed with too few draws."""

from __future__ import annotations

from collections.abc import Iterable

from purifier.evaluation.certified import CertifiedRow
from purifier.evaluation.checks.finding import Check, Finding

# The largest radius, in units of sigma, that 1,000 draws can show at alpha = 0.001 is 2.46.
_LEAST = 2.4

FEW_DRAWS = Check(
    "few draws",
    f"an image of which all draws hit would get a radius below {_LEAST} sigma",
    "The certificates hold, but they are small because of the number of draws, and columns of larger radii are 0 "
    "whatever the denoiser does. Certify with 1,000 draws or more, and compare figures of one number only.",
)


def few_draws(rows: Iterable[CertifiedRow]) -> list[tuple[str | None, Finding]]:
    """Checks each certification once."""
    certifications = dict.fromkeys(row.certification for row in rows)
    return [
        (None, FEW_DRAWS.found(f"{one.draws:,} draws show a radius of at most {one.largest_radius:.3f}"))
        for one in certifications
        if one.largest_radius < _LEAST * one.sigma
    ]
