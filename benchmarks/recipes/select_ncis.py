"""Chooses between trained ncis weights, on images that take no part in the accuracy tables.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.select_ncis LABEL=FOLDER [LABEL=FOLDER+FOLDER ...]

A folder is one that `purifier train ncis` wrote, or a bundled name; the weights of several, joined by "+", are
averaged. The images are the 220 of voc_val120 and coco_val100, scaled to a short side of 256 and cut to 224 x 224. They
have no ImageNet labels, so the figures are purification success rates: shares of images that a classifier classifies as
it does the clean image without a purifier. "standard" is the rate on clean images, "robust" that under the blind PGD of
blind_pgd.py. The score of a candidate is the best mean of the two over the numbers of iterations, averaged over the
classifiers. The purifiers compute in bfloat16 to save time. Results: benchmarks/results/select_ncis.json, which keeps
earlier candidates.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.accuracy.evaluations import BLIND_PGD, as_files, attacked, measured
from benchmarks.accuracy.tables import CLASSIFIERS
from benchmarks.kit import environment, kit, model, read_result, weights_of, write_result
from benchmarks.recipes.tables import ncis_selection
from purifier import Purifier
from purifier.attacks import Blind
from purifier.data.images import to_tensor

ITERATIONS = 6


def scenes(side: int = 224) -> Tensor:
    """Reads the images (N, 3, side, side): scaled to a short side of 8 / 7 of `side`, and cut out in the middle."""
    folders = [kit() / "voc_val120" / "images", kit() / "coco_val100" / "images"]
    return torch.stack([_centre(path, side) for folder in folders for path in sorted(folder.glob("*.jpg"))])


def _centre(path: Path, side: int) -> Tensor:
    with Image.open(path) as image:
        factor = side * 8 / 7 / min(image.size)
        width, height = (round(length * factor) for length in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        return to_tensor(np.asarray(small.crop((left, top, left + side, top + side))))


def candidate(argument: str, iterations: int = 1) -> Purifier:
    """Loads "a", or the mean of the weights of "a+b"."""
    members = [Purifier.from_pretrained(part, iterations=iterations) for part in argument.split("+")]
    states = [member.method.state_dict() for member in members]
    mean = {key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]}
    members[0].method.load_state_dict(mean)
    return members[0]


def rates(source: str, images: Tensor, work: Path) -> dict[str, Any]:
    """Returns the success rates of a candidate by classifier and number of iterations, as "CLASSIFIER i=N"."""
    purifiers = {f"i={i}": candidate(source, i).to(torch.bfloat16) for i in range(1, ITERATIONS + 1)}
    table: dict[str, Any] = {}
    for classifier in CLASSIFIERS:
        network = model(classifier)
        with torch.inference_mode():
            classes = torch.cat([network(batch).argmax(1) for batch in images.split(20)])
        found = measured(
            classifier, network, as_files(images, classes, work / "images"), purifiers=purifiers,
            attacks=BLIND_PGD, threats={"blind": Blind()}, out=work / classifier,
        )  # fmt: skip
        clean = {row.purifier: row.purification_success_rate for row in found.rows if row.threat == "none"}
        for row in attacked(found.rows):
            if row.purifier in purifiers:
                standard, robust = clean[row.purifier], row.purification_success_rate
                shares = {"standard": standard, "robust": robust, "mean": (standard + robust) / 2}
                table[f"{classifier} {row.purifier}"] = shares
    return table


def score(table: dict[str, Any]) -> float:
    best = [max(row["mean"] for key, row in table.items() if key.startswith(f"{name} ")) for name in CLASSIFIERS]
    return sum(best) / len(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="+", metavar="LABEL=FOLDER")
    parser.add_argument("--work", type=Path, default=Path("runs/select_ncis"), help="folder for images and records")
    parser.add_argument("--name", default="select_ncis", help="name of the result file")
    args = parser.parse_args()
    images = scenes()
    result = read_result(args.name, {"images": len(images), "weights": {}, "candidates": {}})
    for label, _, source in (argument.partition("=") for argument in args.candidates):
        table = rates(source, images, args.work / label)
        result["candidates"][label] = {"score": score(table), "rows": table}
        result["weights"] |= weights_of({label: candidate(source)})
        write_result(args.name, {**result, "environment": environment()})
    print(ncis_selection(result))


if __name__ == "__main__":
    main()
