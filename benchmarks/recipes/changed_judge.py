"""Compares purifiers on held-out photographs whose attacked images were compressed, resized or made noisy on the way.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.changed_judge NAME[=FOLDER] ... [--set gate_bias=20]

Each figure is the share, in %, of images whose class is the one that the classifier gives to the clean image without a
purifier; of the half that it is surest of. Rows are the blind attacks of benchmarks.recipes.gate_judge on MobileNetV2
and EfficientNet-Lite1, on photographs of the validation part (160 x 160), which no training uses. ResNet-50,
EfficientNet-Lite2 and the images of the evaluations are not used. Prints the tables only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy.alloy_gate import Change
from benchmarks.kit import photographs, sources
from benchmarks.lite import lite1
from benchmarks.markdown import table
from benchmarks.recipes.alloy_judge import held_out
from benchmarks.recipes.extractors import mobilenet
from benchmarks.recipes.gate_judge import attacked, attacked_anew
from purifier import Purifier
from purifier.training.settings import PhotographTraining

NETWORKS: dict[str, Callable[[], nn.Module]] = {"mobilenet": mobilenet, "lite1": lite1}
ATTACKS = ("PGD 1", "PGD 4", "PGD 16", "MI 4")


def changes() -> dict[str, Change]:
    """Returns what happens to an image between the attacker and the purifier."""
    found: dict[str, Change] = {"as it is": lambda images: images}
    for quality in (90, 75, 50):
        found[f"JPEG {quality}"] = Purifier.from_pretrained("jpeg", quality=quality)
    return found | {"half the size": _halved, "noise of 2/255": _noisy}


def _halved(images: Tensor) -> Tensor:
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")


def _noisy(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 2 / 255 * noise).clamp(0, 1)


@torch.no_grad()
def shares(
    purify: Callable[[Tensor], Tensor], network: nn.Module, clean: Tensor, attacked_images: dict[str, Tensor]
) -> list[list[str]]:
    """Returns a row of figures for the clean images and for each attack, one figure a change."""
    sureness, classes = torch.cat([network(batch).softmax(1) for batch in clean.split(16)]).max(1)
    sure = sureness.topk(-(-len(clean) // 2)).indices
    made, rows = changes(), []
    for kind, images in {"clean": clean, **attacked_images}.items():
        row = [kind]
        for change in made.values():
            given = torch.cat([network(purify(change(batch))).argmax(1) for batch in images[sure].split(16)])
            row.append(f"{100 * (given == classes[sure]).float().mean():.1f}")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purifiers", nargs="+", metavar="NAME[=FOLDER]")
    parser.add_argument("--set", metavar="OPTION=NUMBER", action="append", default=[], help="for every purifier")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--cache", type=Path, help="file of the attacked images, for the next call")
    args = parser.parse_args()
    clean = held_out(PhotographTraining(data=photographs()), args.images)
    moved = attacked(clean, args.cache) if args.cache else attacked_anew(clean)
    pairs = (given.partition("=") for given in args.set)
    options = {option: float(number) for option, _, number in pairs}
    for name, source in sources(args.purifiers).items():
        purifier = Purifier.from_pretrained(source, **options)
        for network, make in NETWORKS.items():
            of_network = {kind: moved[f"{kind}, {network}"] for kind in ATTACKS}
            rows = shares(purifier, make().eval().requires_grad_(False), clean, of_network)
            print(f"\n{name}, {network}\n\n{table(['attack', *changes()], rows)}", flush=True)


if __name__ == "__main__":
    main()
