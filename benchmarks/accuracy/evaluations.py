"""How the benchmarks call `purifier.evaluation.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from purifier import Purifier
from purifier.attacks import PGD, Attack
from purifier.attacks.threats import ThreatModel
from purifier.evaluation import Evaluation, EvaluationSettings, ImageSet, LabelledImages, Row, evaluate

# The attack of blind_pgd.py and of the scripts that share its images.
EPS, ALPHA, STEPS = 16 / 255, 1.6 / 255, 10
BLIND_PGD: dict[str, Attack] = {"PGD Linf 16/255": PGD(eps=EPS, alpha=ALPHA, steps=STEPS)}
ATTACK = {"eps": EPS, "alpha": ALPHA, "steps": STEPS, "norm": "Linf"}


def measured(
    title: str,
    network: nn.Module,
    data: ImageSet,
    *,
    purifiers: Mapping[str, Purifier],
    attacks: Mapping[str, Attack],
    threats: Mapping[str, ThreatModel],
    out: Path,
    batch_size: int = 20,
    defend_dtypes: tuple[str, ...] = (),
    **task: Any,
) -> Evaluation:
    """Evaluates without self-checks, with a progress bar; a run that was stopped resumes from `out`.

    `out` is a folder for this evaluation alone; `task` holds the options of `evaluate` for detectors and segmenters.
    """
    settings = EvaluationSettings(batch_size=batch_size, defend_dtypes=defend_dtypes, probe_images=0, pictures=2)
    with tqdm(desc=title, unit="image") as bar:
        found = evaluate(
            network, data, purifiers=purifiers, attacks=attacks, threats=threats, out=out, settings=settings,
            progress=bar.update, **task,
        )  # fmt: skip
    for row in found.rows:
        print(title, row.purifier, row.settings.get("attack_key", row.attack), row.threat, row.robust)
    return found


def attacked(rows: Sequence[Any]) -> list[Any]:
    """Returns the rows of single attacks: without those of clean images and of several attacks combined."""
    return [row for row in rows if "attack_key" in row.settings]


def figures(row: Row) -> dict[str, Any]:
    """Returns the shares of a row under one attack, as the result files have them."""
    return {
        "images": row.images,
        "standard": row.standard_accuracy,
        "robust": row.robust_accuracy,
        "mean": (row.standard + row.robust) / (2 * row.images),
        "standard_interval": row.standard_interval,
        "robust_interval": row.robust_interval,
    }


def as_files(images: Tensor, labels: Tensor, folder: Path) -> LabelledImages:
    """Writes images (N, 3, H, W) of 8-bit pixels as PNG files, and returns them as a set with their labels (N,)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"{number:04}.png" for number in range(len(images)))
    for path, image in zip(files, images, strict=True):
        to_pil_image((image * 255).round().to(torch.uint8)).save(path)
    return LabelledImages(root=folder, files=files, labels=tuple(labels.tolist()))
