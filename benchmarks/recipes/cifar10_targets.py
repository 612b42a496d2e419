"""Trains and measures the CIFAR-10 classifiers that GAD defends, from scratch, on the kit's JPEG form of CIFAR-10.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.cifar10_targets train resnet20 --package weights/reference-cifar10-resnet20
    python -m benchmarks.recipes.cifar10_targets train vgg8
    python -m benchmarks.recipes.cifar10_targets evaluate

resnet20 is `purifier.reference_model("cifar10-resnet20")`. vgg8, a plain chain of convolutions of about the same cost,
is a model of another family, in front of which a purifier for resnet20 is measured too; it does not ship. `train`
resumes from the checkpoint in --out. `evaluate` measures the accuracy on the 10,000 test images and writes
benchmarks/results/cifar10_targets.json. `resnet20` and `vgg8` are the models for `purifier train gad`.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.kit import correct, environment, write_result
from benchmarks.recipes.cifar10 import CLASSES, load_part
from benchmarks.recipes.classifier_training import Trainer, package, read_schedule
from benchmarks.recipes.tables import cifar10_targets
from purifier._identity import weights_sha256
from purifier.models.reference import ReferenceClassifier, reference_model

OUT = Path("runs/cifar10")
# Mean and standard deviation of the training images.
STATISTICS = {"mean": (0.491, 0.482, 0.446), "std": (0.247, 0.243, 0.261)}
RESNET20: dict[str, Any] = {"widths": (16, 16, 32, 64), "blocks": (3, 3, 3), "strides": (1, 1, 2, 2), **STATISTICS}
# Resolution:epochs, in order; small images first, as they cost less.
SCHEDULES = {"resnet20": "16:5,24:5,32:6", "vgg8": "16:4,24:3,32:3"}


class VGG8(nn.Module):
    """Seven 3 x 3 convolutions with batch norm, three times max-pooled, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = CLASSES
        layers: list[nn.Module] = []
        channels = 3
        for width, pooled in ((32, 0), (32, 1), (64, 0), (64, 1), (128, 0), (128, 1), (128, 0)):
            layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * pooled
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to logits (N, 10)."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in STATISTICS.values())
        logits: Tensor = self.head(self.features((images - mean) / std).mean((2, 3)))
        return logits


def build(name: str) -> nn.Module:
    """Returns an untrained classifier."""
    return VGG8() if name == "vgg8" else ReferenceClassifier(classes=CLASSES, **RESNET20)


def resnet20() -> nn.Module:
    """Returns the bundled classifier, fused."""
    return fused(reference_model("cifar10-resnet20"))


def vgg8() -> nn.Module:
    """Returns the trained VGG8 of runs/cifar10, fused."""
    model = VGG8()
    model.load_state_dict(torch.load(OUT / "vgg8.pt", weights_only=True)["average"])
    return fused(model)


def fused(model: nn.Module) -> nn.Module:
    """Returns a copy with each batch norm folded into the convolution before it: the same outputs in half the time."""
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        last: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and last is not None:
                setattr(parent, last[0], fuse_conv_bn_eval(last[1], child))
                setattr(parent, name, nn.Identity())
            last = (name, child) if isinstance(child, nn.Conv2d) else None
    return model.to(memory_format=torch.channels_last)


def epoch_of(images: Tensor, labels: Tensor, *, size: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields shuffled batches (N, 3, size, size) of images flipped and shifted by up to 4 pixels, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    for chosen in order[: len(order) // batch * batch].split(batch):
        padded = F.pad(images[chosen].float() / 255, (4, 4, 4, 4), mode="reflect")
        flipped = torch.rand(batch, generator=generator) < 0.5
        padded[flipped] = padded[flipped].flip(3)
        down, right = torch.randint(0, 9, (2, batch), generator=generator)
        crops = torch.stack(
            [one[:, y : y + 32, x : x + 32] for one, y, x in zip(padded, down.tolist(), right.tolist(), strict=True)]
        )
        if size != 32:
            crops = F.interpolate(crops, (size, size), mode="bilinear", antialias=True)
        yield crops.contiguous(memory_format=torch.channels_last), labels[chosen]


def train(args: argparse.Namespace) -> None:
    """Trains a classifier, and packages it at the end if asked."""
    torch.manual_seed(args.seed)
    images, labels = load_part("train")
    sizes = read_schedule(args.schedule or SCHEDULES[args.target])
    trainer = Trainer(
        build(args.target), len(sizes) * (len(images) // args.batch), lr=args.lr, weight_decay=args.weight_decay,
        smoothing=args.smoothing, warmup=0.15, compiled=args.compile,
    )  # fmt: skip
    trainer.run(
        args.out / f"{args.target}.pt",
        sizes,
        lambda epoch, size: epoch_of(images, labels, size=size, batch=args.batch, seed=args.seed + epoch),
    )
    if args.package:
        assert isinstance(trainer.average, ReferenceClassifier)
        package(trainer.average, RESNET20, args.package, "cifar10-resnet20")


def evaluate(args: argparse.Namespace) -> None:
    """Measures the accuracy on the test part."""
    images, labels = load_part("test")
    models = {"resnet20": reference_model("cifar10-resnet20")}
    result: dict[str, Any] = {
        "images": len(labels),
        "weights": {"reference-cifar10-resnet20": weights_sha256(models["resnet20"])},
        "environment": environment(),
        "accuracy": {},
        "parameters": {},
    }
    if (OUT / "vgg8.pt").exists():
        models["vgg8"] = vgg8()
    for name, model in models.items():
        result["accuracy"][name] = correct(model, images.float() / 255, labels, 500) / len(labels)
        result["parameters"][name] = sum(p.numel() for p in build(name).parameters())
    write_result("cifar10_targets", result)
    print(cifar10_targets(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train a classifier from scratch")
    learn.add_argument("target", choices=SCHEDULES)
    learn.add_argument("--package", type=Path, help="resnet20: folder for config.json and model.safetensors")
    learn.add_argument("--schedule", help="resolution:epochs, in order")
    learn.add_argument("--batch", type=int, default=128)
    learn.add_argument("--lr", type=float, default=0.2)
    learn.add_argument("--weight-decay", type=float, default=5e-4)
    learn.add_argument("--smoothing", type=float, default=0.05)
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--compile", action="store_true", help="compile the network")
    learn.add_argument("--out", type=Path, default=OUT, help="folder of the checkpoints")
    learn.set_defaults(run=train)
    commands.add_parser("evaluate", help="measure them on the test part").set_defaults(run=evaluate)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
