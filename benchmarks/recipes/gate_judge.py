"""Compares gates on held-out photographs: how often clean images skip the network, and what of attacks is detected.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.gate_judge NAME[=FOLDER] ... [--images 96]

For each gate_bias and gate_floor, on photographs of the validation part (160 x 160), which no training uses:

    skipped    share of clean images whose weights are all below the floor, so that the network does not run; then the
               smallest such share after changes that are not attacks (JPEG, noise of sigma 1/255, sharpening, resizing)
    weight     mean weight of the images under each blind attack on MobileNetV2 and EfficientNet-Lite1

For each gate_threshold, which compares the mean of an image's probabilities:

    skipped    share of clean images at or below it; then the smallest such share after changes that are not attacks
    opened     share of the images under each attack from twice the threshold on, whose weights count in full

ResNet-50, EfficientNet-Lite2 and the images of the evaluations are not used. Prints the tables only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import adjust_sharpness
from tqdm import tqdm

from benchmarks.accuracy.alloy_gate import Change, harmless
from benchmarks.kit import load_sources, photographs
from benchmarks.lite import lite1
from benchmarks.markdown import table
from benchmarks.recipes.alloy_judge import held_out
from benchmarks.recipes.extractors import mobilenet
from purifier._files import replacing
from purifier.attacks import MIFGSM, PGD, Attack
from purifier.evaluation.detected import area_under_roc
from purifier.methods._gate import Gate
from purifier.methods.gated import gate_of
from purifier.training.label_free import top_class_loss
from purifier.training.settings import PhotographTraining

BIASES = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
FLOORS = (1 / 1021, 0.02, 0.05, 0.1, 0.2, 0.3)
THRESHOLDS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
# Changes that many pictures undergo before a model sees them.
COMMON = ("as they are", "JPEG, quality 90", "JPEG, quality 50", "half the size", "Gaussian noise, sigma 1/255")


def changes() -> dict[str, Change]:
    """Returns the changes that are not attacks."""
    found = {name: change for name, change in harmless().items() if name in COMMON}
    return found | {
        "sharpened": lambda x: adjust_sharpness(x, 2.0),
        "1.4 times the size": lambda x: F.interpolate(x, scale_factor=1.4, mode="bilinear"),
    }


def attacks() -> dict[str, Attack]:
    """Returns attacks on the likeliest class, from the weakest on."""
    of = [PGD(eps=n / 255, alpha=n / 2550, steps=10, loss=top_class_loss) for n in (1, 2, 4, 16)]
    found: dict[str, Attack] = {f"PGD {round(255 * one.eps)}": one for one in of}
    found["PGD 2, steps of eps/2"] = PGD(eps=2 / 255, alpha=1 / 255, steps=10, loss=top_class_loss)
    return found | {"MI 4": MIFGSM(eps=4 / 255, alpha=0.4 / 255, steps=10, loss=top_class_loss)}


@torch.no_grad()
def logits(gate: Gate, images: Tensor) -> Tensor:
    """Returns the gate's logits in every cell, (N, 1, h, w)."""
    return torch.cat([gate.logits(batch) for batch in images.split(16)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purifiers", nargs="+", metavar="NAME[=FOLDER]")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--cache", type=Path, help="file of the attacked images, for the next call")
    args = parser.parse_args()
    clean = held_out(PhotographTraining(data=photographs()), args.images)
    moved = attacked(clean, args.cache) if args.cache else attacked_anew(clean)
    benign = {name: change(clean) for name, change in changes().items()}
    for name, purifier in load_sources(args.purifiers).items():
        gate = gate_of(purifier.method)
        if gate is None:
            raise SystemExit(f"expected purifiers with a gate, got {name}")
        print(f"\n{name}\n")
        print(judged(gate, benign, moved))


def attacked(clean: Tensor, cache: Path) -> dict[str, Tensor]:
    """Returns the attacked images, from a file if it exists."""
    if not cache.exists():
        with replacing(cache) as temporary:
            temporary.write_bytes(save(attacked_anew(clean)))
    found = load_file(cache)
    if any(len(images) != len(clean) for images in found.values()):
        raise SystemExit(f"expected {len(clean)} images of each attack in {cache}; delete it")
    return found


def attacked_anew(clean: Tensor) -> dict[str, Tensor]:
    """Attacks images (N, 3, H, W) on each network: the attacked ones, by the name of the attack and the network."""
    networks: dict[str, Callable[[], torch.nn.Module]] = {"mobilenet": mobilenet, "lite1": lite1}
    moved: dict[str, Tensor] = {}
    for name, make in networks.items():
        network = make().eval().requires_grad_(False)
        with torch.no_grad():
            predictions = torch.cat([network(batch).softmax(1) for batch in clean.split(16)])
        for kind, attack in tqdm(attacks().items(), desc=name):
            pairs = zip(clean.split(16), predictions.split(16), strict=True)
            moved[f"{kind}, {name}"] = torch.cat([attack.seeded(0)(network, *pair) for pair in pairs])
    return moved


def judged(gate: Gate, benign: dict[str, Tensor], moved: dict[str, Tensor]) -> str:
    """Returns the tables of a gate."""
    of_benign = {name: logits(gate, images) for name, images in benign.items()}
    of_moved = {name: logits(gate, images) for name, images in moved.items()}
    rows = []
    for bias in BIASES:
        weights = {name: (one + bias).sigmoid() for name, one in of_moved.items()}
        open_ = {name: one.mean((1, 2, 3)).mean().item() for name, one in weights.items()}
        for floor in FLOORS:
            shares = {
                name: ((one + bias).sigmoid().amax((1, 2, 3)) < floor).float().mean().item()
                for name, one in of_benign.items()
            }
            worst = min(shares, key=lambda name: shares[name])
            skipped = [f"{100 * shares['as they are']:.0f}", f"{100 * shares[worst]:.0f} ({worst})"]
            rows.append([f"{bias:g}", f"{floor:.3f}", *skipped, *(f"{value:.2f}" for value in open_.values())])
    head = ["bias", "floor", "skipped, clean", "skipped, worst change", *of_moved]
    surest = of_benign["as they are"].mean((1, 2, 3)).tolist()
    found = [f"{name}: {area_under_roc(one.mean((1, 2, 3)).tolist(), surest):.3f}" for name, one in of_moved.items()]
    areas = f"Area under the ROC curve of the mean logit, against clean: {', '.join(found)}"
    return f"{table(head, rows)}\n\n{areas}\n\n{thresholds(of_benign, of_moved)}"


def thresholds(of_benign: dict[str, Tensor], of_moved: dict[str, Tensor]) -> str:
    """Returns the table of thresholds, of logits by change and by attack."""
    benign = {name: one.sigmoid().mean((1, 2, 3)) for name, one in of_benign.items()}
    moved = {name: one.sigmoid().mean((1, 2, 3)) for name, one in of_moved.items()}
    rows = []
    for threshold in THRESHOLDS:
        shares = {name: (scores <= threshold).float().mean().item() for name, scores in benign.items()}
        worst = min(shares, key=lambda name: shares[name])
        opened = [f"{100 * (scores >= 2 * threshold).float().mean():.0f}" for scores in moved.values()]
        skipped = [f"{100 * shares['as they are']:.0f}", f"{100 * shares[worst]:.0f} ({worst})"]
        rows.append([f"{threshold:g}", *skipped, *opened])
    return table(["threshold", "skipped, clean", "skipped, worst change", *(f"{one}, opened" for one in moved)], rows)


if __name__ == "__main__":
    main()
