"""Training of a denoiser for certified predictions, in front of frozen classifiers.

Salman et al., "Denoised Smoothing: A Provable Defense for Pretrained Classifiers", NeurIPS 2020,
https://arxiv.org/abs/2003.01908. First the mean squared error to the clean image (eq. 4), then the stability loss: the
cross entropy of the classifier's predictions for the denoised image with its class of the clean image (eq. 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import InputError, OptionError
from purifier._options import check_number
from purifier._purifier import Purifier
from purifier._random import isolated_randomness
from purifier.data.crops import RandomCrops
from purifier.methods._base import Method
from purifier.methods.alloy import Alloy
from purifier.training.extractors import Extractor, load_extractors, read_extractors
from purifier.training.initial import load_trained
from purifier.training.loop import Fitted, Losses, train_purifier
from purifier.training.outputs import training_card
from purifier.training.settings import PhotographTraining, check_folder_name
from purifier.training.validation import method_of, psnr

__all__ = ["DenoiserRecipe", "DenoiserTraining", "train"]


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining(PhotographTraining):
    """Settings of the denoiser training, in addition to those of every training on photographs.

    Attributes:
        name: Name of the finished purifier, and of its folder.
        sigma: Standard deviation of the noise, in units of the [0, 1] range.
        classifiers: Frozen classifiers of the stability loss, each as "NAME=MODEL:WEIGHT". MODEL is "reference:NAME"
            or "module:function", a function without arguments that returns a module of images in [0, 1] with logits
            (N, K). Several classifiers make a denoiser that also serves others.
        mse_share: Share of the steps in which the only loss is the mean squared error.
        pixel_weight: Weight of the mean squared error after that.
        filters: Width of the network, at the finest scale.
        blocks: Number of residual blocks on the way down and on the way up, at each scale.
        levels: Number of scales.
        patch: Side of a patch, in pixels, whose pixels are channels of the network's input.
        init: Name or folder of a trained denoiser of the same size to start from; "" means none.
    """

    crop_size: int = 64
    batch_size: int = 32
    name: str = "denoiser"
    sigma: float = 0.25
    classifiers: tuple[str, ...] = ("demo=reference:demo:1",)
    mse_share: float = 0.5
    pixel_weight: float = 1.0
    filters: int = 32
    blocks: int = 2
    levels: int = 3
    patch: int = 1
    init: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folder_name(self.name)
        if not 0 < self.sigma < math.inf:
            raise OptionError(f"expected sigma > 0, in units of the [0, 1] range, got {self.sigma}")
        check_number("mse_share", self.mse_share, low=0, high=1)
        if not 0 <= self.pixel_weight < math.inf:
            raise OptionError(f"expected pixel_weight >= 0, got {self.pixel_weight}")
        read_extractors(self.classifiers)


class DenoiserRecipe:
    """The model, crops, losses and validation of the denoiser training.

    Raises:
        InputError: If there are no images, or a network does not classify.
        OptionError: If settings do not fit together.
    """

    critic: nn.Module | None = None

    def __init__(self, config: DenoiserTraining) -> None:
        self.config = config
        self.classifiers = load_extractors(read_extractors(config.classifiers))
        probe = torch.full((1, 3, config.crop_size, config.crop_size), 0.5)
        for one in self.classifiers:
            if not one.classifies(probe):
                raise InputError(f"expected a classifier with logits (N, classes) as {one.name!r}, got another network")
        # After the classifiers, which may draw random numbers.
        torch.manual_seed(config.seed)
        method = Alloy(
            iterations=1, patch=config.patch, filters=config.filters, blocks=config.blocks, levels=config.levels
        )
        if config.init:
            load_trained(method, config.init)
        self.model: nn.Module = _Applied(method).to(memory_format=torch.channels_last)
        self.crops, held_out = config.crops_and_validation()
        self._stable_from = math.ceil(config.mse_share * config.steps) if self.classifiers else config.steps
        count = min(config.validation_images, len(held_out))
        self._held = RandomCrops(held_out, crop_size=config.crop_size, length=count, seed=config.seed + 1)

    def to(self, device: torch.device) -> None:
        """Moves the classifiers."""
        for one in self.classifiers:
            one.to(device)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Tensor, step: int) -> Losses:
        """Adds noise to clean crops, denoises them, and compares pixels and, after the first part, predictions."""
        output = model(batch + self.config.sigma * torch.randn_like(batch)).float()
        parts = {"pixel": (output - batch).square().mean()}
        if step < self._stable_from:
            total = parts["pixel"]
        else:
            parts |= {one.name: stability_loss(one, output.clamp(0, 1), batch) for one in self.classifiers}
            weighted = [one.weight * parts[one.name] for one in self.classifiers]
            total = torch.stack([self.config.pixel_weight * parts["pixel"], *weighted]).sum()
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measures the denoiser on noisy held-out crops.

        Returns:
            "psnr" in dB of denoised crops, and for each classifier "kept_NAME": the share of crops whose class it keeps
            under the noise with the denoiser, and "bare_NAME", without it.
        """
        clean, noisy, denoised = self._crops(model)
        found = {"psnr": psnr(denoised, clean)}
        for one in self.classifiers:
            wanted = _classes(one, clean)
            found[f"kept_{one.name}"] = (_classes(one, denoised) == wanted).float().mean().item()
            found[f"bare_{one.name}"] = (_classes(one, noisy) == wanted).float().mean().item()
        return found

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, noisy, denoised."""
        return [images[:6] for images in self._crops(model)]

    def purifier(self, fitted: Fitted) -> Purifier:
        """Makes the trained denoiser, with its model card."""
        config = self.config
        text = (
            "A denoiser for certified predictions ([Salman et al., NeurIPS 2020](https://arxiv.org/abs/2003.01908)), "
            f"for Gaussian noise\nof sigma {config.sigma:.4g}: `purifier.smoothing.Smoothed(model, {config.name!r}, "
            f"sigma={config.sigma:.4g})`. Trained with\n`purifier train denoiser`: {fitted.step} of {config.steps} "
            "steps. It is not meant to be used without the smoothing."
        )
        measured = (
            "On held-out crops with noise: PSNR in dB after denoising, and for each classifier the share of crops\n"
            "whose class it keeps, with the denoiser (kept) and without it (bare)."
        )
        card = training_card(config.name, "alloy", text, config, fitted.history, measured=measured)
        return Purifier(method_of(fitted.model).cpu(), name=config.name, card=card)

    @torch.no_grad()
    def _crops(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Returns clean, noisy and denoised held-out crops, on the model's device."""
        device = next(model.parameters()).device
        with isolated_randomness(device, seed=self.config.seed):
            clean = torch.stack([self._held[number] for number in range(len(self._held))]).to(device)
            noisy = clean + self.config.sigma * torch.randn_like(clean)
        denoised = torch.cat([model(part).float().clamp(0, 1) for part in noisy.split(16)])
        return clean, noisy, denoised


class _Applied(nn.Module):
    """The forward pass that the loop trains: the method without its clamp."""

    def __init__(self, method: Alloy) -> None:
        super().__init__()
        self.method: Method = method

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.method, Alloy)
        return self.method.reconstruct(images)


def stability_loss(classifier: Extractor, denoised: Tensor, clean: Tensor) -> Tensor:
    """Cross entropy, in nats, of a classifier's predictions for denoised images with its classes of the clean ones."""
    return F.cross_entropy(classifier.features_and_output(denoised)[1].float(), _classes(classifier, clean))


@torch.no_grad()
def _classes(classifier: Extractor, images: Tensor) -> Tensor:
    found = [classifier.features_and_output(part)[1].argmax(1) for part in images.split(64)]
    return torch.cat(found)


def train(config: DenoiserTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains a denoiser and writes the purifier to `out / config.name`; see `purifier.training.loop.train_purifier`.

    `config.data` names at least one folder of images; the arguments are those of `train_purifier`.

    Raises:
        InputError: If there are no images, or a network does not classify.
        OptionError: If settings do not fit together, or `out` holds a run with other settings.
    """
    return train_purifier(lambda: DenoiserRecipe(config), config, out, minutes=minutes)
