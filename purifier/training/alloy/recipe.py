"""The Alloy recipe: perturb clean crops, purify them, and compare pixels, features and predictions with clean ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier.attacks import SSP
from purifier.methods.alloy import Alloy
from purifier.training.alloy.config import AlloyTraining
from purifier.training.bank.pairs import Batch, Pairs
from purifier.training.extractors import Extractor, load_extractors, read_extractors
from purifier.training.initial import load_alloy
from purifier.training.label_free import divergence
from purifier.training.loop import Fitted, Losses, train_purifier
from purifier.training.outputs import training_card
from purifier.training.perturbations import Sources, Strength, read_sources, resolve_sources
from purifier.training.validation import PhotographRecipe, method_of

# Step of the sizes of `views`. Kernels are tuned once for each size, so there are few of them.
_STRIDE = 16


class AlloyRecipe(PhotographRecipe):
    """The model, crops, perturbations, losses and validation of the Alloy training.

    Raises:
        InputError: If there are no images, or an extractor gives no features.
        OptionError: If settings do not fit together.
        WeightsError: If the weights of an extractor cannot be loaded.
    """

    def __init__(self, config: AlloyTraining) -> None:
        self.config = config
        self.extractors = load_extractors(read_extractors(config.extractors))
        # After the extractors, which may draw random numbers.
        torch.manual_seed(config.seed)
        method = _network(config)
        self.gate = method.gate
        self.model: nn.Module = _Trained(method, config.only_gate)
        probe = torch.full((1, 3, config.crop_size, config.crop_size), 0.5)
        classifiers = [one for one in self.extractors if one.classifies(probe)]
        strength = Strength(config.eps_low, config.eps, config.attack_alpha)
        self.sources = Sources(strength, resolve_sources(read_sources(config.sources), self.extractors, classifiers))
        self.classifiers = _one_of_each_network(classifiers) if config.prediction_weight else []
        if not self.classifiers and not any(config.loss_weights().values()):
            raise OptionError(
                "expected a loss beside prediction_weight, as no extractor classifies; set pixel_weight too"
            )
        self.teacher = Purifier.from_pretrained(config.teacher) if config.teacher else None
        self._weights = {"pixel": config.pixel_weight, "predictions": config.prediction_weight}
        self._weights |= {"teacher": config.teacher_weight, "gate": config.gate_weight}
        self._weights |= {one.name: one.weight for one in self.extractors}
        super().__init__(config, _validation_attacks(self.extractors, config.seed), config.labelled)

    def to(self, device: torch.device) -> None:
        """Moves the extractors and the teacher."""
        for extractor in self.extractors:
            extractor.to(device)
        if self.teacher is not None:
            self.teacher.to(device)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Batch, step: int) -> Losses:
        """Perturbs clean crops, unless they come from a bank, purifies them and compares them with the clean crops."""
        source, extractor = self.sources.draw()
        perturb = partial(self.sources.perturb, source=source, extractor=extractor)
        pairs = Pairs.of(batch).completed(perturb, attacked=source.kind != "none")
        if self.config.only_gate:
            logits, clean = model(torch.cat((pairs.perturbed, pairs.clean))).split(len(pairs.clean))
            parts = {"gate": gate_loss(logits, pairs.attacked, clean, self.config.gate_worst)}
        else:
            parts = self._parts(model, pairs)
        total = sum((self._weights[name] * part for name, part in parts.items()), pairs.clean.new_zeros(()))
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _parts(self, model: Callable[[Tensor], Tensor], pairs: Pairs) -> dict[str, Tensor]:
        """Computes the losses of the network, and of its gate."""
        parts: dict[str, Tensor] = {}
        batch, perturbed = pairs.clean, pairs.perturbed
        if self.gate is not None and self.config.gate_weight:
            logits = self.gate.logits(perturbed)
            parts["gate"] = gate_loss(logits, pairs.attacked, self.gate.logits(batch), self.config.gate_worst)
        output = model(perturbed).float()
        if self.config.pixel_weight:
            parts["pixel"] = pixel_loss(output, batch)
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(perturbed).float()
            parts["teacher"] = pixel_loss(output, taught)
        view = self._view(batch)
        clean_view, output_view = view(batch), view(output.clamp(0, 1))
        divergences: list[Tensor] = []
        for extractor in self.extractors:
            classifies = extractor in self.classifiers
            if not extractor.weight and not classifies:
                continue
            with torch.no_grad():
                clean_features, clean_logits = extractor.features_and_output(clean_view)
            features, logits = extractor.features_and_output(output_view)
            if extractor.weight:
                parts[extractor.name] = relative_distance(features, clean_features)
            if classifies:
                divergences.append(divergence(logits, clean_logits.float().softmax(1)).mean())
        if divergences:
            parts["predictions"] = torch.stack(divergences).mean()
        return parts

    def _view(self, batch: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns the resizing of images for the extractors of a step, to a size that `views` lets be drawn."""
        if not self.config.views:
            return lambda images: images
        factor = 1 + self.config.views * (2 * torch.rand(()).item() - 1)
        size = [_STRIDE * max(1, round(side * factor / _STRIDE)) for side in batch.shape[-2:]]
        return lambda images: F.interpolate(images, size, mode="bilinear", align_corners=False)

    def purifier(self, fitted: Fitted) -> Purifier:
        """Makes the trained purifier, with its model card."""
        config = self.config
        text = (
            f"Alloy, this project's own purifier, trained with `purifier train alloy`: {fitted.step} of {config.steps} "
            f"steps;\nvalidated at {config.iterations} iterations; `psr_ssp` is for SSP on the first extractor."
        )
        card = training_card(config.name, "alloy", text, config, fitted.history)
        return Purifier(method_of(fitted.model).cpu(), name=config.name, card=card)


class _Trained(nn.Module):
    """The forward pass that the loop trains: one application of the method, or the logits of its gate."""

    def __init__(self, method: Alloy, only_gate: bool) -> None:
        super().__init__()
        self.method = method
        self.only_gate = only_gate

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to purified ones, not clamped, or to logits of the same length."""
        if not self.only_gate:
            return self.method.reconstruct(images)
        assert self.method.gate is not None
        return self.method.gate.logits(images)


def pixel_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of images."""
    return (purified - clean).abs().mean()


def relative_distance(features: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features, divided by the mean absolute clean feature; the mean over layers.

    Args:
        features: Features (N, ...) of each layer.
        clean: Features of the clean images. No gradient flows to the divisor.
    """
    found = [
        (one.float() - other.float()).abs().mean() / other.detach().float().abs().mean().clamp_min(1e-8)
        for one, other in zip(features, clean, strict=True)
    ]
    return torch.stack(found).mean()


def gate_loss(perturbed: Tensor, attacked: Tensor, clean: Tensor, worst: float = 0.0) -> Tensor:
    """Cross entropy of a gate's logits, in nats; the mean over perturbed images and clean ones.

    Args:
        perturbed: Logits (N, 1, h, w) for perturbed images.
        attacked: Which of these images are attacked, (N,), bool.
        clean: Logits for clean images.
        worst: Share of the loss that counts the worst position of each image only; see `AlloyTraining`.
    """
    found = []
    for logits, wanted in ((perturbed, attacked), (clean, torch.zeros_like(attacked))):
        target = wanted.to(torch.float32).view(-1, 1, 1, 1).expand_as(logits)
        of_each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        part = of_each.mean()
        if worst:
            part = (1 - worst) * part + worst * of_each.amax((1, 2, 3)).mean()
        found.append(part)
    return torch.stack(found).mean()


def _validation_attacks(extractors: list[Extractor], seed: int) -> dict[str, SSP]:
    """Returns SSP on the first layer of the first extractor, if there is one."""
    if not extractors:
        return {}
    first, noise = extractors[0], torch.Generator().manual_seed(seed)
    return {"ssp": SSP(lambda x: first.features(x)[0], eps=16 / 255, alpha=4 / 255, steps=10, generator=noise)}


def _one_of_each_network(extractors: list[Extractor]) -> list[Extractor]:
    """Returns the first extractor of each network."""
    return list({one.network: one for one in reversed(extractors)}.values())


def _network(config: AlloyTraining) -> Alloy:
    network = Alloy(**{name: getattr(config, name) for name in signature(Alloy).parameters})
    if config.init:
        load_alloy(network, config.init)
    if config.only_gate:
        network.network.requires_grad_(False)
    return network


def train(config: AlloyTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains Alloy and writes the purifier to `out / config.name`; see `purifier.training.loop.train_purifier`.

    `config.data` names at least one folder of images; the arguments are those of `train_purifier`.

    Raises:
        InputError: If there are no images, or an extractor gives no features.
        OptionError: If settings do not fit together, or `out` holds a run with other settings.
        WeightsError: If the weights of an extractor cannot be loaded.
    """
    return train_purifier(lambda: AlloyRecipe(config), config, out, minutes=minutes)
