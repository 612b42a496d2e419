"""What a purifier in training does for pictures that it was not trained on, and for a classifier it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError
from purifier.attacks import PGD
from purifier.attacks.base import Attack
from purifier.data.crops import evenly
from purifier.data.images import list_images, read_pixels, to_tensor
from purifier.models.reference import ReferenceClassifier, reference_model

_SIDE = 128


class Validation:
    """Clean and attacked pictures, and the demo classifier's judgement of what a purifier makes of them.

    Args:
        paths: Held-out image files without labels, of which up to `count` are taken, evenly.
        count: How many.
        seed: Decides the attacks' starts.
        attacks: More attacks, by name, beside "pgd" (Linf 16/255, 10 steps of 1.6/255, blind, on the demo classifier).
        labelled: A folder with a folder of pictures for some of the demo classifier's classes, or None; `count` of
            them are taken, evenly.

    Raises:
        InputError: Where a labelled picture is of no class of the demo classifier.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        count: int,
        seed: int,
        attacks: Mapping[str, Attack] | None = None,
        labelled: Path | None = None,
    ) -> None:
        classifier = reference_model("demo").requires_grad_(False)
        assert isinstance(classifier, ReferenceClassifier)
        self._classifier = classifier
        pgd = PGD(eps=16 / 255, alpha=1.6 / 255, steps=10, generator=torch.Generator().manual_seed(seed))
        self._attacks: dict[str, Attack] = {"pgd": pgd, **(attacks or {})}
        self._device = torch.device("cpu")
        self.clean = torch.stack([read_square(path) for path in evenly(paths, count)])
        self._predicted = classifier(self.clean).argmax(1)
        self.attacked = self._attack(self.clean, self._predicted)
        self._labelled: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None
        if labelled is not None:
            files = evenly(list_images([labelled]), count)
            images, labels = torch.stack([read_square(path) for path in files]), _labels(files, classifier.classes)
            self._labelled = images, labels, self._attack(images, labels)

    def _attack(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {name: attack(self._classifier, images, targets) for name, attack in self._attacks.items()}

    def figures(self, purify: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Figures of a purifier.

        Args:
            purify: Map of images (N, 3, H, W) on `device` to purified ones; the result is clamped to [0, 1].
            device: Where the images are to be.

        Returns:
            "psnr", in dB, of purified clean images to clean ones; "psr_clean" and "psr_<attack>", the shares of
            images that are classified after purification as the clean image was without it; where there are labels,
            "standard" and "robust_<attack>", accuracies with the purifier in front (blind attacks).
        """
        with torch.inference_mode():
            clean = self._purified(purify, self.clean, device)
            found = {"psnr": psnr(clean, self.clean), "psr_clean": self._share(clean, self._predicted)}
            for name, images in self.attacked.items():
                found[f"psr_{name}"] = self._share(self._purified(purify, images, device), self._predicted)
            if self._labelled is not None:
                images, labels, attacked = self._labelled
                found["standard"] = self._share(self._purified(purify, images, device), labels)
                for name, moved in attacked.items():
                    found[f"robust_{name}"] = self._share(self._purified(purify, moved, device), labels)
        return found

    def samples(self, purify: Callable[[Tensor], Tensor], device: torch.device, count: int = 6) -> list[Tensor]:
        """Rows of pictures: clean; then for clean and for the last attack: attacked, purified."""
        attacked = list(self.attacked.values())[-1][:count]
        with torch.inference_mode():
            rows = [self._purified(purify, images, device) for images in (self.clean[:count], attacked)]
        return [self.clean[:count], rows[0], attacked, rows[1]]

    def _purified(self, purify: Callable[[Tensor], Tensor], images: Tensor, device: torch.device) -> Tensor:
        return torch.cat([purify(batch.to(device)).float().clamp(0, 1).cpu() for batch in images.split(16)])

    def _share(self, images: Tensor, classes: Tensor) -> float:
        return (self._classifier(images).argmax(1) == classes).float().mean().item()


def psnr(images: Tensor, truth: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of images in [0, 1]."""
    errors = (images - truth).square().flatten(1).mean(1).clamp_min(1e-10)
    return (-10 * errors.log10()).mean().item()


def _labels(files: Sequence[Path], classes: Sequence[str]) -> Tensor:
    names = [path.parent.name for path in files]
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise InputError(
            f"expected labelled pictures in folders called {', '.join(sorted(classes))}, got {', '.join(unknown)}; "
            "leave other folders out"
        )
    return torch.tensor([classes.index(name) for name in names])


def read_square(path: Path) -> Tensor:
    """Reads an image (3, 128, 128), float in [0, 1]: its short side shrunk to that, its centre cut out."""
    image = to_tensor(read_pixels(path))
    factor = _SIDE / min(image.shape[1:])
    size = [max(_SIDE, round(length * factor)) for length in image.shape[1:]]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = (small.shape[1] - _SIDE) // 2, (small.shape[2] - _SIDE) // 2
    return small[:, top : top + _SIDE, left : left + _SIDE]
