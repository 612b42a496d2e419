"""The base class of attacks, and the checks that all attacks share."""

from __future__ import annotations

import copy
import inspect
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from purifier._attaching import as_purified_model
from purifier._errors import InputError, OptionError
from purifier._input import check_storage
from purifier._options import check_fields
from purifier.attacks._balls import Norm
from purifier.models.layers import check_eval

Loss = Callable[[Any, Any], Tensor]
Model = Callable[[Tensor], Any]

# Resampling and decoding leave [0, 1] by this much.
_ROUNDING = 1e-4
# Parameters of the constructor that `settings` leaves out: a generator is described by its seed.
_UNSTATED = {"generator"}
# Default of an option that `__post_init__` computes from the others.
COMPUTED: Any = None


class Attack(ABC):
    """Base of the attacks: `attack(model, images, targets) -> images`.

    A subclass implements `_run`. It declares its options as keyword-only dataclass fields and checks them in
    `__post_init__`; equality and hash stay those of the object. Each option is a public attribute.

    Attributes:
        gradient: Whether the attack needs gradients of the model. Score-based attacks do not.
        bounded: Whether the perturbation stays in a ball of radius `eps`. False for attacks that search for the
            smallest perturbation.
        generator: Source of randomness. None means torch's global generator.
    """

    gradient: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    # False for detectors, which return their losses in train mode only.
    _needs_eval: ClassVar[bool] = True
    # False for attacks that search only some of the perturbations in the ball.
    _whole_ball: ClassVar[bool] = True
    # What an attack without a radius does, for errors.
    _aim: ClassVar[str] = "looks for the smallest perturbation"

    eps: float
    alpha: float
    norm: Norm
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if is_dataclass(self):
            check_fields(self)

    @property
    def name(self) -> str:
        """Name for tables and result files."""
        return type(self).__name__

    def __call__(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        """Returns adversarial images, detached, of the shape and dtype of `images`, in [0, 1].

        The model's mode, parameters and gradients do not change. The caller may be in any grad mode.

        Args:
            model: Map from images to outputs, differentiable if `gradient` is True.
            images: (N, C, H, W), float32 or float64, in [0, 1].
            targets: What the loss takes besides the outputs, such as labels (N,).

        Raises:
            InputError: If images, targets or model do not suit the attack.
        """
        self._check(model, images)
        with torch.inference_mode(False), torch.no_grad():
            # A copy, because tensors made in inference mode cannot take part in a gradient.
            images = images.detach().clone().clamp(0, 1)
            if not len(images):
                return images
            return self._run(model, images, _outside_inference(targets)).detach().clamp(0, 1)

    @abstractmethod
    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        """Attacks images (N, C, H, W) in [0, 1], N > 0. Gradients are switched off when it is called."""

    def _check(self, model: Model, images: Tensor) -> None:
        check_images(images)
        if not callable(model):
            raise InputError(f"expected a model that maps images to outputs, got {type(model).__name__}")
        view = as_purified_model(model)
        if view is not None and view.mean is not None:
            raise InputError(
                "expected a model of images in [0, 1], got one whose purifier takes normalised images (mean, std); "
                "call attacks.Aware()(attack, model, images, targets), which normalises the images for it"
            )
        if self._needs_eval:
            check_eval(model)
        longest = math.sqrt(images[0].numel()) if len(images) else math.inf
        if self.bounded and getattr(self, "norm", None) == "L2" and self.eps > longest:
            raise InputError(
                f"expected an L2 eps up to {longest:.4g}, the length of the longest perturbation of images of shape "
                f"{tuple(images.shape[1:])} in [0, 1], got {self.eps:.4g}; divide an eps of the range 0..255 by 255"
            )

    def settings(self) -> dict[str, Any]:
        """Returns the name, every option and the generator's seed (None: torch's global one), fit for JSON."""
        # The signature, not the fields, so that subclasses with a constructor of their own are described in full.
        names = [name for name in inspect.signature(type(self)).parameters if name not in _UNSTATED]
        seed = None if self.generator is None else self.generator.initial_seed()
        return {"name": self.name} | {name: plain(getattr(self, name)) for name in names} | {"seed": seed}

    def with_eps(self, eps: float) -> Self:
        """Returns a copy with another radius. The step size `alpha` is scaled in proportion.

        Raises:
            OptionError: If the attack has no radius, or a radius of 0, to which no step size is in proportion.
        """
        if not self.bounded:
            raise OptionError(
                f"expected an attack with a radius, got {self.name}, which {self._aim}; measure the size of what it "
                "finds instead"
            )
        check_eps(eps, self.norm)
        attack = copy.copy(self)
        attack.eps = eps
        if hasattr(self, "alpha"):
            if self.eps == 0:
                raise OptionError("expected an attack of eps > 0 to scale, got eps=0; make a new attack")
            attack.alpha = self.alpha * eps / self.eps
        return attack

    def seeded(self, seed: int) -> Self:
        """Returns a copy with a generator of its own. Equal seeds give equal results."""
        attack = copy.copy(self)
        attack.generator = torch.Generator().manual_seed(seed)
        return attack

    def __repr__(self) -> str:
        stated = ", ".join(f"{name}={value!r}" for name, value in self.settings().items() if name != "name")
        return f"{self.name}({stated})"


def _outside_inference(targets: Any) -> Any:
    """Copies the tensors of targets that were made in inference mode; returns the same object if there are none."""
    if isinstance(targets, Tensor):
        return targets.clone() if targets.is_inference() else targets
    if isinstance(targets, dict):
        parts = {key: _outside_inference(value) for key, value in targets.items()}
        return targets if all(parts[key] is targets[key] for key in targets) else parts
    if isinstance(targets, list | tuple):
        copies = [_outside_inference(value) for value in targets]
        return targets if all(map(operator.is_, copies, targets)) else copies
    return targets


def plain(value: Any) -> Any:
    """Returns an option in types that JSON has. Functions and modules become their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if callable(getattr(value, "settings", None)):
        return value.settings()
    return getattr(value, "__name__", type(value).__name__)


def check_images(images: Any) -> None:
    """Checks that images are a float batch (N, C, H, W) in [0, 1].

    Raises:
        InputError: If they are not, or their dtype is too coarse for a small eps.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"expected float images of shape (N, C, H, W), got {type(images).__name__}; stack them with torch.stack"
        )
    check_storage(images)
    if not (images.ndim == 4 and images.is_floating_point()):
        raise InputError(
            f"expected float images of shape (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}"
            + ("; add the batch axis with images[None]" if images.ndim == 3 else "")
        )
    if 0 in images.shape[1:]:
        raise InputError(f"expected images with pixels, got shape {tuple(images.shape)}")
    if images.is_meta:
        raise InputError("expected images with values, got a tensor on the meta device; attack on a real device")
    if torch.finfo(images.dtype).bits < 32:
        raise InputError(
            f"expected images in single precision, got {images.dtype}, whose rounding is as large as a small eps; "
            "attack images.float() and let the model cast them: lambda x: model(x.half())"
        )
    if images.numel() and not (images.min() >= -_ROUNDING and images.max() <= 1 + _ROUNDING):
        raise InputError(
            f"expected images in [0, 1], got {images.min():.3g} .. {images.max():.3g}; attack a model that "
            "normalises inside"
        )


def check_eps(eps: float, norm: Norm, name: str = "eps") -> None:
    """Checks a radius or step size, in units of the [0, 1] image range.

    Raises:
        OptionError: If it is not a number, negative, or in units of 0..255 by mistake.
    """
    if not isinstance(eps, int | float) or not 0 <= eps < math.inf:
        raise OptionError(f"expected {name} >= 0, a number in units of the [0, 1] image range, got {eps!r}")
    if norm == "Linf" and eps > 1:
        raise OptionError(
            f"expected {name} in units of the [0, 1] image range, got {eps}; write {eps:g}/255, not {eps:g}"
        )


def input_gradient(loss: Tensor, images: Tensor, *, keep: bool = False) -> Tensor:
    """Returns d loss / d images. No gradients are added to parameters.

    Args:
        loss: Losses of any shape; the gradient is that of their sum.
        images: The leaf (N, C, H, W) that they were computed from.
        keep: Whether to keep the graph for another backward pass.

    Raises:
        InputError: If the loss does not depend on the images differentiably.
    """
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, images, torch.ones_like(loss), allow_unused=True, retain_graph=keep)
    if gradient is None:
        raise InputError(
            "expected a model that gives gradients, got outputs without any; drop torch.no_grad() and "
            "detach() from it, attack with attacks.BPDA, or use a score-based attack"
        )
    # After an overflow at one pixel, that pixel keeps its value for this step and the others move.
    return torch.where(gradient.isfinite(), gradient, 0)


def pick(targets: Any, index: Tensor, count: int) -> Any:
    """Returns the targets of some images of a batch.

    Args:
        targets: A tensor or a list with one entry per image. Anything else is returned unchanged.
        index: Numbers of the images, (M,).
        count: Number of images in the batch.
    """
    if isinstance(targets, Tensor) and targets.ndim and len(targets) == count:
        return targets[index.to(targets.device)]
    if isinstance(targets, list | tuple) and len(targets) == count:
        return [targets[i] for i in index.tolist()]
    return targets


def per_image(losses: Tensor, images: Tensor) -> Tensor:
    """Returns losses as (N,); a scalar is repeated for every image.

    Raises:
        InputError: If they have another shape.
    """
    if losses.ndim == 0:
        return losses.expand(len(images))
    if losses.shape != (len(images),):
        raise InputError(
            f"expected a loss per image, ({len(images)},), or a scalar, got shape {tuple(losses.shape)}; average the "
            "other axes with losses.flatten(1).mean(1)"
        )
    return losses
