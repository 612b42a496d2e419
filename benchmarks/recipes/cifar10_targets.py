"""Trains and measures the CIFAR-10 classifiers that GAD defends, from scratch, on the kit's JPEG form of CIFAR-10.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.cifar10_targets train resnet20 --package weights/reference-cifar10-resnet20
    python -m benchmarks.recipes.cifar10_targets train vgg8
    python -m benchmarks.recipes.cifar10_targets evaluate

resnet20 is `purifier.reference_model("cifar10-resnet20")`; vgg8, a plain chain of convolutions, is another family of
about the same cost, for what a purifier does in front of a model that it was not trained for, and does not ship.
`train` goes on from the checkpoint of the last epoch in `--out`. `evaluate` prints the accuracy on the 10,000 test
images and writes it to benchmarks/results/cifar10_targets.json.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.kit import correct, environment, write_result
from benchmarks.recipes.cifar10 import CLASSES, load_part
from benchmarks.recipes.moving_average import move_average
from purifier._files import replacing
from purifier.models.reference import ReferenceClassifier, reference_model

# Mean and standard deviation of the training images.
STATISTICS = {"mean": (0.491, 0.482, 0.446), "std": (0.247, 0.243, 0.261)}
RESNET20: dict[str, Any] = {"widths": (16, 16, 32, 64), "blocks": (3, 3, 3), "strides": (1, 1, 2, 2), **STATISTICS}
# Resolution and epochs, in order: small images teach first, and cost less.
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
    """An untrained target."""
    return VGG8() if name == "vgg8" else ReferenceClassifier(classes=CLASSES, **RESNET20)


def vgg8(out: Path = Path("runs/cifar10")) -> nn.Module:
    """The trained one."""
    model = VGG8()
    model.load_state_dict(torch.load(out / "vgg8.pt", weights_only=True)["average"])
    return model.eval()


def epoch_of(images: Tensor, labels: Tensor, *, size: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of flipped images, moved by up to 4 pixels and resized: (N, 3, size, size) in [0, 1]."""
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
    """SGD with momentum, one cycle of the learning rate, and a running average of the weights."""
    torch.manual_seed(args.seed)
    images, labels = load_part("train")
    model = build(args.target).to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    weights = [[p for p in model.parameters() if (p.ndim > 1) == decayed] for decayed in (True, False)]
    groups = [{"params": weights[0], "weight_decay": args.weight_decay}, {"params": weights[1], "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=args.lr, momentum=0.9, nesterov=True)
    sizes = [int(size) for part in args.schedule.split(",") for size in [part.split(":")[0]] * int(part.split(":")[1])]
    path = args.out / f"{args.target}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    done, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done, seconds = state["epoch"], state["seconds"]
    forward = torch.compile(model) if args.compile else model
    a_epoch = len(images) // args.batch
    for epoch in range(done, len(sizes)):
        started, total = time.monotonic(), 0.0
        model.train()
        batches = epoch_of(images, labels, size=sizes[epoch], batch=args.batch, seed=args.seed + epoch)
        bar = tqdm(batches, f"epoch {epoch + 1}/{len(sizes)}", total=a_epoch)
        for number, (crops, targets) in enumerate(bar):
            progress = (epoch * a_epoch + number) / (len(sizes) * a_epoch)
            for group in optimiser.param_groups:
                group["lr"] = args.lr * min(1.0, progress / 0.15) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
            loss = F.cross_entropy(forward(crops), targets, label_smoothing=args.smoothing)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            move_average(average, model, min(0.998, (1 + epoch * a_epoch + number) / 100))
            total += loss.item()
        seconds += time.monotonic() - started
        state = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        with replacing(path) as temporary:
            torch.save(state | {"epoch": epoch + 1, "seconds": seconds}, temporary)
        tqdm.write(f"epoch {epoch + 1} size {sizes[epoch]} loss {total / a_epoch:.3f} seconds {seconds:.0f}")
    if args.package:
        from benchmarks.recipes.demo_classifier import package

        assert isinstance(average, ReferenceClassifier)
        package(average, RESNET20, args.package, name="cifar10-resnet20")


def evaluate(args: argparse.Namespace) -> None:
    """Accuracy on the test part."""
    images, labels = load_part("test")
    result: dict[str, Any] = {"images": len(labels), "environment": environment(), "accuracy": {}}
    models = {"resnet20": reference_model("cifar10-resnet20")}
    if (args.out / "vgg8.pt").exists():
        models["vgg8"] = vgg8(args.out)
    for name, model in models.items():
        right = correct(model, images.float() / 255, labels, 500)
        result["accuracy"][name] = right / len(labels)
        result.setdefault("parameters", {})[name] = sum(p.numel() for p in model.parameters())
        print(f"{name}: {right / len(labels):.4f} of {len(labels)}")
    write_result("cifar10_targets", result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train a target from scratch")
    learn.add_argument("target", choices=SCHEDULES)
    learn.add_argument("--package", type=Path, help="resnet20: folder for config.json and model.safetensors")
    learn.add_argument("--schedule", help="resolution:epochs, in order")
    learn.add_argument("--batch", type=int, default=128)
    learn.add_argument("--lr", type=float, default=0.2)
    learn.add_argument("--weight-decay", type=float, default=5e-4)
    learn.add_argument("--smoothing", type=float, default=0.05)
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--compile", action="store_true", help="compile the network")
    learn.set_defaults(run=train)
    judge = commands.add_parser("evaluate", help="measure them on the test part")
    judge.set_defaults(run=evaluate)
    for command in (learn, judge):
        command.add_argument("--out", type=Path, default=Path("runs/cifar10"), help="folder of the checkpoints")
    args = parser.parse_args()
    if args.command == "train" and args.schedule is None:
        args.schedule = SCHEDULES[args.target]
    args.run(args)


if __name__ == "__main__":
    main()
