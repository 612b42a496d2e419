"""Validation of a purifier in training, on held-out images and with the demo classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import InputError
from purifier.attacks import PGD
from purifier.attacks.base import Attack
from purifier.data.crops import evenly
from purifier.data.images import central_square, list_images, read_pixels, to_tensor
from purifier.methods._base import Method
from purifier.models.reference import ReferenceClassifier, reference_model
from purifier.training.settings import PhotographTraining

_SIDE = 128


class PhotographRecipe:
    """The part of a recipe that all trainings on photographs share: the crops, and the validation.

    Args:
        config: The settings.
        attacks: As for `Validation`.
        labelled: As for `Validation`.
    """

    critic: nn.Module | None = None

    def __init__(
        self, config: PhotographTraining, attacks: Mapping[str, Attack] | None = None, labelled: str = ""
    ) -> None:
        self.crops, held_out = config.crops_and_validation()
        self._validation = Validation(
            held_out, count=config.validation_images, seed=config.seed, attacks=attacks, labelled=labelled
        )

    def to(self, device: torch.device) -> None:
        """Moves fixed networks, of which there are none here."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measures the purifier with its own number of iterations; see `Validation.figures`."""
        return self._validation.figures(method_of(model), next(model.parameters()).device)

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, clean purified, attacked by the last of the attacks, attacked purified."""
        return self._validation.samples(method_of(model), next(model.parameters()).device)


def method_of(model: nn.Module) -> Method:
    """Returns the method in the model that the loop trains, which may wrap it."""
    return cast(Method, getattr(model, "method", model))


class Validation:
    """Clean and attacked held-out images, and how the demo classifier classifies them after purification.

    Args:
        paths: Held-out image files without labels. At most `count` of them are used, spread evenly.
        count: How many.
        seed: Decides the attacks' random starts.
        attacks: More attacks, by name, beside "pgd" (Linf 16/255, 10 steps of 1.6/255, blind, on the demo classifier).
        labelled: A folder with a folder of images for some of the demo classifier's classes, or "". At most `count`
            of them are used, spread evenly.

    Raises:
        InputError: If a labelled image belongs to no class of the demo classifier.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        count: int,
        seed: int,
        attacks: Mapping[str, Attack] | None = None,
        labelled: str = "",
    ) -> None:
        classifier = reference_model("demo").requires_grad_(False)
        assert isinstance(classifier, ReferenceClassifier)
        self._classifier = classifier
        pgd = PGD(eps=16 / 255, alpha=1.6 / 255, steps=10, generator=torch.Generator().manual_seed(seed))
        self._attacks: dict[str, Attack] = {"pgd": pgd, **(attacks or {})}
        self.clean = torch.stack([read_square(path) for path in evenly(paths, count)])
        self._predicted = classifier(self.clean).argmax(1)
        self.attacked = self._attack(self.clean, self._predicted)
        self._labelled: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None
        if labelled:
            files = evenly(list_images([labelled]), count)
            images, labels = torch.stack([read_square(path) for path in files]), _labels(files, classifier.classes)
            self._labelled = images, labels, self._attack(images, labels)

    def _attack(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {name: attack(self._classifier, images, targets) for name, attack in self._attacks.items()}

    def figures(self, purify: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Measures a purifier.

        Args:
            purify: Maps images (N, 3, H, W) on `device` to purified ones, which are then clamped to [0, 1].
            device: Device of the purifier.

        Returns:
            "psnr", in dB, of purified clean images to clean ones; "psr_clean" and "psr_<attack>", the shares of images
            that are classified after purification as the clean image was without it. With labels also "standard" and
            "robust_<attack>", accuracies with the purifier in front of the classifier (blind attacks).
        """
        with torch.inference_mode():
            clean = purified(purify, self.clean, device)
            found = {"psnr": psnr(clean, self.clean), "psr_clean": self._share(clean, self._predicted)}
            for name, images in self.attacked.items():
                found[f"psr_{name}"] = self._share(purified(purify, images, device), self._predicted)
            if self._labelled is not None:
                images, labels, attacked = self._labelled
                found["standard"] = self._share(purified(purify, images, device), labels)
                for name, moved in attacked.items():
                    found[f"robust_{name}"] = self._share(purified(purify, moved, device), labels)
        return found

    def samples(self, purify: Callable[[Tensor], Tensor], device: torch.device, count: int = 6) -> list[Tensor]:
        """Returns rows of pictures: clean, clean purified, attacked by the last attack, attacked purified."""
        clean, attacked = self.clean[:count], list(self.attacked.values())[-1][:count]
        with torch.inference_mode():
            rows = [purified(purify, images, device) for images in (clean, attacked)]
        return [clean, rows[0], attacked, rows[1]]

    def _share(self, images: Tensor, classes: Tensor) -> float:
        return (self._classifier(images).argmax(1) == classes).float().mean().item()


def purified(purify: Callable[[Tensor], Tensor], images: Tensor, device: torch.device) -> Tensor:
    """Purifies images (N, 3, H, W) in batches on a device: clamped to [0, 1], float32, on the CPU."""
    return torch.cat([purify(batch.to(device)).float().clamp(0, 1).cpu() for batch in images.split(16)])


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
    """Reads the central square of an image as (3, 128, 128), float in [0, 1]: its shorter side is resized to 128."""
    image = to_tensor(read_pixels(path))
    factor = _SIDE / min(image.shape[1:])
    size = [max(_SIDE, round(length * factor)) for length in image.shape[1:]]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return small[(slice(None), *central_square(*small.shape[1:]))]
