"""Trains and measures the classifier `purifier.reference_model("demo")`, from scratch on one CPU core.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.demo_classifier train --out runs/demo --package weights/reference-demo
    python -m benchmarks.recipes.demo_classifier evaluate

`train` resumes from the checkpoint in --out. `evaluate` measures the accuracy of the bundled classifier on the test
part, clean and under PGD in L-infinity, and writes benchmarks/results/demo_classifier.json. Test pictures are cropped
to their central square and resized to 128 x 128.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.accuracy.evaluations import attacked, measured
from benchmarks.kit import environment, kit, write_result
from benchmarks.recipes.classifier_training import Batches, Trainer, package, read_schedule
from benchmarks.recipes.tables import demo_classifier
from purifier import reference_model
from purifier._identity import weights_sha256
from purifier.attacks import PGD, Blind
from purifier.data.images import read_pixels
from purifier.evaluation import labelled_images
from purifier.models.reference import ReferenceClassifier

SIZE = 128
STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def load_train() -> tuple[list[Tensor], Tensor, tuple[str, ...]]:
    """Returns the training pictures (3, H, W) as uint8, their labels (N,), and the class names."""
    folder = kit() / "objects" / "train"
    found = labelled_images(folder, None)
    pictures = [torch.from_numpy(read_pixels(path)).permute(2, 0, 1).contiguous() for path in found.files]
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    return pictures, torch.tensor(found.labels), tuple(classes)


def resize_short(picture: Tensor, short: int) -> Tensor:
    """Resizes a uint8 picture (3, H, W) so that its short side is `short`, with antialiasing."""
    height, width = picture.shape[1:]
    scale = short / min(height, width)
    if scale == 1:
        return picture
    size = (max(short, round(height * scale)), max(short, round(width * scale)))
    resized = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def random_view(picture: Tensor, size: int, rng: random.Random, area: Sequence[float]) -> Tensor:
    """Cuts a random, flipped, slightly rotated rectangle of a uint8 picture: (3, size, size) in [0, 1].

    `area` bounds its share of the square on the short side; above 1 the picture is continued by reflection.
    """
    height, width = picture.shape[1:]
    side = min(height, width)
    pixels = rng.uniform(*area) * side * side
    ratio = math.exp(rng.uniform(-0.29, 0.29))
    crop_w, crop_h = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
    centre_x = rng.uniform(crop_w / 2, width - crop_w / 2) / width * 2 - 1
    centre_y = rng.uniform(crop_h / 2, height - crop_h / 2) / height * 2 - 1
    angle = math.radians(rng.gauss(0, 10))
    cos, sin = math.cos(angle), math.sin(angle)
    flip = rng.choice((-1.0, 1.0))
    theta = torch.tensor(
        [
            [flip * cos * crop_w / width, -sin * crop_h / width, centre_x],
            [flip * sin * crop_w / height, cos * crop_h / height, centre_y],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 3, size, size], align_corners=False)
    view = F.grid_sample(picture[None].float(), grid, padding_mode="reflection", align_corners=False)
    return view[0] / 255


def jitter_colour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue of images (N, 3, H, W) in [0, 1]."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator) * (high - low) + low

    images = images * uniform(1 - strength, 1 + strength)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * uniform(1 - strength, 1 + strength)
    saturation = uniform(1 - strength, 1 + strength)
    saturation[uniform(0, 1) < 0.1] = 0
    # A small turn of the hue for most, any turn for one in six: the colour of a cup says nothing.
    angle = torch.where(uniform(0, 1) < 1 / 6, uniform(-math.pi, math.pi), uniform(-0.4, 0.4))
    grey = images.mean(dim=1, keepdim=True)
    chroma = images - grey
    # Rodrigues' rotation of the chroma about the grey axis (1, 1, 1) / sqrt(3).
    turned = chroma * angle.cos() + (chroma.roll(1, 1) - chroma.roll(-1, 1)) * (angle.sin() / math.sqrt(3))
    return (grey + turned * saturation).clamp_(0, 1)


def degrade(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Blurs a share of the images, by one to four 3 x 3 means, and adds noise to a share: (N, 3, H, W) in [0, 1]."""
    blurred = torch.rand(len(images), generator=generator) < share
    for _ in range(int(torch.randint(1, 5, (), generator=generator))):
        if blurred.any():
            images[blurred] = F.avg_pool2d(F.pad(images[blurred], (1, 1, 1, 1), mode="replicate"), 3, 1)
    noisy = torch.rand(len(images), generator=generator) < share
    if noisy.any():
        sigma = 0.06 * torch.rand(int(noisy.sum()), 1, 1, 1, generator=generator)
        images[noisy] += torch.randn(images[noisy].shape, generator=generator) * sigma
    return images.clamp_(0, 1)


def mix(images: Tensor, targets: Tensor, rng: random.Random, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixes a batch with its own permutation: a patch for half of the batches, mixup for a quarter.

    The patch is a piece of the other picture (CutMix, Yun et al., 2019) or all of it, shrunk (ResizeMix, Qin et
    al., 2020): things are then also seen small and in strange surroundings.
    """
    choice = rng.random()
    order = torch.randperm(len(images), generator=generator)
    size = images.shape[-1]
    if choice < 0.5:
        whole = choice < 0.25
        side = round(size * (rng.uniform(0.3, 0.8) if whole else math.sqrt(rng.random())))
        top, left = rng.randint(0, size - side), rng.randint(0, size - side)
        window = (..., slice(top, top + side), slice(left, left + side))
        patch = images[order]
        patch = F.interpolate(patch, (side, side), mode="bilinear", antialias=True) if whole else patch[window]
        images[window] = patch
        # A whole thing counts for more than its area: by its side, where a piece counts by its area.
        kept = 1 - side / size if whole else 1 - (side / size) ** 2
    elif choice < 0.75:
        kept = rng.betavariate(0.4, 0.4)
        images = images * kept + images[order] * (1 - kept)
    else:
        return images, targets
    return images, targets * kept + targets[order] * (1 - kept)


def epoch_of(
    pictures: Sequence[Tensor], labels: Tensor, size: int, epoch: int, args: argparse.Namespace
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of augmented images (N, 3, size, size) in [0, 1] and soft targets (N, classes)."""
    rng, generator = random.Random(args.seed + epoch), torch.Generator().manual_seed(args.seed + epoch)
    # Rare classes are drawn more often than they occur.
    weights = (torch.bincount(labels)[labels].float() ** -args.balance).tolist()
    order = rng.choices(range(len(labels)), weights, k=len(labels)) if args.balance else list(range(len(labels)))
    rng.shuffle(order)
    mixed = epoch < len(read_schedule(args.schedule)) - args.plain_epochs
    for start in range(0, len(order) - args.batch + 1, args.batch):
        chosen = order[start : start + args.batch]
        images = torch.stack([random_view(pictures[i], size, rng, args.area) for i in chosen])
        images = degrade(jitter_colour(images, args.colour, generator), args.degraded, generator)
        targets = F.one_hot(labels[chosen], int(labels.max()) + 1).float()
        yield mix(images, targets, rng, generator) if mixed else (images, targets)


def build(args: argparse.Namespace, classes: Sequence[str]) -> tuple[ReferenceClassifier, dict[str, Any]]:
    """Returns the untrained network, and its architecture."""
    torch.manual_seed(args.seed)
    architecture = {"widths": args.widths, "blocks": args.blocks, **STATISTICS}
    model = ReferenceClassifier(classes=classes, **architecture)
    for name, parameter in model.named_parameters():
        if name.endswith("norm2.weight"):  # every block starts as its shortcut
            nn.init.zeros_(parameter)
    return model, architecture


def train(args: argparse.Namespace) -> None:
    """Trains, and packages the weights at the end if asked."""
    torch.set_num_threads(args.threads)
    pictures, labels, classes = load_train()
    sizes = read_schedule(args.schedule)
    model, architecture = build(args, classes)
    if args.start:
        model.load_state_dict(torch.load(args.start, weights_only=True)["average"])
    trainer = Trainer(
        model, len(sizes) * (len(labels) // args.batch), lr=args.lr, weight_decay=args.weight_decay,
        smoothing=args.smoothing, warmup=0.03, clip=5.0, half=True,
    )  # fmt: skip

    small: dict[int, list[Tensor]] = {}

    def batches(epoch: int, size: int) -> Batches:
        if size not in small:
            small.clear()
            small[size] = [resize_short(picture, min(SIZE, round(size * 1.2))) for picture in pictures]
        return epoch_of(small[size], labels, size, epoch, args)

    trainer.run(args.out / "checkpoint.pt", sizes, batches)
    if args.package:
        package(trainer.average, architecture, args.package, "demo")


def evaluate(args: argparse.Namespace) -> None:
    """Measures the bundled classifier on the test part, clean and under PGD."""
    torch.set_num_threads(args.threads)
    model = reference_model("demo")
    pgd = PGD(eps=8 / 255, alpha=2 / 255, steps=10)
    found = measured(
        "demo", model, labelled_images(kit() / "objects" / "test", SIZE, classes=model.classes), purifiers={},
        attacks={"PGD 8/255": pgd}, threats={"blind": Blind()}, out=args.out, batch_size=64,
    )  # fmt: skip
    (row,) = attacked(found.rows)
    result = {
        "model": "demo",
        "images": row.images,
        "size": SIZE,
        "clean_accuracy": row.standard_accuracy,
        "robust_accuracy": row.robust_accuracy,
        "attack": pgd.settings(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": {"reference-demo": weights_sha256(model)},
        "environment": environment(),
    }
    write_result("demo_classifier", result)
    print(demo_classifier(result))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; the defaults are the recipe of the first run of the shipped weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train from scratch, resuming from --out")
    learn.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    learn.add_argument("--package", type=Path, help="folder for the final config.json and model.safetensors")
    learn.add_argument("--start", type=Path, help="checkpoint of an earlier run whose averaged weights to begin with")
    learn.add_argument("--schedule", default="64:70,96:45,112:8", help="resolution:epochs, in order")
    learn.add_argument("--widths", type=int, nargs="+", default=[32, 48, 96, 192])
    learn.add_argument("--blocks", type=int, nargs="+", default=[2, 2, 2])
    learn.add_argument("--batch", type=int, default=64)
    learn.add_argument("--lr", type=float, default=0.1)
    learn.add_argument("--weight-decay", type=float, default=5e-4)
    learn.add_argument("--smoothing", type=float, default=0.1)
    learn.add_argument("--degraded", type=float, default=1 / 8, help="share of blurred images, and of noisy ones")
    learn.add_argument("--area", type=float, nargs=2, default=[0.25, 1.5], help="range of a crop's share of the square")
    learn.add_argument("--colour", type=float, default=0.4, help="strength of the colour jitter")
    learn.add_argument("--balance", type=float, default=0.25, help="0: classes as they occur, 1: all alike")
    learn.add_argument("--plain-epochs", type=int, default=5, help="last epochs without CutMix and mixup")
    learn.add_argument("--seed", type=int, default=0)
    learn.set_defaults(run=train)
    measure = commands.add_parser("evaluate", help="measure the bundled weights on the test part")
    measure.add_argument("--out", type=Path, default=Path("runs/demo/measured"), help="folder for records")
    measure.set_defaults(run=evaluate)
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = parse()
    arguments.run(arguments)
