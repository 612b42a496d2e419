"""What the gate of alloy does: to accuracy, also in front of other purifiers, and to images that nobody attacked.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.alloy_gate [--purifier alloy[=FOLDER]]

1. Standard accuracy, and robust accuracy under the attack of blind_pgd.py, with and without the gate: of the
   alloy itself, and of others, which have none of their own: x + g(x) (p(x) - x), with the alloy's g, as
   `Purifier.gated` does. The attacked images are those of blind_pgd.py, kept in --work.
2. What `gate_bias` does: agreement with what MobileNetV2 says of the held-out photographs of alloy_judge.py that it is
   surest of, clean and under blind attacks on it. The shipped gate_bias was chosen by these; no evaluation image is.
3. The gate's weights, 0 where it leaves an image alone and 1 where it purifies: the mean over images and places, of the
   first --few images as they are, after what happens to images without an attacker, and under blind attacks.

Results: benchmarks/results/alloy_gate.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.accuracy.alloy_tables import gate_accuracy, gate_biases, gate_weights
from benchmarks.accuracy.blind_pgd import ALPHA, EPS, STEPS, attacked, digest, figures, purified
from benchmarks.accuracy.honest_tables import vgg
from benchmarks.kit import correct, environment, imagenet, model, sources, write_result
from benchmarks.recipes.alloy_figures import held_out
from benchmarks.recipes.training_script import photographs
from purifier import Purifier
from purifier.attacks import CW, PGD, SSP, Attack, Square
from purifier.methods._gate import Gate
from purifier.methods.alloy import Alloy
from purifier.training.settings import PhotographTraining

CLASSIFIERS = ("resnet50", "mobilenet_v2")
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gs i=5": ("gs", {"iterations": 5}),
    "ncis i=5": ("ncis", {"iterations": 5}),
    "nrp-resg": ("nrp-resg", {}),
}
CAUTIONS = (-4, -2, 0, 1, 2, 3, 4, 6)
Change = Callable[[Tensor], Tensor]


def harmless() -> dict[str, Change]:
    """What happens to images without an attacker."""

    def noise(sigma: float) -> Change:
        random = torch.Generator().manual_seed(0)
        return lambda x: (x + sigma / 255 * torch.randn(x.shape, generator=random)).clamp(0, 1)

    def resized(factor: float) -> Change:
        return lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear", antialias=True).clamp(0, 1)

    return {
        "as they are": lambda x: x,
        "JPEG, quality 90": Purifier.from_pretrained("jpeg", quality=90),
        "JPEG, quality 50": Purifier.from_pretrained("jpeg", quality=50),
        "half the size": resized(0.5),
        "twice the size": resized(2.0),
        "in bfloat16": lambda x: x.bfloat16().float(),
        "Gaussian noise, sigma 1/255": noise(1),
        "Gaussian noise, sigma 2/255": noise(2),
        "Gaussian noise, sigma 5/255": noise(5),
    }


def attacks() -> dict[str, Attack]:
    found: dict[str, Attack] = {
        f"PGD Linf {n}/255": PGD(eps=n / 255, alpha=n / 2550, steps=10) for n in (1, 2, 4, 8, 16)
    }
    return found | {
        "PGD L2 5, steps of 1.0": PGD(norm="L2", eps=5.0, alpha=1.0, steps=10),
        "C&W L2": CW(steps=30, c=1.0, search=2),
        "SSP 16/255": SSP(vgg(), eps=16 / 255, alpha=4 / 255, steps=10, distance="squared"),
        "Square Linf 8/255, 300 queries": Square(eps=8 / 255, queries=300, p=0.1),
    }


def accuracies(gate: Change, purifiers: dict[str, Change], count: int, work: Path) -> list[dict[str, Any]]:
    """A row of figures of each purifier in front of each classifier, without the gate and with it."""
    images, labels = imagenet(count)
    pictures = {"": images} | {name: attacked(name, images, labels, work) for name in CLASSIFIERS}
    networks = {name: model(name) for name in CLASSIFIERS}
    rows = []
    for row, purify in tqdm(purifiers.items(), unit="purifier"):
        free = {name: purified(purify, x) for name, x in pictures.items()}
        kept = {name: x + purified(gate, x) * (free[name] - x) for name, x in pictures.items()}
        for name, network in networks.items():
            for with_gate, seen in ((False, free), (True, kept)):
                right = [correct(network, seen[key], labels) for key in ("", name)]
                stated = {"classifier": name, "purifier": row, "gate": with_gate}
                rows.append({**stated, **figures(right[0], right[1], len(labels))})
    return rows


def cautions(gate: Gate, purify: Change, count: int) -> dict[str, Any]:
    """Shares of held-out photographs that MobileNetV2 sees as it sees them clean, for each attack and gate_bias."""
    pool = held_out(PhotographTraining(data=photographs()), 2 * count)
    network = model("mobilenet_v2")
    with torch.no_grad():
        logits = network(pool)
    surest = logits.softmax(1).amax(1).topk(count).indices
    images, classes = pool[surest], logits[surest].argmax(1)
    chosen = {key: attack for key, attack in attacks().items() if key.startswith(("PGD", "C&W"))}
    pictures = {"clean": images} | {key: _attacked(attack, network, images, classes) for key, attack in chosen.items()}
    free = {key: purified(purify, x) for key, x in pictures.items()}

    def shares(weights: Change) -> dict[str, float]:
        seen = {key: x + purified(weights, x) * (free[key] - x) for key, x in pictures.items()}
        return {key: correct(network, x, classes) / count for key, x in seen.items()}

    rows = {str(gate_bias): shares(partial(gate, gate_bias=gate_bias)) for gate_bias in CAUTIONS}
    return {"images": count, "shares": {**rows, "no gate": shares(torch.ones_like)}}


def weights(gate: Change, count: int) -> dict[str, dict[str, Any]]:
    """The gate's weights for images after each change, and under each attack on a ResNet-50."""
    images, labels = imagenet(count)
    network = model("resnet50")
    found = {name: {**_weight(gate, change(images)), "attack": False} for name, change in harmless().items()}
    for name, attack in tqdm(attacks().items(), desc="attacks"):
        found[name] = {**_weight(gate, _attacked(attack, network, images, labels)), "attack": True}
    return found


def _attacked(attack: Attack, network: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    one = attack.seeded(0)
    return torch.cat([one(network, x, y) for x, y in zip(images.split(10), labels.split(10), strict=True)])


def _weight(gate: Change, images: Tensor) -> dict[str, float]:
    of_each = purified(gate, images).mean((1, 2, 3))
    return {"mean": of_each.mean().item(), "least": of_each.min().item(), "most": of_each.max().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--purifier", default="alloy", metavar="NAME[=FOLDER]")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--few", type=int, default=20, help="images of the third table")
    parser.add_argument("--held-out", type=int, default=48, help="photographs of the second table")
    parser.add_argument("--work", type=Path, default=Path("runs/blind_pgd"), help="folder for attacked images")
    parser.add_argument("--name", default="alloy_gate", help="name of the result file")
    args = parser.parse_args()
    ((name, source),) = sources([args.purifier]).items()
    purifier = Purifier.from_pretrained(source)
    method = purifier.method
    if not isinstance(method, Alloy) or method.gate is None:
        raise SystemExit(f"expected an alloy with a gate, got {source}")
    shipped, gate_bias, bare = digest(purifier), method.gate_bias, method.gate.eval()
    gate, method.gate = partial(bare, gate_bias=gate_bias), None
    purifiers: dict[str, Change] = {
        row: Purifier.from_pretrained(kind, **options) for row, (kind, options) in OTHERS.items()
    }
    found = {
        "settings": {
            "eps": EPS,
            "alpha": ALPHA,
            "steps": STEPS,
            "norm": "Linf",
            "images": args.images,
            "few": args.few,
            "held_out": args.held_out,
        },
        "weights": {name: shipped},
        "gate_bias": gate_bias,
        "accuracy": accuracies(gate, {**purifiers, name: purifier}, args.images, args.work),
        "cautions": cautions(bare, purifier, args.held_out),
        "gate": weights(gate, args.few),
        "environment": environment(),
    }
    write_result(args.name, found)
    for table in (gate_accuracy, gate_biases, gate_weights):
        print(table(found), end="\n\n")


if __name__ == "__main__":
    main()
