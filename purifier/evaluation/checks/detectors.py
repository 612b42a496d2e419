"""A detector that is judged by attacks that do not know it.

Source: Carlini and Wagner, "Adversarial Examples Are Not Easily Detected", AISec 2017, https://arxiv.org/abs/1705.07263.
"""

from __future__ import annotations

from collections.abc import Iterable

from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.detected import DetectedRow

UNAWARE = Check(
    "detector judged by unaware attacks",
    "the attack scores of a purifier are measured, and no attack hides from its gate",
    "An attacker who knows the gate lowers its score and fools the model at the same time, so the detection rates hold "
    "for other attackers only. Measure Aware(gate_weight=0.3) beside them.",
)


def unaware_detectors(rows: Iterable[DetectedRow]) -> list[tuple[str | None, Finding]]:
    """Checks each purifier with attack scores once."""
    by_name: dict[str, list[DetectedRow]] = {}
    for row in rows:
        by_name.setdefault(row.purifier, []).append(row)
    return [
        (name, UNAWARE.found(f"none of {len(found)} attacks knows the gate"))
        for name, found in by_name.items()
        if not any(row.knows_gate for row in found)
    ]
