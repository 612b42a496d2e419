"""Perturbations of the images of a step: attacks on the extractors, noise, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from purifier._errors import OptionError, nearest
from purifier.attacks import DIFGSM, MIFGSM, PGD, SSP, Attack, Square
from purifier.training.alloy.config import AlloyTraining, SourceLine
from purifier.training.alloy.extractors import Extractor
from purifier.training.label_free import between, divergence, gaussian, top_class_loss

# A source, and the network that it attacks; None for noise.
Source = tuple[SourceLine, Extractor | None]


class Sources:
    """Draws one of the sources and perturbs a batch with it. Random numbers come from torch's global generator.

    Args:
        config: Strengths and step size.
        sources: The sources.
    """

    def __init__(self, config: AlloyTraining, sources: Sequence[Source]) -> None:
        self.config, self.sources = config, list(sources)
        self._shares = torch.tensor([source.share for source, _ in sources], dtype=torch.float64)

    def draw(self) -> Source:
        """Draws a source with probabilities in proportion to the shares."""
        return self.sources[int(torch.multinomial(self._shares, 1))]

    def perturb(self, images: Tensor, source: SourceLine, extractor: Extractor | None) -> Tensor:
        """Perturbs images (N, 3, H, W) in [0, 1] by at most a drawn eps: the same shape, in [0, 1], detached."""
        config = self.config
        eps = between(config.eps_low, config.eps)
        if source.kind == "none":
            return images
        if source.kind == "gaussian":
            return gaussian(images, eps)
        if source.kind == "sign":
            signs = 2 * torch.randint_like(images, 2) - 1
            return (images + eps * signs).clamp(0, 1)
        assert extractor is not None
        return self._attacked(images, source, extractor, eps)

    def _attacked(self, images: Tensor, source: SourceLine, extractor: Extractor, eps: float) -> Tensor:
        fewest, most = source.steps
        steps, largest = fewest + _below(most - fewest + 1), self.config.attack_alpha
        alpha = eps * between(min(1 / steps, largest), largest)
        # Version 0.1 drew one more number here. Drawing it still gives the weights that its settings gave.
        between(0, 1)
        if source.kind == "ssp":
            layer = _below(max(1, len(extractor.layers)))
            ssp = SSP(lambda x: extractor.features(x)[layer], eps=eps, alpha=alpha, steps=steps)
            return ssp(extractor, images, None)
        with torch.no_grad():
            predictions = extractor(images).float().softmax(1)
        attack = _on_predictions(source.kind, eps, alpha, steps, math.prod(images.shape[1:]))
        return attack(extractor, images, predictions)


def resolve_sources(
    lines: Sequence[SourceLine], extractors: Sequence[Extractor], classifiers: Sequence[Extractor]
) -> list[Source]:
    """Finds the extractors that sources name. "*" splits a line's share evenly among all possible extractors.

    Args:
        lines: The sources of the settings.
        extractors: The extractors.
        classifiers: Those of them that classify.

    Raises:
        OptionError: If there is no such extractor, or its predictions are to be attacked but it does not classify.
    """
    found: list[Source] = []
    for line in lines:
        if not line.extractor:
            found.append((line, None))
            continue
        possible = extractors if line.kind == "ssp" else classifiers
        chosen = possible if line.extractor == "*" else [one for one in possible if one.name == line.extractor]
        if not chosen:
            names = [one.name for one in possible]
            what = "extractors" if line.kind == "ssp" else f"extractors with logits (N, K), as {line.kind} attacks them"
            raise OptionError(
                f"expected a source on one of the {what} ({', '.join(names) or 'none here'}), got "
                f"{line.kind}:{line.extractor}{nearest(line.extractor, names)}; change it or leave it out"
            )
        found += [(replace(line, extractor=one.name, share=line.share / len(chosen)), one) for one in chosen]
    return found


def _on_predictions(kind: str, eps: float, alpha: float, steps: int, values: int) -> Attack:
    """Returns the attack of a kind on a classifier's predictions for images of so many values each."""
    if kind == "square":
        return Square(eps=eps, queries=steps + 1, loss=divergence)
    if kind == "l2":
        # The L2 norm of a perturbation of 1 at every value.
        length = math.sqrt(values)
        return PGD(norm="L2", eps=eps * length, alpha=alpha * length, steps=steps, loss=divergence)
    if kind == "kl":
        return PGD(eps=eps, alpha=alpha, steps=steps, loss=divergence)
    return {"mi": MIFGSM, "di": DIFGSM}[kind](eps=eps, alpha=alpha, steps=steps, loss=top_class_loss)


def _below(count: int) -> int:
    return int(torch.randint(count, ()))
