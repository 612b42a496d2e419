"""Ensembles: AutoAttack by its authors' package, and the strongest of several attacks.

Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks", ICML
2020, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._random import isolated_randomness
from purifier.attacks._balls import Norm, check_norm, project
from purifier.attacks.base import Attack, Model, check_eps
from purifier.attacks.losses import cross_entropy, logits_in, places

Version = Literal["standard", "rand"]

# Number of classes that the standard version targets, and number that the losses of each version need.
_GOALS, _CLASSES = 9, {"standard": 4, "rand": 3}
# Share of the image that the first square of its Square attack covers.
_SQUARE_SHARE = 0.8


@dataclass(kw_only=True, eq=False, repr=False)
class AutoAttack(Attack):
    """AutoAttack by its authors' package pyautoattack (MIT), the standard benchmark for classifiers.

    "standard" runs APGD-CE, targeted APGD-DLR, targeted FAB and Square (5,000 queries) and is for deterministic
    models. "rand" runs APGD-CE and APGD-DLR with 20 samples of EOT and is for random models. Images that are
    misclassified from the start, and images that no attack changes, are returned clean. The targeted attacks target
    nine other classes, or all of them if there are fewer. The package works in single precision; the model gets the
    precision of the images. The package logs suspicious findings to the logger "auto-attack".

    Needs the package: `pip install "torch-purifier[autoattack]"`.

    Args:
        version: "standard" or "rand".
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        norm, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range, or the package is not installed.
    """

    version: Version = "standard"
    eps: float = 8 / 255
    norm: Norm = "Linf"
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.version, str) or self.version not in get_args(Version):
            raise OptionError(f"expected version='standard' or version='rand', got {self.version!r}")
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        _package()

    @property
    def name(self) -> str:
        """Name and version."""
        return f"AutoAttack-{self.version}"

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        logits, labels = places(model(images), targets)
        classes = logits.shape[1]
        if logits.shape[2] > 1 or classes < _CLASSES[self.version]:
            raise InputError(
                f"expected a classifier with at least {_CLASSES[self.version]} classes for {self.name}, got "
                f"{classes} classes at {logits.shape[2]} places; use APGD"
            )
        if self.version == "standard":
            _check_size(images.shape[-2], images.shape[-1], self.norm)
        device = None if self.generator is None else self.generator.device
        seed = int(torch.randint(2**31, (), generator=self.generator, device=device))
        with _kept(images):
            ensemble = _package()(
                lambda points: _Isolated.apply(points, model, images.dtype),
                version=self.version,
                eps=self.eps,
                norm=self.norm,
                seed=seed,
                device=images.device,
            )
            for part in (ensemble.apgd_targeted, ensemble.fab):
                part.n_target_classes = min(_GOALS, classes - 1)
            attacked: Tensor
            # The package works in single precision, and views images as rows.
            single = images.float().contiguous()
            attacked, _ = ensemble.run_standard_evaluation(single, labels[:, 0], batch_size=len(images))
        return attacked if images.dtype == single.dtype else self._precise(images, single, attacked)

    def _precise(self, images: Tensor, single: Tensor, attacked: Tensor) -> Tensor:
        """Returns attacked images in the dtype of the clean ones, in the ball around those."""
        changes = project(attacked.to(images.dtype) - images, self.eps, self.norm)
        return torch.where(attacked == single, images, images + changes)


class Strongest(Attack):
    """Runs attacks in order and keeps, for each image, the first result that fools the model.

    If no result does, it keeps the one with the highest cross entropy. Later attacks run only on images that withstood
    the earlier ones. One call of the attacked model decides what fools it. Under a threat model that does not attack
    the defended model itself, use `worst_case`.

    Args:
        *attacks: The attacks, untargeted, on a classifier.

    Raises:
        OptionError: If there are none, one is targeted, or they differ in eps or norm.
    """

    def __init__(self, *attacks: Attack) -> None:
        if not attacks or not all(isinstance(attack, Attack) for attack in attacks):
            got = ", ".join(type(attack).__name__ for attack in attacks) or "none"
            raise OptionError(f"expected attacks to choose the strongest of, got {got}; pass Strongest(PGD(), APGD())")
        if any(getattr(attack, "targeted", False) for attack in attacks):
            raise OptionError("expected untargeted attacks, got one with targeted=True, whose targets are not labels")
        self.attacks = attacks
        bounded = all(attack.bounded for attack in attacks)
        vars(self).update(gradient=any(attack.gradient for attack in attacks), bounded=bounded)
        if bounded:
            radii = {(attack.eps, attack.norm) for attack in attacks}
            if len(radii) > 1:
                raise OptionError(f"expected attacks of one eps and norm, got {sorted(radii)}; use worst_case instead")
            ((self.eps, self.norm),) = radii

    @property
    def name(self) -> str:
        """Names of all attacks."""
        return f"Strongest({', '.join(attack.name for attack in self.attacks)})"

    def with_eps(self, eps: float) -> Self:
        """Returns a copy with all attacks at another radius; see `Attack.with_eps`."""
        return type(self)(*(attack.with_eps(eps) for attack in self.attacks))

    def seeded(self, seed: int) -> Self:
        """Returns a copy whose attacks have their own generators; see `Attack.seeded`."""
        return type(self)(*(attack.seeded(seed + place) for place, attack in enumerate(self.attacks)))

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        best = images.clone()
        outputs = logits_in(model(best))
        losses = cross_entropy(outputs, targets)
        left = torch.arange(len(images), device=images.device)[outputs.argmax(1) == targets]
        for attack in self.attacks:
            if not len(left):
                break
            attacked = attack(model, images[left], targets[left])
            outputs = logits_in(model(attacked))
            found, lost = cross_entropy(outputs, targets[left]), outputs.argmax(1) != targets[left]
            better = lost | (found > losses[left])
            best[left[better]] = attacked[better]
            losses[left[better]] = found[better]
            left = left[~lost]
        return best


class _Isolated(torch.autograd.Function):
    """A call of a model in a dtype of its own, whose backward pass ends at the images, not at its parameters."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, model: Model, dtype: torch.dtype) -> Tensor:
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            leaf = points.detach().to(dtype).requires_grad_(ctx.needs_input_grad[0])
            outputs: Tensor = logits_in(model(leaf))
        ctx.graph = (leaf, outputs)
        return outputs.detach().to(points.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        leaf, outputs = ctx.graph
        if not outputs.requires_grad:
            return torch.zeros_like(leaf, dtype=outer.dtype), None, None
        # The package runs several backward passes through one call.
        (gradient,) = torch.autograd.grad(outputs, leaf, outer.to(outputs.dtype), retain_graph=True)
        return gradient.to(outer.dtype), None, None


@contextmanager
def _kept(images: Tensor) -> Iterator[None]:
    """Restores what the package changes: torch's random state and the trace function of debuggers and coverage."""
    trace = sys.gettrace()
    try:
        with isolated_randomness(images.device):
            yield
    finally:
        sys.settrace(trace)


def _check_size(height: int, width: int, norm: Norm) -> None:
    """Checks that the squares of the package's Square attack fit into images.

    Raises:
        InputError: If they do not fit, as in long images, and with L2 in some small ones.
    """
    square = round((_SQUARE_SHARE * height * width) ** 0.5)
    fits = 3 <= square <= min(height, width)
    if norm == "L2" and fits:
        # The first perturbation consists of tiles, five per height, inside a margin.
        tile = height // 5
        fits = tile > 0 and all(side % tile >= (height - 5 * tile) // 2 for side in (height, width))
    if not fits:
        raise InputError(
            f"expected images of a size that the Square attack of AutoAttack can tile, got {height} x {width} for "
            f"{norm}; crop or resize them to a multiple of 5, or closer to a square"
        )


def _package() -> Callable[..., Any]:
    try:
        package = importlib.import_module("pyautoattack")
    except ImportError:
        raise OptionError(
            "expected the package pyautoattack for AutoAttack, found none; install it with pip install "
            '"torch-purifier[autoattack]", or use attacks.Strongest(APGD(), APGD(loss="dlr-targeted"), Square())'
        ) from None
    ensemble: Callable[..., Any] = package.AutoAttack
    return ensemble
