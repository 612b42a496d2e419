"""How far purified images are from the clean ones, from the finest detail to the coarsest.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.detail

Root mean square difference, in 1/255, of held-out photographs and what a purifier makes of them, by bands: what passes
of GS take out, 1, 1 to 5 and 5 to 21 of them, and what these leave. Every alloy purifies everything (gate_bias 20), so
that this is what its network does and not its gate. Beside the purifiers: what the images have in each band, which is
how far one without any detail would be, and how far the attack moves them. Attacks: none, PGD on MobileNetV2 and SSP on
VGG-19, Linf 16/255.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.kit import environment, feature_extractor, model, write_result
from benchmarks.recipes.alloy_figures import EPS, held_out
from benchmarks.recipes.training_script import photographs
from benchmarks.tables import detail
from purifier import Purifier
from purifier.attacks import PGD, SSP
from purifier.methods.gs import GaussianSmoothing
from purifier.training.settings import PhotographTraining

PURIFIERS = ("gs", "ncis", "nrp-resg", "alloy", "alloy-s")
# Passes of GS from one band to the next, and the band that the first of them takes out.
BANDS = {"finest": 1, "fine": 4, "middle": 16}


def bands(difference: Tensor) -> dict[str, float]:
    """Root mean square of images (N, 3, H, W) in each band, in 1/255."""
    found = {}
    for name, passes in BANDS.items():
        smooth = GaussianSmoothing(iterations=passes)(difference)
        found[name] = _size(difference - smooth)
        difference = smooth
    return {**found, "coarse": _size(difference)}


def _size(difference: Tensor) -> float:
    return 255 * difference.square().mean().sqrt().item()


def attacked(images: Tensor) -> dict[str, Tensor]:
    """The images, as they are and attacked."""
    random, classifier, features = torch.Generator().manual_seed(0), model("mobilenet_v2"), feature_extractor()
    pgd = PGD(eps=EPS, alpha=1.6 / 255, steps=10, generator=random)
    ssp = SSP(features, eps=EPS, alpha=4 / 255, steps=10, generator=random)
    with torch.no_grad():
        classes = classifier(images).argmax(1)
    return {
        "none": images,
        "PGD Linf 16/255": pgd(classifier, images, classes),
        "SSP 16/255": ssp(features, images, None),
    }


def purifier(name: str) -> Purifier:
    """A purifier without a gate that spares anything."""
    options = {"gate_bias": 20.0} if name.startswith("alloy") else {}
    return Purifier.from_pretrained(name, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--purifiers", nargs="+", default=list(PURIFIERS))
    parser.add_argument("--name", default="detail", help="name of the result file")
    args = parser.parse_args()
    images = held_out(PhotographTraining(data=photographs()), args.images)
    hostile = attacked(images)
    rows = [
        {"purifier": "the images themselves", "attack": "none", **bands(images - images.mean((2, 3), keepdim=True))}
    ]
    rows += [{"purifier": "none", "attack": name, **bands(x - images)} for name, x in hostile.items() if name != "none"]
    for name in tqdm(args.purifiers, unit="purifier"):
        purify = purifier(name)
        with torch.inference_mode():
            for attack, x in hostile.items():
                made = torch.cat([purify(part) for part in x.split(8)])
                rows.append({"purifier": name, "attack": attack, **bands(made - images)})
    result = {"settings": {"images": len(images)}, "rows": rows, "environment": environment()}
    write_result(args.name, result)
    print(detail(result))


if __name__ == "__main__":
    main()
