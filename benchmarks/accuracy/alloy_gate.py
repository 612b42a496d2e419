"""What alloy's gate does: to accuracy, also in front of other purifiers, and to images that are not attacked.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.alloy_gate [--purifier alloy[=FOLDER]]

1. Standard accuracy, and robust accuracy under the attack of blind_pgd.py, with and without the gate: of the alloy
   itself, and of other purifiers p with the alloy's gate g (`Purifier.gated`): x + g(x) (p(x) - x).
2. The effect of `gate_bias`: the share of held-out photographs that MobileNetV2 classifies as it does the clean ones,
   clean and under blind attacks on it, of those that it is surest of. The shipped gate_bias was chosen by this table,
   without any evaluation image.
3. The gate's weights, from 0 (leaves the image as it is) to 1 (purifies): their means over the first --few images, as
   they are, after changes that are no attacks, and under blind attacks.

Results: benchmarks/results/alloy_gate.json.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.accuracy.evaluations import ATTACK, BLIND_PGD, as_files, attacked, figures, measured
from benchmarks.accuracy.honest_tables import vgg
from benchmarks.accuracy.tables import CLASSIFIERS, gate_accuracy, gate_biases, gate_weights
from benchmarks.kit import classified, environment, imagenet, model, photographs, sources, weights_of, write_result
from benchmarks.recipes.alloy_judge import held_out
from purifier import Purifier
from purifier.attacks import CW, PGD, SSP, Attack, Blind, Square
from purifier.methods._gate import Gate
from purifier.methods.alloy import Alloy
from purifier.training.settings import PhotographTraining

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gs i=5": ("gs", {"iterations": 5}),
    "ncis i=5": ("ncis", {"iterations": 5}),
    "nrp-resg": ("nrp-resg", {}),
}
BIASES = (-4, -2, 0, 1, 2, 3, 4, 6)
NO_GATE = "no gate"
Change = Callable[[Tensor], Tensor]


def harmless() -> dict[str, Change]:
    """Returns changes of images that are no attacks."""

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


def without_gate(purifier: Purifier) -> Purifier:
    """Returns a copy of an alloy that purifies everything."""
    free = copy.deepcopy(purifier)
    assert isinstance(free.method, Alloy)
    free.method.gate = None
    return free


def accuracies(purifier: Purifier, name: str, count: int, work: Path) -> list[dict[str, Any]]:
    """Returns figures of each purifier in front of each classifier, without the gate and with it."""
    free = {row: Purifier.from_pretrained(kind, **options) for row, (kind, options) in OTHERS.items()}
    pairs = {row: (one, one.gated(purifier)) for row, one in free.items()} | {name: (without_gate(purifier), purifier)}
    names = {f"{row}, {kind}": (row, kind == "gated") for row in pairs for kind in ("free", "gated")}
    purifiers = {key: pairs[row][gate] for key, (row, gate) in names.items()}
    rows: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for classifier in CLASSIFIERS:
        found = measured(
            f"gate, {classifier}", model(classifier), classified(count), purifiers=purifiers, attacks=BLIND_PGD,
            threats={"blind": Blind()}, out=work / f"{classifier}-{count}",
        )  # fmt: skip
        for one in attacked(found.rows):
            if one.purifier in names:
                row, gate = names[one.purifier]
                stated = {"classifier": classifier, "purifier": row, "gate": gate}
                rows[row, classifier, gate] = {**stated, **figures(one)}
    return [rows[row, classifier, gate] for row in pairs for classifier in CLASSIFIERS for gate in (False, True)]


def biases(purifier: Purifier, source: str, count: int, work: Path) -> dict[str, Any]:
    """Returns shares of held-out photographs that MobileNetV2 classifies as it does the clean ones."""
    pool = held_out(PhotographTraining(data=photographs()), 2 * count)
    network = model("mobilenet_v2")
    with torch.no_grad():
        logits = network(pool)
    surest = logits.softmax(1).amax(1).topk(count).indices
    purifiers = {str(bias): Purifier.from_pretrained(source, gate_bias=bias) for bias in BIASES}
    found = measured(
        "gate_bias", network, as_files(pool[surest], logits[surest].argmax(1), work / f"photographs-{count}"),
        purifiers={**purifiers, NO_GATE: without_gate(purifier)},
        attacks={key: attack for key, attack in attacks().items() if key.startswith(("PGD", "C&W"))},
        threats={"blind": Blind()}, out=work / f"biases-{count}", batch_size=16,
    )  # fmt: skip
    shares: dict[str, dict[str, float]] = {key: {} for key in (*purifiers, NO_GATE)}
    for row in found.rows:
        if row.purifier in shares:
            shares[row.purifier][row.settings.get("attack_key", "clean")] = row.restored / row.images
    return {"images": count, "shares": shares}


def weights(gate: Change, count: int) -> dict[str, dict[str, Any]]:
    """Returns the gate's weights for images after each change, and under each attack on a ResNet-50."""
    images, labels = imagenet(count)
    network = model("resnet50")
    found = {name: {**_weight(gate, change(images)), "attack": False} for name, change in harmless().items()}
    for name, attack in tqdm(attacks().items(), desc="attacks"):
        one = attack.seeded(0)
        moved = [one(network, x, y) for x, y in zip(images.split(10), labels.split(10), strict=True)]
        found[name] = {**_weight(gate, torch.cat(moved)), "attack": True}
    return found


@torch.inference_mode()
def _weight(gate: Change, images: Tensor) -> dict[str, float]:
    of_each = torch.cat([gate(batch).mean((1, 2, 3)) for batch in images.split(20)])
    return {"mean": of_each.mean().item(), "least": of_each.min().item(), "most": of_each.max().item()}


def gate_of(purifier: Purifier) -> Gate:
    """Returns an alloy's gate."""
    gate = purifier.method.gate if isinstance(purifier.method, Alloy) else None
    if gate is None:
        raise SystemExit(f"expected an alloy with a gate, got {purifier.name}")
    return gate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--purifier", default="alloy", metavar="NAME[=FOLDER]")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--few", type=int, default=20, help="images of the third table")
    parser.add_argument("--held-out", type=int, default=48, help="photographs of the second table")
    parser.add_argument("--work", type=Path, default=Path("runs/alloy_gate"), help="folder for records")
    parser.add_argument("--name", default="alloy_gate", help="name of the result file")
    args = parser.parse_args()
    ((name, source),) = sources([args.purifier]).items()
    purifier = Purifier.from_pretrained(source)
    gate, gate_bias = gate_of(purifier), purifier.method.options["gate_bias"]
    found = {
        "settings": {**ATTACK, "images": args.images, "few": args.few, "held_out": args.held_out},
        "weights": weights_of({name: purifier}),
        "gate_bias": gate_bias,
        "accuracy": accuracies(purifier, name, args.images, args.work),
        "gate_biases": biases(purifier, source, args.held_out, args.work),
        "gate": weights(partial(gate, gate_bias=gate_bias), args.few),
        "environment": environment(),
    }
    write_result(args.name, found)
    print(*(table(found) for table in (gate_accuracy, gate_biases, gate_weights)), sep="\n\n")


if __name__ == "__main__":
    main()
