"""What the page shows of a picture: attacked and purified versions, and what a classifier predicts for each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from purifier._images import take_apart, to_uint8
from purifier.attacks import PGD
from purifier.data.sets import bilinear_square

if TYPE_CHECKING:
    from purifier import Purifier
    from purifier.models.loading import LoadedModel

# The side of the square that is shown and classified, if the model does not state one.
_SIDE = 224
# The largest picture, in pixels. The file is bounded by the server.
MOST_PIXELS = 40_000_000
# The map's colour, and how much of it covers the picture at most.
_RED, _COVER = (1.0, 0.1, 0.1), 0.7


@dataclass(frozen=True)
class View:
    """A version of the picture.

    Attributes:
        name: "clean", "attacked", or the purifier's name.
        pixels: (H, W, 3) uint8.
        prediction: Name of the likeliest class.
        probability: Its probability.
        seconds: How long it took to make this version.
    """

    name: str
    pixels: np.ndarray
    prediction: str
    probability: float
    seconds: float


@dataclass
class Trial:
    """All that is shown of a picture.

    Attributes:
        views: The clean picture, the attacked one if there is an attack, and the purified ones.
        perturbation: (H, W, 3) uint8, the perturbation times ten around grey; None without an attack.
        attack_map: (H, W, 3) uint8, the attacked picture with red where the gate sees an attack.
        attack_score: Mean of the map.
    """

    views: list[View] = field(default_factory=list)
    perturbation: np.ndarray | None = None
    attack_map: np.ndarray | None = None
    attack_score: float = 0.0


def try_picture(
    path: Path, model: LoadedModel, purifiers: Mapping[str, Purifier], gate: Purifier, *, eps: float, steps: int
) -> Trial:
    """Attacks the central square of a picture with PGD, and purifies it.

    Args:
        path: The picture file.
        model: The classifier.
        purifiers: The purifiers by name.
        gate: The purifier whose gate makes the map.
        eps: Radius of the attack in units of [0, 1]; 0 is no attack.
        steps: Number of steps of the attack.

    Raises:
        InputError: If the picture cannot be read, or is too large.
    """
    clean = bilinear_square(take_apart(path, max_pixels=MOST_PIXELS).rgb, model.size or _SIDE, model.crop)[None]
    trial = Trial([_view("clean", clean, model, 0.0)])
    seen = clean
    if eps > 0:
        start = time.perf_counter()
        label = torch.as_tensor(model.call(clean)).argmax(1)
        seen = PGD(eps=eps, alpha=eps / 4, steps=steps)(model.call, clean, label).detach()
        trial.views.append(_view("attacked", seen, model, time.perf_counter() - start))
        trial.perturbation = _pixels((0.5 + 10 * (seen - clean)).clamp(0, 1))
    with torch.inference_mode():
        heat = gate.attack_map(seen)
        trial.attack_score = float(heat.mean())
        red = seen.new_tensor(_RED).view(1, 3, 1, 1)
        trial.attack_map = _pixels(seen.mean(1, keepdim=True) * (1 - _COVER * heat) + red * _COVER * heat)
        for name, purifier in purifiers.items():
            start = time.perf_counter()
            purified = purifier(seen)
            trial.views.append(_view(name, purified, model, time.perf_counter() - start))
    return trial


@torch.inference_mode()
def _view(name: str, image: Tensor, model: LoadedModel, seconds: float) -> View:
    output: Any = model.call(image)
    probabilities = output.softmax(1)[0]
    best = int(probabilities.argmax())
    label = model.classes[best] if model.classes else f"class {best}"
    return View(name, _pixels(image), label, float(probabilities[best]), seconds)


def _pixels(image: Tensor) -> np.ndarray:
    return to_uint8(image[0].clamp(0, 1))
