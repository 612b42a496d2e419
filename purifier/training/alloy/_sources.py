"""What spoils the images of a step: attacks on the extractors, noise, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from purifier._errors import OptionError, nearest
from purifier.attacks import DIFGSM, MIFGSM, PGD, SSP, Attack, Square
from purifier.methods.noise import ProjectedNoise
from purifier.training._divergence import disbelief, divergence
from purifier.training.alloy._config import AlloyTraining
from purifier.training.alloy._extractors import Extractor
from purifier.training.alloy._lines import SourceLine

Purify = Callable[[Tensor], Tensor]

# Gaussian noise of dynamic inference: sigma 0.05 beside eps 16/255.
_SIGMA_OF_EPS = 0.05 / (16 / 255)


@dataclass(frozen=True)
class Source:
    """One way to spoil images; see `SourceLine`.

    Attributes:
        kind: That of a `SourceLine`.
        extractor: What is attacked; None for noise.
        share: How often it is drawn, relative to the others.
        steps: Fewest and most steps of an attack.
    """

    kind: str
    extractor: Extractor | None
    share: float
    steps: tuple[int, int] = (0, 0)


class Sources:
    """Draws one of the sources, and spoils a batch with it. Random numbers come from torch's global generator.

    Args:
        config: Strengths, step size and the share of aware attacks.
        sources: What is drawn from.
        purify: The purifier in training, which aware attacks go through.
    """

    def __init__(self, config: AlloyTraining, sources: Sequence[Source], purify: Purify) -> None:
        self.config, self.sources, self.purify = config, list(sources), purify
        self._shares = torch.tensor([source.share for source in sources], dtype=torch.float64)

    def draw(self) -> Source:
        """Draws a source by the shares."""
        return self.sources[int(torch.multinomial(self._shares, 1))]

    def spoil(self, images: Tensor, source: Source) -> Tensor:
        """Perturbs images (N, 3, H, W) in [0, 1] by at most a drawn eps: the same shape, in [0, 1], detached."""
        config = self.config
        eps = _between(config.eps_low, config.eps)
        if source.kind == "none":
            return images
        if source.kind == "gaussian":
            return ProjectedNoise(sigma=_SIGMA_OF_EPS * eps, eps=eps)(images)
        if source.kind == "sign":
            signs = 2 * torch.randint_like(images, 2) - 1
            return (images + eps * signs).clamp(0, 1)
        return self._attacked(images, source, eps)

    def _attacked(self, images: Tensor, source: Source, eps: float) -> Tensor:
        extractor, (fewest, most) = source.extractor, source.steps
        assert extractor is not None
        steps, largest = fewest + _below(most - fewest + 1), self.config.attack_alpha
        alpha = eps * _between(min(1 / steps, largest), largest)
        aware = _between(0, 1) < self.config.aware_share
        seen: Purify = (lambda x: self.purify(x).clamp(0, 1)) if aware else (lambda x: x)
        if source.kind == "ssp":
            layer = _below(max(1, len(extractor.layers)))
            attacked = SSP(lambda x: extractor.features(seen(x))[layer], eps=eps, alpha=alpha, steps=steps)(
                extractor, images, None
            )
        else:
            with torch.no_grad():
                beliefs = extractor(images).float().softmax(1)
            attack = _on_beliefs(source.kind, eps, alpha, steps, math.prod(images.shape[1:]))
            attacked = attack(lambda x: extractor(seen(x)), images, beliefs)
        if aware:
            # Weights that autocast kept while gradients were off would give the step none.
            torch.clear_autocast_cache()
        return attacked


def resolve_sources(
    lines: Sequence[SourceLine], extractors: Sequence[Extractor], classifiers: Sequence[Extractor]
) -> list[Source]:
    """Finds the extractors that sources name; "*" shares a line's share evenly among all that it is possible for.

    Args:
        lines: The sources of a configuration.
        extractors: The extractors.
        classifiers: Those of them that classify.

    Raises:
        OptionError: Where there is no such extractor, or it is no classifier and its beliefs are to be attacked.
    """
    found: list[Source] = []
    for line in lines:
        if not line.extractor:
            found.append(Source(line.kind, None, line.share))
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
        found += [Source(line.kind, one, line.share / len(chosen), line.steps) for one in chosen]
    return found


def _on_beliefs(kind: str, eps: float, alpha: float, steps: int, values: int) -> Attack:
    """The attack of a kind away from what a classifier says of the clean images, which have that many values each."""
    if kind == "square":
        return Square(eps=eps, queries=steps + 1, loss=divergence)
    if kind == "l2":
        # As long as a perturbation of eps at every value.
        length = math.sqrt(values)
        return PGD(norm="L2", eps=eps * length, alpha=alpha * length, steps=steps, loss=divergence)
    if kind == "kl":
        return PGD(eps=eps, alpha=alpha, steps=steps, loss=divergence)
    return {"mi": MIFGSM, "di": DIFGSM}[kind](eps=eps, alpha=alpha, steps=steps, loss=disbelief)


def _between(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _below(count: int) -> int:
    return int(torch.randint(count, ()))
