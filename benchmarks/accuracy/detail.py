"""How far purified images are from the clean ones, from the finest detail to the coarsest.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.detail

The figures are root mean square differences, in 1/255, between held-out photographs and their purified versions, by
bands of detail: what 1, the next 4 and the next 16 passes of GS remove, and the rest. Each alloy purifies everything
(gate_bias 20, gate_threshold 0), so the figures are those of its network without its gate. Two rows stand beside the
purifiers: the detail of the images themselves, which is the error of a purifier that removes all detail, and the
perturbations of the attacks. Attacks: none, PGD on MobileNetV2 and SSP on VGG-19, Linf 16/255.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.accuracy.evaluations import ALPHA, EPS
from benchmarks.accuracy.tables import detail
from benchmarks.kit import OPEN_GATE, environment, model, photographs, weights_of, write_result
from benchmarks.recipes.alloy_judge import held_out
from benchmarks.recipes.extractors import feature_extractor
from purifier import Purifier
from purifier.attacks import PGD, SSP
from purifier.methods.gs import GaussianSmoothing
from purifier.training.settings import PhotographTraining

PURIFIERS = ("gs", "ncis", "nrp-resg", "alloy", "alloy-s")
# Bands by the passes of GS that remove them, after those of the bands before.
BANDS = {"finest": 1, "fine": 4, "middle": 16}


def bands(difference: Tensor) -> dict[str, float]:
    """Returns the root mean square of images (N, 3, H, W) in each band, in 1/255."""
    found = {}
    for name, passes in BANDS.items():
        smooth = GaussianSmoothing(iterations=passes)(difference)
        found[name] = _size(difference - smooth)
        difference = smooth
    return {**found, "coarse": _size(difference)}


def _size(difference: Tensor) -> float:
    return 255 * difference.square().mean().sqrt().item()


def attacked(images: Tensor) -> dict[str, Tensor]:
    """Returns the images as they are, and under each attack."""
    random, classifier, features = torch.Generator().manual_seed(0), model("mobilenet_v2"), feature_extractor()
    pgd = PGD(eps=EPS, alpha=ALPHA, steps=10, generator=random)
    ssp = SSP(features, eps=EPS, alpha=4 / 255, steps=10, generator=random)
    with torch.no_grad():
        classes = classifier(images).argmax(1)
    return {
        "none": images,
        "PGD Linf 16/255": pgd(classifier, images, classes),
        "SSP 16/255": ssp(features, images, None),
    }


def purifier(name: str) -> Purifier:
    """Loads a purifier; the gate of an alloy lets everything be purified."""
    return Purifier.from_pretrained(name, **(OPEN_GATE if name.startswith("alloy") else {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--purifiers", nargs="+", default=list(PURIFIERS))
    parser.add_argument("--name", default="detail", help="name of the result file")
    args = parser.parse_args()
    images = held_out(PhotographTraining(data=photographs()), args.images)
    hostile = attacked(images)
    own = bands(images - images.mean((2, 3), keepdim=True))
    rows = [{"purifier": "the images themselves", "attack": "none", **own}]
    rows += [{"purifier": "none", "attack": name, **bands(x - images)} for name, x in hostile.items() if name != "none"]
    purifiers = {name: purifier(name) for name in args.purifiers}
    for name, purify in tqdm(purifiers.items(), unit="purifier"):
        with torch.inference_mode():
            for attack, x in hostile.items():
                made = torch.cat([purify(part) for part in x.split(8)])
                rows.append({"purifier": name, "attack": attack, **bands(made - images)})
    settings, weights = {"images": len(images)}, weights_of(purifiers)
    result = {"settings": settings, "weights": weights, "rows": rows, "environment": environment()}
    write_result(args.name, result)
    print(detail(result))


if __name__ == "__main__":
    main()
