"""Perturbations of images: attacks on networks that need no labels, noise, or none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from purifier._errors import OptionError, nearest
from purifier.attacks import APGD, CW, DIFGSM, MIFGSM, PGD, SSP, TIFGSM, Attack, Ensemble, Square
from purifier.attacks.losses import margin
from purifier.training.extractors import Extractor, ExtractorLine, number
from purifier.training.label_free import between, divergence, gaussian, top_class_loss

AttackKind = Literal["ssp", "kl", "pgd", "l2", "mi", "di", "ti", "apgd", "cw", "square"]
NoiseKind = Literal["gaussian", "sign", "none"]

_STEPS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class SourceLine:
    """A source of perturbed images as the settings state it.

    Attributes:
        kind: An attack or a noise.
        extractor: Name of the extractor that is attacked, "*" for all, "a+b" for the mean of their logits; "" for
            noise.
        share: Its probability, relative to the other sources.
        steps: Fewest and most steps of an attack.
    """

    kind: AttackKind | NoiseKind
    extractor: str
    share: float
    steps: tuple[int, int]


# A source, and the network that it attacks; None for noise.
Source = tuple[SourceLine, Extractor | None]


@dataclass(frozen=True)
class Strength:
    """How strong the attacks of a source are.

    Attributes:
        eps_low: Smallest eps, in units of the [0, 1] range.
        eps: Largest eps.
        alpha: Largest step size, as a share of eps. Each attack draws its step size between this and 1 / steps, with
            which it just reaches eps.
    """

    eps_low: float
    eps: float
    alpha: float


class Sources:
    """Draws one of the sources and perturbs a batch with it. Random numbers come from torch's global generator.

    Args:
        strength: Strengths and step size.
        sources: The sources.
    """

    def __init__(self, strength: Strength, sources: Sequence[Source]) -> None:
        self.strength, self.sources = strength, list(sources)
        self._shares = torch.tensor([source.share for source, _ in sources], dtype=torch.float64)

    def draw(self) -> Source:
        """Draws a source with probabilities in proportion to the shares."""
        return self.sources[int(torch.multinomial(self._shares, 1))]

    def perturb(self, images: Tensor, source: SourceLine, extractor: Extractor | None) -> Tensor:
        """Perturbs images (N, 3, H, W) in [0, 1] by at most a drawn eps: the same shape, in [0, 1], detached."""
        eps = between(self.strength.eps_low, self.strength.eps)
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
        steps, largest = fewest + _below(most - fewest + 1), self.strength.alpha
        alpha = eps * between(min(1 / steps, largest), largest)
        # Version 0.1 drew one more number here. Drawing it still gives the weights that its settings gave.
        between(0, 1)
        attack = label_free_attack(source.kind, extractor, eps=eps, alpha=alpha, steps=steps, images=images)
        return attack(extractor, images, targets_of(source.kind, extractor, images))


def label_free_attack(
    kind: str, extractor: Extractor, *, eps: float, alpha: float, steps: int, images: Tensor
) -> Attack:
    """Makes an attack of a kind. Its targets are those of `targets_of`.

    Args:
        kind: One of `AttackKind`.
        extractor: The network. SSP attacks one of its layers, which is drawn.
        eps: Largest change of a value. For "l2", the radius is the norm of a change by eps at every value. "cw" has no
            radius.
        alpha: Step size, in the same form. "apgd", "cw" and "square" choose their own.
        steps: Number of steps, or of queries for "square".
        images: The images (N, 3, H, W) that are to be attacked.
    """
    if kind == "ssp":
        layer = _below(max(1, len(extractor.layers)))
        return SSP(lambda x: extractor.features(x)[layer], eps=eps, alpha=alpha, steps=steps)
    if kind == "square":
        return Square(eps=eps, queries=steps + 1, loss=divergence)
    if kind == "l2":
        # The L2 norm of a perturbation of 1 at every value.
        length = math.sqrt(math.prod(images.shape[1:]))
        return PGD(norm="L2", eps=eps * length, alpha=alpha * length, steps=steps, loss=divergence)
    if kind == "cw":
        return CW(steps=steps, c=1.0, search=2, margin=lambda output, wanted: margin(output, wanted.argmax(1)))
    if kind == "apgd":
        return APGD(eps=eps, steps=steps, loss=top_class_loss)
    if kind in ("kl", "pgd"):
        return PGD(eps=eps, alpha=alpha, steps=steps, loss=divergence if kind == "kl" else top_class_loss)
    makers: dict[str, Callable[..., Attack]] = {"mi": MIFGSM, "di": DIFGSM, "ti": partial(TIFGSM, decay=1.0)}
    return makers[kind](eps=eps, alpha=alpha, steps=steps, loss=top_class_loss)


def targets_of(kind: str, extractor: Extractor, images: Tensor) -> Tensor | None:
    """Returns the targets of a label-free attack: the predicted probabilities (N, K); None for "ssp"."""
    if kind == "ssp":
        return None
    with torch.no_grad():
        output: Tensor = extractor(images)
    return output.float().softmax(1)


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
        possible = list(extractors if line.kind == "ssp" else classifiers)
        if line.extractor == "*":
            chosen = possible
        elif line.kind != "ssp" and "+" in line.extractor:
            chosen = [_ensemble(line, [_named(line, name, possible) for name in line.extractor.split("+")])]
        else:
            chosen = [_named(line, line.extractor, possible)]
        if not chosen:
            raise _not_found(line, "*", possible)
        found += [(replace(line, extractor=one.name, share=line.share / len(chosen)), one) for one in chosen]
    return found


def _named(line: SourceLine, name: str, possible: Sequence[Extractor]) -> Extractor:
    for one in possible:
        if one.name == name:
            return one
    raise _not_found(line, name, possible)


def _not_found(line: SourceLine, name: str, possible: Sequence[Extractor]) -> OptionError:
    names = [one.name for one in possible]
    what = "extractors" if line.kind == "ssp" else f"extractors with logits (N, K), as {line.kind} attacks them"
    return OptionError(
        f"expected a source on one of the {what} ({', '.join(names) or 'none here'}), got "
        f"{line.kind}:{line.extractor}{nearest(name, names)}; change it or leave it out"
    )


def _ensemble(line: SourceLine, members: Sequence[Extractor]) -> Extractor:
    with torch.no_grad():
        classes = {one.name: one(torch.full((1, 3, 64, 64), 0.5)).shape[1] for one in members}
    if len(set(classes.values())) > 1:
        raise OptionError(
            f"expected networks with the same classes in {line.kind}:{line.extractor}, got "
            f"{', '.join(f'{name} with {count}' for name, count in classes.items())}; attack them one by one"
        )
    return Extractor(ExtractorLine(line.extractor, "", (), 0.0), Ensemble(*(one.network for one in members)))


def read_sources(lines: Sequence[str]) -> list[SourceLine]:
    """Reads the sources of the settings.

    Raises:
        OptionError: If a line has another form, or no source has a share.
    """
    found = [_source(line) for line in lines]
    if not sum(one.share for one in found):
        raise OptionError(f"expected sources with a share above 0, got {list(lines)}; add 'none:1' for clean images")
    return found


def _source(line: str) -> SourceLine:
    kind, *rest = line.split(":")
    attack = kind in get_args(AttackKind)
    known = attack or kind in get_args(NoiseKind)
    share = number(rest[1 if attack else 0]) if known and len(rest) == (3 if attack else 1) else None
    steps = _steps(rest[2]) if attack and share is not None else (0, 0)
    if share is None or steps is None:
        raise OptionError(
            f"expected a source as ATTACK:EXTRACTOR:SHARE:STEPS, ATTACK one of {', '.join(get_args(AttackKind))}, or "
            f"as NOISE:SHARE, NOISE one of {', '.join(get_args(NoiseKind))}, such as 'ssp:vgg:0.3:2-3' and "
            f"'none:0.1', got {line!r}; SHARE is a number of at least 0, STEPS a number of at least 1 or a range"
        )
    return SourceLine(kind, rest[0] if attack else "", share, steps)  # type: ignore[arg-type]


def _steps(text: str) -> tuple[int, int] | None:
    match = _STEPS.fullmatch(text)
    if match is None:
        return None
    low, high = int(match[1]), int(match[2] or match[1])
    return (low, high) if 1 <= low <= high else None


def _below(count: int) -> int:
    return int(torch.randint(count, ()))
