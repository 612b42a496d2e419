"""How well the attack score of a purifier's gate tells the attacked images of an evaluation from the clean ones.

Attacks that know the gate hide from it (Carlini and Wagner, "Adversarial Examples Are Not Easily Detected", AISec 2017,
https://arxiv.org/abs/1705.07263): measure `Aware(gate_weight=...)` before you trust a score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from purifier.evaluation.defences import Variant
from purifier.evaluation.plan import Cell

# Share of the clean images that may count as attacked, and the fewest clean images for a threshold.
RATE, FEWEST = 0.05, 20

_Records = Mapping[int, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class DetectedRow:
    """The attack scores of one purifier under one attack.

    Attributes:
        purifier: Its name.
        attack: The attack's name in the evaluation.
        threat: The threat model's name in the evaluation.
        knows_gate: Whether the attack hides from the gate (`gate_weight` above 0).
        images: Number of images (n).
        area: Area under the ROC curve: the chance that an attacked image has a higher score than a clean one.
        detected: Number of attacked images above the threshold that 5 % of the clean images of the evaluation exceed;
            None with fewer than 20 images.
        hidden: Number of attacked images that are classified wrongly behind the purifier and not detected; likewise.
    """

    purifier: str
    attack: str
    threat: str
    knows_gate: bool
    images: int
    area: float
    detected: int | None
    hidden: int | None

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, ready for JSON."""
        return asdict(self)


def detected_rows(cells: Sequence[Cell], records: Mapping[str, _Records]) -> tuple[DetectedRow, ...]:
    """Returns a row for each attack and each purifier with attack scores.

    Args:
        cells: The cells of the evaluation, clean images first.
        records: The record of each image, by the cell's name and the image's index.
    """
    clean = records[cells[0].name]
    names = [name for name in cells[0].purifiers if _scores(clean.values(), name)]
    rows = [(cell, name) for cell in cells[1:] for name in names if name in cell.purifiers]
    return tuple(
        _row(cell, name, records[cell.name], clean) for cell, name in rows if _scores(records[cell.name].values(), name)
    )


def area_under_roc(attacked: Sequence[float], clean: Sequence[float]) -> float:
    """Returns the chance that an attacked score exceeds a clean one; ties count half."""
    high, ordered = torch.tensor(attacked, dtype=torch.float64), torch.tensor(sorted(clean), dtype=torch.float64)
    below, upto = (torch.searchsorted(ordered, high, right=right) for right in (False, True))
    return float((below + upto).double().mean()) / 2 / len(ordered)


def limit_at(clean: Sequence[float], rate: float) -> float:
    """Returns the score that a share of the clean scores exceeds."""
    ordered = sorted(clean)
    return ordered[max(0, math.ceil(len(ordered) * (1 - rate) - 1e-9) - 1)]


def _scores(records: Iterable[dict[str, Any]], name: str) -> list[float]:
    """Returns a purifier's scores; empty if a record has none."""
    found = [record.get("scores", {}).get(name) for record in records]
    return [] if None in found else found


def _row(cell: Cell, name: str, attacked: _Records, clean: _Records) -> DetectedRow:
    usual, scores = _scores(clean.values(), name), _scores(attacked.values(), name)
    detected = hidden = None
    if len(usual) >= FEWEST:
        limit, way = limit_at(usual, RATE), Variant().key
        wrong = [record["predictions"][way][name] != record["label"] for record in attacked.values()]
        detected = sum(score > limit for score in scores)
        hidden = sum(score <= limit and lost for score, lost in zip(scores, wrong, strict=True))
    return DetectedRow(
        purifier=name,
        attack=cell.attack_key,
        threat=cell.threat_key,
        knows_gate=getattr(cell.threat, "gate_weight", 0) > 0,
        images=len(scores),
        area=area_under_roc(scores, usual),
        detected=detected,
        hidden=hidden,
    )
