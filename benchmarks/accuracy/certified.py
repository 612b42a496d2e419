"""Certified accuracy of classifiers behind the bundled denoisers, and an attempt to break certificates.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.certified cifar10
    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.certified mobilenet_v2
    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.certified broken

cifar10, mobilenet_v2  Certified accuracy by L2 radius, behind each denoiser and of the bare classifier under the same
                       noise. The classifiers are frozen and never saw noise. MobileNetV2 took no part in training
                       the denoisers; the reference ResNet-20 of CIFAR-10 did. A run that was stopped resumes.
broken                 PGD in L2 inside the radius of certificates of cifar10, through denoiser and classifier, averaged
                       over draws of the noise. A certificate is broken if the smoothed classifier then predicts another
                       class. An abstention breaks nothing.

The images are test images: they took no part in a training. Results: certified_<part>.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.accuracy.evaluations import measured
from benchmarks.kit import classified, environment, model, weights_of, write_result
from benchmarks.markdown import in_words, percent, table
from benchmarks.recipes import cifar10_targets
from benchmarks.recipes.cifar10 import CLASSES, extract_part
from purifier import Purifier, list_purifiers
from purifier.attacks import PGD
from purifier.evaluation import Certification, ImageSet, labelled_images
from purifier.evaluation.certified import RADII
from purifier.evaluation.plan import UNDEFENDED
from purifier.smoothing import Smoothed

SIGMAS = {"smooth-025": 0.25, "smooth-012": 0.12}
# Images and draws of a part.
SIZES = {"cifar10": (200, 1000), "mobilenet_v2": (50, 200), "broken": (60, 1000)}
# Draws of the noise that a step of the attack averages over.
SAMPLES = 16


class NoisyMean(nn.Module):
    """The mean probability of a smoothed classifier's classes over draws of the noise, as logits (N, K)."""

    def __init__(self, smoothed: Smoothed, samples: int) -> None:
        super().__init__()
        self.smoothed, self.samples = smoothed, samples

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to logarithms of mean probabilities (N, K)."""
        many = images.repeat_interleave(self.samples, 0)
        found = self.smoothed.logits(many + self.smoothed.sigma * torch.randn_like(many))
        return found.softmax(1).unflatten(0, (len(images), self.samples)).mean(1).log()


def data_of(part: str, images: int) -> tuple[nn.Module, ImageSet]:
    """Returns the classifier and the images of a part."""
    if part == "mobilenet_v2":
        return model(part), classified(images)
    folder = extract_part("test", Path("runs/cifar10"))
    return cifar10_targets.resnet20(), labelled_images(folder, 32, images, classes=CLASSES)


def certify(part: str, denoisers: Mapping[str, Purifier], images: int, draws: int, work: Path) -> dict[str, Any]:
    """Returns the rows of the certified accuracy, with the settings of each denoiser's evaluation."""
    network, data = data_of(part, images)
    found: dict[str, Any] = {"rows": [], "settings": {}}
    for name, denoiser in denoisers.items():
        evaluation = measured(
            f"{part} {name}", network, data, purifiers={name: denoiser}, attacks={}, threats={},
            out=work / f"{part}-{name}-{images}-{draws}",
            certifications={name: Certification(sigma=SIGMAS[name], draws=draws)},
        )  # fmt: skip
        found["settings"][name] = evaluation.settings
        found["rows"] += [row.to_dict() for row in evaluation.certified]
    return found


def broken(name: str, denoiser: Purifier, images: int, draws: int, steps: int) -> dict[str, Any]:
    """Attacks the certified ones of the images, and returns how many certificates there were and how many broke."""
    network, data = data_of("cifar10", images)
    smoothed = Smoothed(network, denoiser, sigma=SIGMAS[name], generator=torch.Generator().manual_seed(0))
    target = NoisyMean(smoothed, SAMPLES).eval()
    found = {"certificates": 0, "broken": 0, "abstained": 0, "base_changed": 0}
    torch.manual_seed(0)
    for index in tqdm(range(len(data)), desc=name):
        (image,), _ = data.load([index])
        certificate = smoothed.certify(image, draws=draws)
        if certificate.label is None:
            continue
        eps = 0.99 * certificate.radius
        attack = PGD(norm="L2", eps=eps, alpha=2.5 * eps / steps, steps=steps)
        moved = attack(target, image[None], torch.tensor([certificate.label]))[0]
        label = int(smoothed.predict(moved, draws=draws))
        bare = int(network(moved[None]).argmax(1))
        found["certificates"] += 1
        found["abstained"] += label < 0
        found["broken"] += label not in (-1, certificate.label)
        found["base_changed"] += bare != int(network(image[None]).argmax(1))
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The table of a result file of certified accuracy."""
    lines = []
    for row in found["rows"]:
        options, name = row["certification"], row["purifier"]
        shares = [percent(one["share"], one["interval"]) for one in row["accuracies"]]
        largest = Certification(**options).largest_radius
        shown = [text if radius <= largest else "out of reach" for radius, text in zip(RADII, shares, strict=True)]
        lines.append(
            [
                "no denoiser" if name == UNDEFENDED else f"`{name}`", f"{options['sigma']:g}", str(row["images"]),
                str(options["draws"]), *shown, percent(row["abstained"] / row["images"]),
            ]
        )  # fmt: skip
    return table(["", "sigma", "n", "draws", *(f"radius {radius:g}" for radius in RADII), "abstained"], lines)


def sentence(found: Mapping[str, Any], radius: float = 0.25) -> str:
    """A sentence of the certified accuracy of CIFAR-10, without a radius and at one."""
    row = next(row for row in found["rows"] if row["purifier"] != UNDEFENDED)
    shares = {one["radius"]: in_words(one["share"], one["interval"]) for one in row["accuracies"]}
    return (
        f"Smoothed behind `{row['purifier']}`, {shares[radius]} of {row['images']} test images of CIFAR-10 are right "
        f"with a certificate of an L2 radius of {radius:g} or more, and {shares[0.0]} with one of any radius."
    )


def in_short(found: Mapping[str, Any]) -> str:
    """A sentence of the result of `broken`."""
    parts = [
        f"{row['certificates']} certificates behind `{name}`: {row['broken']} broken, {row['abstained']} times an "
        f"abstention, and {row['base_changed']} times the classifier alone predicts another class"
        for name, row in found["rows"].items()
    ]
    return "; ".join(parts) + "."


def block(found: Mapping[str, Any], part: str) -> str:
    """The table or the sentence of a part's result file."""
    return in_short(found) if part == "broken" else markdown(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(SIZES))
    parser.add_argument("--images", type=int, help="default: 200, 50 and 60")
    parser.add_argument("--draws", type=int, help="draws of the noise; default: 1,000, 200 and 1,000")
    parser.add_argument("--steps", type=int, default=20, help="steps of the attack of broken")
    parser.add_argument("--denoisers", nargs="+", choices=list(SIGMAS), help="default: all that are bundled")
    parser.add_argument("--work", type=Path, default=Path("runs/certified"), help="folder for records")
    args = parser.parse_args(arguments)
    images, draws = args.images or SIZES[args.part][0], args.draws or SIZES[args.part][1]
    names = args.denoisers or [name for name in SIGMAS if name in list_purifiers()]
    denoisers = {name: Purifier.from_pretrained(name, dtype="float32") for name in names}
    if args.part == "broken":
        rows = {name: broken(name, one, images, draws, args.steps) for name, one in denoisers.items()}
        settings = {"images": images, "draws": draws, "steps": args.steps, "samples": SAMPLES}
        found: dict[str, Any] = {"rows": rows, "settings": settings}
    else:
        found = certify(args.part, denoisers, images, draws, args.work)
    found |= {"weights": weights_of(denoisers), "environment": environment()}
    write_result(f"certified_{args.part}", found)
    print(block(found, args.part))


if __name__ == "__main__":
    main()
