"""EOT: attacks on models that answer at random, by expectation over transformation.

Athalye et al., "Synthesizing Robust Adversarial Examples", ICML 2018, eq. 2; against defences that add noise:
Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018, section 4.2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.apgd import APGD
from purifier.attacks.base import Attack, Loss, Model, input_gradient, per_image
from purifier.attacks.losses import cross_entropy, dlr

# What an attack round another shows of the inner one.
_SHOWN = ("gradient", "bounded", "eps", "alpha", "steps", "norm", "targeted", "restarts", "generator")


class Around(Attack):
    """Base of attacks that run another one: they show its options as their own.

    Args:
        attack: The attack inside.

    Attributes:
        attack: The attack inside.

    Raises:
        OptionError: Where it is no attack of this library.
    """

    attack: Attack

    def __init__(self, attack: Attack) -> None:
        self._adopt(attack)

    def _adopt(self, attack: Attack) -> None:
        if not isinstance(attack, Attack):
            got = f"the class {attack.__name__}" if isinstance(attack, type) else type(attack).__name__
            raise OptionError(f"expected an attack, got {got}; make one first, such as attacks.PGD(eps=8/255)")
        self.attack = attack
        for name in _SHOWN:
            vars(self).pop(name, None)
            if hasattr(attack, name):
                vars(self)[name] = getattr(attack, name)

    @property
    def name(self) -> str:
        """Name of the attack inside."""
        return self.attack.name

    def inside(self, change: Callable[[Attack], Attack]) -> Self:
        """Returns a copy with the attack inside changed."""
        around = copy.copy(self)
        around._adopt(change(self.attack))
        return around

    def with_eps(self, eps: float) -> Self:
        """Returns a copy whose inner attack has another radius; see `Attack.with_eps`."""
        return self.inside(lambda attack: attack.with_eps(eps))

    def seeded(self, seed: int) -> Self:
        """Returns a copy whose inner attack has a generator of its own; see `Attack.seeded`."""
        return self.inside(lambda attack: attack.seeded(seed))


class EOT(Around):
    """Runs an attack on the mean over several calls of a model, for models with random outputs.

    The gradient family and APGD climb the mean of the loss, one call after the other, so that memory does not grow
    with `samples`; APGD then keeps the point of the highest mean loss, because fooling one call by luck proves little.
    The others (C&W, DeepFool, Square, APGD with "dlr-targeted", ensembles), which look at the outputs themselves, see
    the mean output; gradients of all the calls are then in memory at once. A model without randomness is attacked as
    before, only `samples` times slower.

    Args:
        attack: The attack to run.
        samples: Calls of the model for each that the attack makes.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import Purifier, attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> noisy = Purifier.from_pretrained("gs").dynamic().wrap(model)
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> attacks.EOT(attacks.PGD(steps=2), samples=5)(noisy, images, labels).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self, attack: Attack, *, samples: int = 10) -> None:
        super().__init__(attack)
        self.samples = check_samples(samples)

    @property
    def name(self) -> str:
        """Name of the attack inside, and the number of samples."""
        return f"{self.attack.name}-EOT{self.samples}"

    def __call__(self, model: Model, images: Any, targets: Any) -> Any:
        """See `Attack`; images are what the attack inside takes."""
        if isinstance(self.attack, Around):
            # Closer to the model: attacks that run others call it in ways of their own.
            return averaged(self.attack, self.samples)(model, images, targets)
        return super().__call__(model, images, targets)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        loss = _climbed(self.attack)
        if loss is None:
            return self.attack(lambda points: self._mean_output(model, points), images, targets)
        # The attack hands its images straight to the loss, which calls the model.
        attack: Any = copy.copy(self.attack)
        attack.loss = lambda points, truth: _MeanLoss.apply(points, truth, model, loss, self.samples)
        return attack(lambda points: points, images, targets)

    def _mean_output(self, model: Model, points: Tensor) -> Tensor:
        outputs = [model(points) for _ in range(self.samples)]
        if not all(isinstance(output, Tensor) for output in outputs):
            raise InputError(
                f"expected a model whose outputs are tensors to average for {self.attack.name}, got "
                f"{type(outputs[0]).__name__}; attack lambda images: model(images)[...], or take an attack with a loss"
            )
        return torch.stack(outputs).mean(0)


def averaged(attack: Attack, samples: int) -> Attack:
    """Returns the attack over `samples` calls of a random model; the attack itself for one.

    Goes inside attacks that run others, such as `DetectionAttack`; multiplies the samples of an `EOT`.
    """
    if check_samples(samples) == 1:
        return attack
    if isinstance(attack, EOT):
        # A mean of means is one over all the calls.
        return EOT(attack.attack, samples=samples * attack.samples)
    if isinstance(attack, Around):
        return attack.inside(lambda inner: averaged(inner, samples))
    return EOT(attack, samples=samples)


def check_samples(samples: int) -> int:
    """Returns samples, a number of calls.

    Raises:
        OptionError: Where it is not an integer from 1.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise OptionError(f"expected samples >= 1, an integer number of calls of the model, got {samples!r}")
    return samples


def _climbed(attack: Attack) -> Loss | None:
    """Returns the loss of an attack that looks at nothing but its loss; None for others."""
    if isinstance(attack, GradientAttack):
        return attack.loss
    if isinstance(attack, APGD):
        return {"ce": cross_entropy, "dlr": dlr}.get(attack.loss) if isinstance(attack.loss, str) else attack.loss
    return None


class _MeanLoss(torch.autograd.Function):
    """The mean loss over calls of a model, whose gradient is summed call by call instead of kept as graphs."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, targets: Any, model: Model, loss: Loss, samples: int) -> Tensor:
        total, gradient = torch.zeros((), device=points.device), torch.zeros_like(points)
        wanted = ctx.needs_input_grad[0]
        for _ in range(samples):
            with torch.set_grad_enabled(wanted):
                leaf = points.detach().requires_grad_(wanted)
                one = loss(model(leaf), targets)
            per_image(one, points)
            if wanted:
                gradient += input_gradient(one, leaf)
            total = total + one.detach() / samples
        ctx.save_for_backward(gradient / samples)
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        # A loss per image depends on that image only; a scalar one has one factor for all.
        return gradient * outer.view(-1, *[1] * (gradient.ndim - 1)), None, None, None, None
