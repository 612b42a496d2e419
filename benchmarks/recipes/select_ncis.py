"""Chooses between trained ncis weights, on images that take no part in the accuracy tables.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.select_ncis LABEL=FOLDER [LABEL=FOLDER+FOLDER ...]

A folder is one that `purifier train ncis` wrote, or a bundled name; the weights of several, joined by "+", are
averaged. The images are the 220 of voc_val120 and coco_val100, scaled to a short side of 256 and cut to 224 x 224. They
carry no ImageNet labels, so a classifier is right where it says what it says of the clean image without a purifier
(purification success rate): "standard" is that rate on clean images and "robust" on images attacked by the blind PGD of
blind_pgd.py. For each candidate the score is the mean over the classifiers of its best mean of the two over i. Attacked
images are kept in --work and finished candidates in the result file, so a run that was killed goes on. The purifiers
compute in bfloat16 to save time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.accuracy.blind_pgd import attacked, digest, purified
from benchmarks.kit import RESULTS, environment, kit, model, write_result
from purifier import Purifier
from purifier.data.images import to_tensor

CLASSIFIERS = ("resnet50", "mobilenet_v2")
ITERATIONS = 6


def scenes(side: int = 224) -> Tensor:
    """Reads the images (N, 3, side, side): short side scaled to 8 / 7 of `side`, centre cut out."""
    folders = [kit() / "voc_val120" / "images", kit() / "coco_val100" / "images"]
    return torch.stack([_centre(path, side) for folder in folders for path in sorted(folder.glob("*.jpg"))])


def _centre(path: Path, side: int) -> Tensor:
    with Image.open(path) as image:
        factor = side * 8 / 7 / min(image.size)
        width, height = (round(length * factor) for length in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        return to_tensor(np.asarray(small.crop((left, top, left + side, top + side))))


@torch.no_grad()
def predicted(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(batch).argmax(1) for batch in images.split(20)])


def candidate(argument: str) -> Purifier:
    """Loads "a" or the mean of the weights of "a+b"."""
    members = [Purifier.from_pretrained(part, iterations=1) for part in argument.split("+")]
    states = [member.method.state_dict() for member in members]
    mean = {key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]}
    members[0].method.load_state_dict(mean)
    return members[0]


def rates(purifier: Purifier, images: Tensor, hostile: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Any]:
    """Success rates of each classifier at each number of iterations."""
    networks = {name: model(name) for name in CLASSIFIERS}
    clean, now, table = images, dict(hostile), {}
    for i in tqdm(range(1, ITERATIONS + 1), desc=purifier.name):
        clean = purified(purifier, clean)
        for name, network in networks.items():
            now[name] = purified(purifier, now[name])
            standard, robust = (
                (predicted(network, x) == truth[name]).float().mean().item() for x in (clean, now[name])
            )
            table[f"{name} i={i}"] = {"standard": standard, "robust": robust, "mean": (standard + robust) / 2}
    return table


def score(table: dict[str, Any]) -> float:
    best = [max(row["mean"] for key, row in table.items() if key.startswith(f"{name} ")) for name in CLASSIFIERS]
    return sum(best) / len(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="+", metavar="LABEL=FOLDER")
    parser.add_argument("--work", type=Path, default=Path("runs/select_ncis"), help="folder for attacked images")
    parser.add_argument("--name", default="select_ncis", help="name of the result file")
    args = parser.parse_args()

    images = scenes()
    truth = {name: predicted(model(name), images) for name in CLASSIFIERS}
    hostile = {name: attacked(name, images, truth[name], args.work) for name in CLASSIFIERS}
    path = RESULTS / f"{args.name}.json"
    result = json.loads(path.read_text()) if path.exists() else {"images": len(images), "candidates": {}}
    for label, _, source in (argument.partition("=") for argument in args.candidates):
        purifier = candidate(source)
        key = digest(purifier)
        if key not in result["candidates"]:
            table = rates(purifier.to(torch.bfloat16), images, hostile, truth)
            result["candidates"][key] = {"score": score(table), "rows": table}
        result["candidates"][key]["name"] = label
        write_result(args.name, {**result, "environment": environment()})
    for entry in sorted(result["candidates"].values(), key=lambda entry: -entry["score"]):
        print(f"{100 * entry['score']:5.1f}  {entry['name']}")
        for name in CLASSIFIERS:
            means = [entry["rows"][f"{name} i={i}"] for i in range(1, ITERATIONS + 1)]
            shown = "  ".join(f"{100 * row['standard']:.0f}/{100 * row['robust']:.0f}" for row in means)
            print(f"       {name}: standard/robust at i = 1..{ITERATIONS}: {shown}")


if __name__ == "__main__":
    main()
