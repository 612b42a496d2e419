"""Trains and measures the classifier behind `purifier.reference_model("demo")`, from scratch on one CPU core.

    export PURIFIER_KIT=<folder>
    python -m benchmarks.recipes.demo_classifier train --out runs/demo --package weights/reference-demo
    python -m benchmarks.recipes.demo_classifier evaluate

`train` resumes from the checkpoint in `--out`. `evaluate` prints the accuracy on the test part, clean and
under PGD in L-infinity, and writes both to benchmarks/results/demo_classifier.json. A picture is cropped to
its central square and resized to 128 x 128; no averaging over flips or crops.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import platform
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from benchmarks.recipes.moving_average import move_average
from purifier._files import replacing, write_text
from purifier.models.reference import ReferenceClassifier

ROOT = Path(__file__).resolve().parents[2]
SIZE = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def kit_folder() -> Path:
    """Returns the folder of labelled pictures, or stops with what to set."""
    kit = os.environ.get("PURIFIER_KIT")
    if not kit or not (Path(kit) / "objects" / "train").is_dir():
        raise SystemExit(
            f"expected PURIFIER_KIT to name a folder with objects/train and objects/test, got {kit!r}; "
            "run with PURIFIER_KIT=<folder>"
        )
    return Path(kit) / "objects"


def load_part(part: str) -> tuple[list[Tensor], Tensor, tuple[str, ...]]:
    """Decodes one part of the data set once: uint8 pictures (3, H, W), labels (N,), sorted class names."""
    folder = kit_folder() / part
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    pictures, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as picture:
                pictures.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous())
            labels.append(label)
    return pictures, torch.tensor(labels), classes


def resize_short(picture: Tensor, short: int) -> Tensor:
    """Resizes a uint8 picture (3, H, W) so that its short side is `short`, with antialiasing."""
    height, width = picture.shape[1:]
    scale = short / min(height, width)
    if scale == 1:
        return picture
    size = (max(short, round(height * scale)), max(short, round(width * scale)))
    resized = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def centre_square(picture: Tensor, size: int = SIZE) -> Tensor:
    """Cuts the central square of a uint8 picture (3, H, W) and returns it (3, size, size) in [0, 1]."""
    height, width = picture.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_short(picture[:, top : top + side, left : left + side], size).float() / 255


# ---- augmentation --------------------------------------------------------------------------------------


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


# ---- training ------------------------------------------------------------------------------------------


def read_schedule(text: str) -> list[int]:
    """Turns "64:60,96:40" into the training resolution of every epoch."""
    pairs = [entry.split(":") for entry in text.split(",")]
    return [int(size) for size, epochs in pairs for _ in range(int(epochs))]


def hold_out(labels: Tensor, share: float) -> tuple[list[int], list[int]]:
    """Splits indices into training and validation, the same share of every class, the same at every call."""
    train, held = [], []
    for label in sorted(set(labels.tolist())):
        indices = (labels == label).nonzero().flatten().tolist()
        random.Random(label).shuffle(indices)
        count = round(len(indices) * share)
        held += indices[:count]
        train += indices[count:]
    return sorted(train), sorted(held)


class Trainer:
    """Everything that a resumed run needs, in one place."""

    def __init__(self, args: argparse.Namespace, steps: int, classes: Sequence[str]) -> None:
        torch.manual_seed(args.seed)
        self.args, self.steps, self.step, self.epoch = args, steps, 0, 0
        self.seconds = 0.0
        self.architecture = {"widths": args.widths, "blocks": args.blocks, "mean": MEAN, "std": STD}
        self.model = ReferenceClassifier(classes=classes, **self.architecture).to(memory_format=torch.channels_last)
        for name, parameter in self.model.named_parameters():
            if name.endswith("norm2.weight"):  # every block starts as its shortcut
                nn.init.zeros_(parameter)
        self.ema = copy.deepcopy(self.model).requires_grad_(False).eval()
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": args.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=args.lr, momentum=0.9, nesterov=True)
        self.rng, self.generator = random.Random(args.seed), torch.Generator().manual_seed(args.seed)

    def learn(self, images: Tensor, targets: Tensor) -> float:
        """Takes one step on images (N, 3, H, W) in [0, 1] and soft targets (N, classes); returns the loss."""
        args, progress = self.args, self.step / self.steps
        warmup = min(1.0, progress / 0.03)
        for group in self.optimizer.param_groups:
            group["lr"] = args.lr * warmup * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=args.smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        # Faster at the start.
        move_average(self.ema, self.model, min(0.998, (1 + self.step) / (10 + self.step)))
        return loss.item()

    def start(self, weights: dict[str, Tensor]) -> None:
        """Takes over the averaged weights of an earlier run, and nothing else of it."""
        self.model.load_state_dict(weights)
        self.ema.load_state_dict(weights)

    def save(self, path: Path) -> None:
        """Writes the checkpoint under a temporary name and renames it."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "ema", "optimizer")}
        state |= {"step": self.step, "epoch": self.epoch, "seconds": self.seconds}
        state |= {"rng": self.rng.getstate(), "generator": self.generator.get_state()}
        with replacing(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        """Continues from a checkpoint written by `save`."""
        state = torch.load(path, weights_only=True)
        for name in ("model", "ema", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.epoch, self.seconds = state["step"], state["epoch"], state["seconds"]
        version, internal, gauss = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss))
        self.generator.set_state(state["generator"])


def batches(
    trainer: Trainer,
    pictures: Sequence[Tensor],
    labels: Tensor,
    indices: Sequence[int],
    size: int,
    plain: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of augmented images (N, 3, size, size) in [0, 1] and soft targets (N, classes)."""
    args, classes = trainer.args, len(trainer.model.classes)
    # Rare classes are drawn more often than they occur.
    weights = (torch.bincount(labels)[labels[indices]].float() ** -args.balance).tolist()
    order = trainer.rng.choices(list(indices), weights, k=len(indices)) if args.balance else list(indices)
    trainer.rng.shuffle(order)
    for start in range(0, len(order) - args.batch + 1, args.batch):
        chosen = order[start : start + args.batch]
        images = torch.stack([random_view(pictures[i], size, trainer.rng, args.area) for i in chosen])
        images = degrade(jitter_colour(images, args.colour, trainer.generator), args.degraded, trainer.generator)
        targets = F.one_hot(labels[chosen], classes).float()
        yield (images, targets) if plain else mix(images, targets, trainer.rng, trainer.generator)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 64) -> float:
    """Returns the share of images (N, 3, H, W) in [0, 1] whose top class is their label."""
    model.eval()
    parts = zip(torch.split(images, batch), torch.split(labels, batch), strict=True)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in parts) / len(labels)


def train(args: argparse.Namespace) -> None:
    """Trains, writing a checkpoint after every epoch and, if asked, the packaged weights at the end."""
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    pictures, labels, classes = load_part("train")
    indices, held = hold_out(labels, args.hold_out)
    sizes = read_schedule(args.schedule)
    trainer = Trainer(args, len(sizes) * (len(indices) // args.batch), classes)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
    elif args.start:
        trainer.start(torch.load(args.start, weights_only=True)["ema"])
    held_images = torch.stack([centre_square(pictures[i]) for i in held]) if held else None
    resized: tuple[int, list[Tensor]] = (0, [])
    for epoch in tqdm(range(trainer.epoch, len(sizes)), "epochs", initial=trainer.epoch, total=len(sizes)):
        size, began = sizes[epoch], time.monotonic()
        if resized[0] != size:
            short = min(SIZE, round(size * 1.2))
            resized = (size, [resize_short(picture, short) for picture in pictures])
        trainer.model.train()
        plain = epoch >= len(sizes) - args.plain_epochs
        losses = [trainer.learn(x, y) for x, y in batches(trainer, resized[1], labels, indices, size, plain)]
        trainer.epoch, trainer.seconds = epoch + 1, trainer.seconds + time.monotonic() - began
        trainer.save(checkpoint)
        line = f"epoch {epoch + 1}/{len(sizes)} size {size} loss {np.mean(losses):.3f}"
        line += f" seconds {trainer.seconds:.0f}"
        if held_images is not None and ((epoch + 1) % 5 == 0 or epoch + 1 == len(sizes)):
            line += f" held-out accuracy {accuracy(trainer.ema, held_images, labels[held]):.4f} of {len(held)}"
        tqdm.write(line)
    if args.package:
        package(trainer.ema, trainer.architecture, args.package)


def package(model: ReferenceClassifier, architecture: dict[str, Any], folder: Path, *, name: str = "demo") -> None:
    """Writes fp16 weights and their config, each under a temporary name and renamed."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    stored = save(tensors, metadata={"format": "pt"})
    config = {
        "kind": "reference",
        "name": name,
        "architecture": architecture,
        "classes": list(model.classes),
        "sha256": hashlib.sha256(stored).hexdigest(),
    }
    written = {"model.safetensors": stored, "config.json": (json.dumps(config, indent=2) + "\n").encode()}
    for name, content in written.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)


# ---- measurement ---------------------------------------------------------------------------------------


def pgd(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, alpha: float, steps: int) -> Tensor:
    """Attacks images (N, 3, H, W) in [0, 1] within L-infinity `eps`, random start (Madry et al., 2018)."""
    adversarial = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_(True)
        loss = F.cross_entropy(model(adversarial), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + alpha * gradient.sign()
        adversarial = torch.min(torch.max(moved, images - eps), images + eps).clamp(0, 1)
    return adversarial.detach()


def load_packaged(folder: Path) -> tuple[ReferenceClassifier, dict[str, Any]]:
    """Reads a packaged classifier from a folder, as `purifier.reference_model` reads it from the package."""
    from safetensors.torch import load

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = (folder / "model.safetensors").read_bytes()
    if hashlib.sha256(stored).hexdigest() != config["sha256"]:
        raise SystemExit(f"expected the SHA-256 in {folder.name}/config.json, got another; package the weights again")
    model = ReferenceClassifier(classes=config["classes"], **config["architecture"])
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(counters | {key: value.float() for key, value in load(stored).items()})
    return model.eval(), config


def evaluate(args: argparse.Namespace) -> None:
    """Prints and stores the accuracy on the test part, clean and under PGD."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, config = load_packaged(args.weights)
    pictures, labels, classes = load_part("test")
    if classes != model.classes:
        raise SystemExit(f"expected the classes {model.classes}, got {classes}; PURIFIER_KIT names other data")
    images = torch.stack([centre_square(picture) for picture in pictures])
    clean = accuracy(model, images, labels)
    print(f"clean accuracy {clean:.4f} on {len(labels)} test images")
    eps, alpha, steps = 8 / 255, 2 / 255, 10
    parts = list(zip(torch.split(images, 64), torch.split(labels, 64), strict=True))
    attacked = torch.cat([pgd(model, x, y, eps=eps, alpha=alpha, steps=steps) for x, y in tqdm(parts, "PGD")])
    robust = accuracy(model, attacked, labels)
    print(f"accuracy under PGD {robust:.4f} (Linf, eps 8/255, alpha 2/255, {steps} steps, random start)")
    result = {
        "model": "demo",
        "images": len(labels),
        "size": SIZE,
        "clean_accuracy": clean,
        "robust_accuracy": robust,
        "attack": {
            "name": "PGD",
            "norm": "Linf",
            "eps": eps,
            "alpha": alpha,
            "steps": steps,
            "random_start": True,
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": (args.weights / "model.safetensors").stat().st_size,
        "seed": args.seed,
        "config": config,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    args.result.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.result, json.dumps(result, indent=2) + "\n")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; the defaults are the recipe of the shipped weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    learn.add_argument("--degraded", type=float, default=1 / 8, help="share of blurred images, and of noisy ones")
    learn.add_argument("--smoothing", type=float, default=0.1)
    learn.add_argument(
        "--area", type=float, nargs=2, default=[0.25, 1.5], help="bounds of a crop's share of the square"
    )
    learn.add_argument("--colour", type=float, default=0.4, help="strength of the colour jitter")
    learn.add_argument("--balance", type=float, default=0.25, help="0: as they occur, 1: all classes alike")
    learn.add_argument("--plain-epochs", type=int, default=5, help="last epochs without CutMix and mixup")
    learn.add_argument("--hold-out", type=float, default=0.0, help="share of the train part kept for validation")
    learn.set_defaults(run=train)
    measure = commands.add_parser("evaluate", help="measure the packaged weights on the test part")
    measure.add_argument("--weights", type=Path, default=ROOT / "weights" / "reference-demo")
    measure.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / "demo_classifier.json")
    measure.set_defaults(run=evaluate)
    for command in (learn, measure):
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = parse()
    arguments.run(arguments)
