"""GAD on CIFAR-10: trained in front of a target, and measured beside no defence and other purifiers.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.gad_cifar10 train resnet20 full [--minutes M] [--export weights/gad-cifar10-resnet20]
    python -m benchmarks.recipes.gad_cifar10 measure resnet20 [--images 1000]

`train` takes a target of cifar10_targets.py and a variant of the paper's ablations ("li", "lt", "full",
...) and goes on where it was stopped, in --out/TARGET-VARIANT. `measure` attacks the bare target as the paper does
(PGD, DeepFool, C&W: blind), and then the whole by an attacker who knows the purifier; behind the purifier that ships,
and every other one that was trained, those for the other target too (the paper's Table 15). It writes
benchmarks/results/gad_cifar10_TARGET_PART.json.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from benchmarks.accuracy.gad_tables import gad_accuracy, gad_targets
from benchmarks.kit import environment, write_result
from benchmarks.recipes.cifar10 import CLASSES, extract_part
from benchmarks.recipes.cifar10_targets import vgg8
from benchmarks.recipes.training_script import add_export, add_options, export, read_changes
from purifier import Purifier, list_purifiers, reference_model
from purifier._hub import bundled_config
from purifier.attacks import BPDA, CW, PGD, Aware, Blind, DeepFool
from purifier.attacks.base import Attack
from purifier.attacks.threats import ThreatModel
from purifier.evaluation import EvaluationSettings, LabelledImages, evaluate, labelled_images
from purifier.training.gad import GADTraining, train

SHIPPED = "gad-cifar10-resnet20"
TARGETS = {"resnet20": lambda: reference_model("cifar10-resnet20"), "vgg8": vgg8}
# No perceptual network: 32 pixels are too few for VGG16's last layers, and features of the target do its work.
SETTINGS: dict[str, Any] = {
    "filters": 24,
    "blocks": 4,
    "norm": "none",
    "start": "identity",
    "perceptual_weight": 0.0,
    "critic_filters": 32,
    "learning_rate": 5e-4,
    "warmup_steps": 50,
    "batch_size": 32,
    "steps": 900,
    "ema_decay": 0.99,
    "precision": "no",
    "device": "cpu",
    "validation_images": 500,
    "validate_every": 100,
    "checkpoint_every": 25,
}


def fused(model: nn.Module) -> nn.Module:
    """A copy with every batch norm folded into the convolution before it: the same outputs, in half of the time."""
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        last: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and last is not None:
                setattr(parent, last[0], fuse_conv_bn_eval(last[1], child))
                setattr(parent, name, nn.Identity())
            last = (name, child) if isinstance(child, nn.Conv2d) else None
    return model


def settings(variant: str, data: Path, changes: Mapping[str, Any]) -> GADTraining:
    return GADTraining(**{**SETTINGS, "variant": variant, "data": str(data), **changes})


def learn(args: argparse.Namespace) -> None:
    data = extract_part("train", args.data)
    out = args.out / f"{args.target}-{args.variant}"
    target = fused(TARGETS[args.target]()).to(memory_format=torch.channels_last)
    folder = train(
        settings(args.variant, data, read_changes(GADTraining, args.set)), out, model=target, minutes=args.minutes
    )
    export(folder, args.export)


def trained(out: Path) -> dict[str, Purifier]:
    """Every finished purifier by target and variant; the one for resnet20 is that which ships, once it does."""
    found = {folder.parent.name: Purifier.from_pretrained(folder) for folder in sorted(out.glob("*/gad"))}
    ours = found.pop("resnet20-full", None)
    if SHIPPED in list_purifiers():
        ours = Purifier.from_pretrained(SHIPPED)
    first = {} if ours is None else {SHIPPED: ours}
    return first | {f"gad {name}": purifier for name, purifier in found.items()}


def pgd() -> dict[str, Attack]:
    return {"PGD 8/255": PGD(eps=8 / 255, alpha=0.0075, steps=8)}


def attacks() -> dict[str, Attack]:
    """The paper's, when testing."""
    return {**pgd(), "DeepFool": DeepFool(), "C&W L2": CW(steps=60, c=1.0, search=3)}


def test_set(data: Path, count: int) -> LabelledImages:
    """Test images, evenly over the classes."""
    return labelled_images(extract_part("test", data), 32, count, classes=CLASSES)


def measure(args: argparse.Namespace) -> None:
    found = trained(args.out)
    jpeg = Purifier.from_pretrained("jpeg")
    chained = {f"{name}, jpeg": Purifier.chain(purifier, jpeg) for name, purifier in found.items()}
    others = {"jpeg": jpeg, **{name: Purifier.from_pretrained(name) for name in ("median", "gs", "ncis")}}
    own = {name: one for name, one in found.items() if args.target in name}
    own_chained = {name: one for name, one in chained.items() if args.target in name}
    parts: dict[str, tuple[dict[str, Purifier], dict[str, Attack], dict[str, ThreatModel], int]] = {
        "blind": ({**others, **found, **chained}, attacks(), {"blind": Blind()}, args.images),
        "aware": (own, pgd(), {"aware": Aware()}, args.aware_images),
        "bpda": (own_chained, pgd(), {"bpda": BPDA()}, args.aware_images),
    }
    for part, (purifiers, tried, threats, count) in parts.items():
        with tqdm(desc=f"{args.target} {part}", unit="image") as bar:
            evaluation = evaluate(
                fused(TARGETS[args.target]()),
                test_set(args.data, count),
                purifiers=purifiers,
                attacks=tried,
                threats=threats,
                out=args.work / f"{args.target}-{part}-{count}",
                settings=EvaluationSettings(batch_size=100, probe_images=0, pictures=4),
                progress=bar.update,
            )
        rows = [row.to_dict() for row in evaluation.rows]
        for row in rows:
            print(row["purifier"], row["settings"].get("attack_key"), row["threat"], row["standard"], row["robust"])
        name = f"gad_cifar10_{args.target}_{part}"
        shipped = bundled_config(SHIPPED)["files"] if SHIPPED in list_purifiers() else {}
        result = {"settings": evaluation.settings, "rows": rows, "weights": shipped, "environment": environment()}
        write_result(name, result)
    print(f"\n{gad_accuracy(args.target)}\n\n{gad_targets(args.target)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train GAD in front of a target")
    one.add_argument("target", choices=TARGETS)
    one.add_argument("variant")
    add_options(one)
    add_export(one)
    one.set_defaults(run=learn)
    two = commands.add_parser("measure", help="measure every trained GAD in front of a target")
    two.add_argument("target", choices=TARGETS)
    two.add_argument("--images", type=int, default=1000)
    two.add_argument("--aware-images", type=int, default=200)
    two.add_argument("--work", type=Path, default=Path("runs/gad_cifar10/measured"), help="folder for records")
    two.set_defaults(run=measure)
    for command in (one, two):
        command.add_argument("--data", type=Path, default=Path("runs/cifar10"), help="where the archives are unpacked")
        command.add_argument("--out", type=Path, default=Path("runs/gad_cifar10"))
    args = parser.parse_args()
    args.data.mkdir(parents=True, exist_ok=True)
    args.run(args)


if __name__ == "__main__":
    main()
