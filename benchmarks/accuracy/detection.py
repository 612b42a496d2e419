"""How well the attack score of a gate tells attacked images from clean ones, and from changes that are no attacks.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.detection run --cache <folder>    # attacks and scores
    python -m benchmarks.accuracy.detection plot                                          # draws the ROC curves

`Purifier.attack_score` of images attacked on one classifier, without knowledge of the gate, against the clean images:
the area under the ROC curve, and the share detected at thresholds that 1 % and 5 % of the clean images exceed. Some
attacks also after JPEG, against clean images with and without it. Then the shares of changed clean images above those
thresholds. Then attacks that know the gate: PGD on the classifier's cross
entropy minus a weight times the gate's logits, with exact gradients through both.

The cache is that of headline.py, with further attacks; it resumes after a kill. Results: benchmarks/results/
detection.json, with the score of every image; docs/detection_roc.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import adjust_sharpness

from benchmarks import kit
from benchmarks.accuracy import headline
from benchmarks.accuracy.alloy_gate import harmless
from benchmarks.accuracy.attacked_images import AttackedImages, Pictures
from benchmarks.accuracy.detection_results import RATES, draw, markdown_of, rates_at, row_of
from purifier import Purifier
from purifier._identity import weights_sha256
from purifier._wrapping import DEFAULT
from purifier.attacks import APGD, PGD, Attack, Square
from purifier.methods._gate import Gate

E4, E8 = 4 / 255, 8 / 255
_SHARED = (
    "PGD 4/255", "PGD 8/255", "PGD 16/255", "PGD L2 5, steps of 1.0", "MI-FGSM 4/255", "MI-FGSM 16/255",
    headline.SSP16, "C&W L2",
)  # fmt: skip
ATTACKS: dict[str, Callable[[], Attack | None]] = {
    "PGD 1/255": lambda: PGD(eps=1 / 255, alpha=0.1 / 255, steps=10),
    "PGD 2/255": lambda: PGD(eps=2 / 255, alpha=0.2 / 255, steps=10),
    **{name: headline.ATTACKS[name] for name in _SHARED},
    "Square 8/255, 300 queries": lambda: Square(eps=E8, queries=300, p=0.1),
    "APGD 4/255, 30 steps": lambda: APGD(eps=E4, steps=30),
}
# Attacks whose images are also scored after JPEG: against clean images as they are, and against clean images after the
# same JPEG, as in a service that calibrates on what it stores.
COMPRESSED = ("PGD 4/255", "PGD 16/255")
QUALITY = 90
# Weights of the gate's logits in the losses of the attacks that know it. An image that one of them hides counts.
WEIGHTS = (0.3, 1.0)
# Logits that are low enough: the gate's weight is below 0.003 there.
_LOW = -6.0


class Watched(nn.Module):
    """A classifier and a gate: the logits (N, K), and as a last column the gate's, the mean excess over low ones."""

    def __init__(self, network: nn.Module, gate: Gate) -> None:
        super().__init__()
        self.network, self.gate = network, gate
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        excess = (self.gate.logits(images) - _LOW).clamp_min(0).mean((1, 2, 3))
        return torch.cat((self.network(images), excess[:, None]), 1)


def hidden_loss(outputs: Tensor, targets: Tensor, weight: float) -> Tensor:
    """Cross entropy of each image minus `weight` times the gate's excess."""
    return F.cross_entropy(outputs[:, :-1], targets, reduction="none") - weight * outputs[:, -1]


def changes() -> dict[str, Callable[[Tensor], Tensor]]:
    """Returns changes of images that are no attacks."""
    return {
        **{name: change for name, change in harmless().items() if "bfloat16" not in name and "as they" not in name},
        "sharpened": lambda images: adjust_sharpness(images, 2.0).clamp(0, 1),
    }


@torch.inference_mode()
def scores_of(purifier: Purifier, images: Callable[[int], Tensor], count: int) -> list[float]:
    """Returns the scores of images that come one by one."""
    return [round(purifier.attack_score(images(index)).item(), 6) for index in range(count)]


def attacked_set(args: argparse.Namespace, attack: str, network: nn.Module, pictures: Pictures) -> AttackedImages:
    """Returns the images of an attack, made as far as the cache lacks them."""
    networks = {args.classifier: network}
    found = headline.attacked_images(args.cache, args.classifier, attack, networks, pictures, ATTACKS)
    found.make(args.images)
    return found


def attacks(args: argparse.Namespace, purifier: Purifier, network: nn.Module, pictures: Pictures) -> dict[str, Any]:
    """Returns the scores under each attack, also after JPEG, by the attack's name."""
    compress, found = Purifier.from_pretrained("jpeg", quality=QUALITY), dict[str, Any]()
    for name in args.attacks:
        made = attacked_set(args, name, network, pictures)
        found[name] = scores_of(purifier, made.__getitem__, args.images)
        if name in COMPRESSED:
            found[_compressed(name)] = scores_of(purifier, lambda k, made=made: compress(made[k]), args.images)
        headline.log(name)
    return found


def _compressed(attack: str) -> str:
    return f"{attack}, then JPEG {QUALITY}"


def aware(
    args: argparse.Namespace, purifier: Purifier, network: nn.Module, pictures: Pictures, limits: Sequence[float]
) -> dict[str, Any]:
    """Returns how many images attacks that know the gate make wrong and undetected, alone and together."""
    count = min(args.aware_images, len(pictures.images))
    rows = {f"{weight:g}": _aware_row(args, purifier, network, pictures, weight, count) for weight in (0.0, *WEIGHTS)}
    chosen = [rows[f"{weight:g}"] for weight in WEIGHTS]
    shares = []
    for limit in limits:
        hidden = sum(any(r["defended_wrong"][k] and r["scores"][k] <= limit for r in chosen) for k in range(count))
        shares.append(kit.share(hidden, count))
    return {"eps": E8, "steps": args.steps, "images": count, "rows": rows, "any": shares}


def _aware_row(
    args: argparse.Namespace, purifier: Purifier, network: nn.Module, pictures: Pictures, weight: float, count: int
) -> dict[str, Any]:
    """Returns the scores of images attacked with knowledge of the gate, and which of them are classified wrongly."""
    _, gate = purifier.gated_part()
    loss = partial(hidden_loss, weight=weight)
    attack = PGD(eps=E8, alpha=E8 / 10, steps=args.steps, loss=loss, random_start=False)
    folder = args.cache / f"{args.classifier} and a gate" / f"{weights_sha256(gate)[:12]}-{args.steps}-{weight:g}"
    made = AttackedImages(folder, attack, Watched(network, gate), pictures, f"{args.classifier} and a gate")
    made.make(count)
    headline.log(f"aware, weight {weight:g}")
    found: dict[str, Any] = {"scores": scores_of(purifier, made.__getitem__, count)}
    with torch.inference_mode():
        for who, model in (("bare_wrong", network), ("defended_wrong", purifier.wrap(network))):
            found[who] = [bool(model(made[k]).argmax(1) != pictures.labels[k]) for k in range(count)]
    return found


def run(args: argparse.Namespace) -> None:
    """Attacks what the cache lacks, and writes the result file."""
    ((name, source),) = kit.sources([args.purifier]).items()
    network, pictures = headline.CLASSIFIERS[args.classifier](), headline.nips()
    purifier = Purifier.from_pretrained(source)
    args.images = min(args.images, len(pictures.images))
    clean = scores_of(purifier, lambda k: pictures.images[k : k + 1], min(args.clean, len(pictures.images)))
    limits = rates_at(clean)
    found = attacks(args, purifier, network, pictures)
    harm = {
        change: scores_of(purifier, lambda k, edit=edit: edit(pictures.images[k : k + 1]), len(clean))
        for change, edit in changes().items()
    }
    stored = harm[f"JPEG, quality {QUALITY}"]
    beside = {_compressed(attack): found[_compressed(attack)] for attack in COMPRESSED if attack in found}
    result = {
        "settings": {
            "classifier": args.classifier, "purifier": name, "rates": list(RATES), "thresholds": limits,
            "images": "the first n of imagenet_nips400, 224 x 224", "sha256": pictures.sha256,
        },
        "weights": kit.weights_of({name: purifier}),
        "clean": clean,
        "attacks": {attack: row_of(scores, clean, limits) for attack, scores in found.items()},
        "compressed": {attack: row_of(scores, stored, rates_at(stored)) for attack, scores in beside.items()},
        "changes": {change: row_of(scores, clean, limits) for change, scores in harm.items()},
        "aware": aware(args, purifier, network, pictures, limits),
        "environment": kit.environment(),
    }  # fmt: skip
    kit.write_result(args.name, result)
    print(*markdown_of(result).values(), sep="\n\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "plot"))
    parser.add_argument("--cache", type=Path, default=Path("runs/headline"), help="folder of attacked images")
    parser.add_argument("--purifier", default=DEFAULT, metavar="NAME[=FOLDER]")
    parser.add_argument("--classifier", choices=[*headline.CLASSIFIERS], default="lite0")
    parser.add_argument("--attacks", nargs="+", choices=[*ATTACKS], default=[*ATTACKS], metavar="NAME")
    parser.add_argument("--images", type=int, default=200, help="attacked images of each attack")
    parser.add_argument("--clean", type=int, default=400, help="clean images; 1 %% of them needs at least 368")
    parser.add_argument("--aware-images", type=int, default=100, help="images of the attacks that know the gate")
    parser.add_argument("--steps", type=int, default=20, help="steps of the attacks that know the gate")
    parser.add_argument("--name", default="detection", help="name of the result file")
    parser.add_argument("--plot", type=Path, default=kit.ROOT / "docs" / "detection_roc.png")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.command == "plot":
        draw(kit.read_result(args.name), args.plot)
    else:
        run(args)


if __name__ == "__main__":
    main()
