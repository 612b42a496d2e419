"""What the measurements of GAD in front of a segmenter and a detector have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from purifier import Purifier
from purifier.attacks import BPDA, Aware, Blind
from purifier.attacks.threats import ThreatModel
from purifier.evaluation import Evaluation

Part = tuple[dict[str, Purifier], dict[str, ThreatModel], int]


def parts(folder: Path, smoothing: int, images: int, aware_images: int) -> dict[str, Part]:
    """Purifiers, threat and number of images of each part of a measurement.

    Args:
        folder: A trained GAD.
        smoothing: Iterations of the gs beside it.
        images: Images of the purifier-blind attacks.
        aware_images: Those of the attacks that know the purifier.
    """
    gad, jpeg = Purifier.from_pretrained(folder), Purifier.from_pretrained("jpeg")
    gs, both = Purifier.from_pretrained("gs", iterations=smoothing), Purifier.chain(gad, jpeg)
    every = {"jpeg": jpeg, f"gs i={smoothing}": gs, "gad": gad, "gad, jpeg": both}
    return {
        "blind": (every, {"blind": Blind()}, images),
        "aware": ({"gad": gad}, {"aware": Aware()}, aware_images),
        "bpda": ({"gad, jpeg": both}, {"bpda": BPDA()}, aware_images),
    }


def evaluated(title: str, evaluate: Callable[..., Evaluation]) -> dict[str, Any]:
    """Settings and rows of an evaluation, which takes `progress`; prints the rows."""
    with tqdm(desc=title, unit="image") as bar:
        evaluation = evaluate(progress=bar.update)
    rows = [row.to_dict() for row in evaluation.rows]
    for row in rows:
        print(title, row["purifier"], row["attack"], row["robust"])
    return {"settings": evaluation.settings, "rows": rows}
