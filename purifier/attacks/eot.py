"""EOT: attacks on models with random outputs, by expectation over transformation.

Athalye et al., "Synthesizing Robust Adversarial Examples", ICML 2018, eq. 2, https://arxiv.org/abs/1707.07397. Against
defences that add noise: Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018,
section 4.2, https://arxiv.org/abs/1802.00420.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._options import check_integer
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.apgd import APGD
from purifier.attacks.base import Attack, Loss, Model, input_gradient, per_image
from purifier.attacks.losses import cross_entropy, dlr, logits_in

# Attributes that an attack shares with the attack inside it.
_SHOWN = ("gradient", "bounded", "eps", "alpha", "steps", "norm", "targeted", "restarts", "generator")


@dataclass(kw_only=True, eq=False, repr=False)
class Around(Attack):
    """Base of attacks that run another attack and show its options as their own.

    Args:
        attack: The attack inside.

    Raises:
        OptionError: If it is not an attack of this library.
    """

    attack: Attack = field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._adopt(self.attack)

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


@dataclass(kw_only=True, eq=False, repr=False)
class EOT(Around):
    """Runs an attack on the mean over several calls of a model, for models with random outputs.

    The gradient family and APGD climb the mean of the loss and call the model one sample at a time, so that memory
    does not grow with `samples`. APGD then keeps the point of the highest mean loss, because one call that is fooled
    may be luck. The other attacks (C&W, DeepFool, Square, APGD with "dlr-targeted", ensembles) use the outputs
    themselves: they see the mean output, and the graphs of all calls are in memory at once.

    Args:
        attack: The attack to run.
        samples: Number of model calls to average for each call that the attack makes.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import Purifier, attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> noisy = Purifier.from_pretrained("gs").dynamic().wrap(model)
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> attacks.EOT(attacks.PGD(steps=2), samples=5)(noisy, images, labels).shape
        torch.Size([4, 3, 8, 8])
    """

    samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("samples", self.samples, low=1)

    @property
    def name(self) -> str:
        """Name of the attack inside, and the number of samples."""
        return f"{self.attack.name}-EOT{self.samples}"

    def __call__(self, model: Model, images: Any, targets: Any) -> Any:
        """See `Attack`; images are what the attack inside takes."""
        if isinstance(self.attack, Around):
            # The samples are averaged next to the model, which attacks that run others call in their own way.
            return averaged(self.attack, self.samples)(model, images, targets)
        return super().__call__(model, images, targets)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        climbing = on_mean_loss(self.attack, [model] * self.samples)
        if climbing is None:
            return self.attack(lambda points: self._mean_output(model, points), images, targets)
        return climbing(lambda points: points, images, targets)

    def _mean_output(self, model: Model, points: Tensor) -> Tensor:
        outputs = [logits_in(model(points)) for _ in range(self.samples)]
        if not all(isinstance(output, Tensor) for output in outputs):
            raise InputError(
                f"expected a model whose outputs are tensors to average for {self.attack.name}, got "
                f"{type(outputs[0]).__name__}; attack lambda images: model(images)[...], or take an attack with a loss"
            )
        return torch.stack(outputs).mean(0)


def averaged(attack: Attack, samples: int) -> Attack:
    """Returns the attack averaged over `samples` calls of a random model; the attack itself for one sample.

    Attacks that run others, such as `DetectionAttack`, average inside. The samples of an `EOT` are multiplied.
    """
    if samples == 1:
        return attack
    if isinstance(attack, EOT):
        # A mean of means of equal size is the mean over all calls.
        return EOT(attack.attack, samples=samples * attack.samples)
    if isinstance(attack, Around):
        return attack.inside(lambda inner: averaged(inner, samples))
    return EOT(attack, samples=samples)


def on_mean_loss(attack: Attack, models: Sequence[Model]) -> Attack | None:
    """Returns a copy whose loss is the mean of the attack's loss over models; None if it uses the outputs themselves.

    The copy attacks the identity: it passes its images to the loss, which calls the models.
    """
    loss = climbed_loss(attack)
    if loss is None:
        return None
    return with_loss(attack, lambda points, truth: _MeanLoss.apply(points, truth, models, loss))


def with_loss(attack: Attack, loss: Loss) -> Attack:
    """Returns a copy that climbs another loss, also inside an `EOT`."""
    if isinstance(attack, EOT):
        return attack.inside(lambda inner: with_loss(inner, loss))
    changed: Any = copy.copy(attack)
    changed.loss = loss
    climbing: Attack = changed
    return climbing


def climbed_loss(attack: Attack) -> Loss | None:
    """Returns the loss of an attack that uses the model only through its loss; None for other attacks."""
    if isinstance(attack, GradientAttack):
        return attack.loss
    if isinstance(attack, APGD):
        return {"ce": cross_entropy, "dlr": dlr}.get(attack.loss) if isinstance(attack.loss, str) else attack.loss
    return None


class _MeanLoss(torch.autograd.Function):
    """The mean loss over calls of models. Each call's gradient is added at once, so that no graph is kept."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, targets: Any, models: Sequence[Model], loss: Loss) -> Tensor:
        total, gradient = torch.zeros((), device=points.device), torch.zeros_like(points)
        wanted = ctx.needs_input_grad[0]
        for model in models:
            with torch.set_grad_enabled(wanted):
                leaf = points.detach().requires_grad_(wanted)
                one = loss(model(leaf), targets)
            per_image(one, points)
            if wanted:
                gradient += input_gradient(one, leaf)
            total = total + one.detach() / len(models)
        ctx.save_for_backward(gradient / len(models))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        # A loss per image depends on that image only. A scalar loss has one factor for all images.
        return gradient * outer.view(-1, *[1] * (gradient.ndim - 1)), None, None, None
