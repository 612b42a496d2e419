"""Chooses the share of the image's size at which the network of an alloy works, on held-out photographs.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.scale_judge

Each figure is the share, in %, of images whose class is the one that the classifier gives to the clean image without a
purifier; of the half that it is surest of. The gate is open (gate_bias 20, gate_threshold 0), so that clean images are
purified too. The attacks are blind, with 10 steps of eps/10. The photographs (160 x 160) are those of the validation
part, which no training uses. ResNet-50, EfficientNet-Lite2 and the images of the evaluations are not used; the extra
`judges` has EfficientNet-Lite1. Results: benchmarks/results/alloy_scale.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.kit import environment, photographs, weights_of, write_result
from benchmarks.markdown import table
from benchmarks.recipes.alloy_judge import held_out
from benchmarks.recipes.changed_judge import NETWORKS
from purifier import Purifier
from purifier._wrapping import DEFAULT
from purifier.attacks import MIFGSM, PGD, Attack
from purifier.training.settings import PhotographTraining

SCALES = (1.0, 0.875, 0.75, 0.625, 0.5)
BATCH = 8
Shares = dict[str, float]


def attacks() -> dict[str, Attack]:
    """Returns the attacks."""
    found: dict[str, Attack] = {}
    for kind in (PGD, MIFGSM):
        for n in (4, 16):
            found[f"{kind.__name__} {n}/255"] = kind(eps=n / 255, alpha=n / 2550, steps=10)
    return found


class Judge:
    """A classifier, the clean images that it is surest of (N, 3, H, W), its classes (N,), and its own attacks."""

    def __init__(self, network: nn.Module, images: Tensor, title: str) -> None:
        self.network = network
        with torch.no_grad():
            sureness, classes = torch.cat([network(batch).softmax(1) for batch in images.split(BATCH)]).max(1)
        sure = sureness.topk(-(-len(images) // 2)).indices
        self.classes = classes[sure]
        self.images = {"clean": images[sure]}
        pairs = list(zip(images[sure].split(BATCH), self.classes.split(BATCH), strict=True))
        for name, attack in tqdm(attacks().items(), desc=title):
            self.images[name] = torch.cat([attack.seeded(k)(network, *pair) for k, pair in enumerate(pairs)])

    @torch.inference_mode()
    def shares(self, purify: Callable[[Tensor], Tensor]) -> Shares:
        """Returns the share of images that keep their class, clean and under each attack."""
        found = {}
        for name, images in self.images.items():
            given = torch.cat([self.network(purify(batch)).argmax(1) for batch in images.split(BATCH)])
            found[name] = (given == self.classes).float().mean().item()
        return found


def markdown(result: dict[str, Any]) -> str:
    """The table of the result file."""
    first = next(iter(result["rows"].values()))
    heads = [f"{network}, {name}" for network, shares in first.items() for name in shares]
    lines = []
    for scale, row in result["rows"].items():
        hostile = [share for shares in row.values() for name, share in shares.items() if name != "clean"]
        figures = [share for shares in row.values() for share in shares.values()]
        lines.append([scale, *(f"{100 * share:.1f}" for share in [*figures, sum(hostile) / len(hostile)])])
    return table(["scale", *heads, "mean under attack"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--name", default="alloy_scale", help="name of the result file")
    args = parser.parse_args()
    images = held_out(PhotographTraining(data=photographs()), args.images)
    judges = {name: Judge(make().eval().requires_grad_(False), images, name) for name, make in NETWORKS.items()}
    rows: dict[str, dict[str, Shares]] = {}
    for scale in tqdm(SCALES, desc="scales"):
        purifier = Purifier.from_pretrained(DEFAULT, scale=scale, gate_bias=20.0, gate_threshold=0.0)
        rows[f"{scale:g}"] = {name: judge.shares(purifier) for name, judge in judges.items()}
    settings = {**vars(args), "purifier": DEFAULT, "surest": len(next(iter(judges.values())).classes)}
    weights = weights_of({DEFAULT: Purifier.from_pretrained(DEFAULT)})
    result = {"settings": settings, "weights": weights, "rows": rows, "environment": environment()}
    write_result(args.name, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
