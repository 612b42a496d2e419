"""PGD: projected gradient descent.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, section 2.1; the L2 form
steps along the gradient's direction. With targets and any loss it attacks any task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from purifier._errors import InputError, OptionError
from purifier.attacks._balls import Norm, ascend, check_norm, project, random_start

# Resampling and decoding leave [0, 1] by this much.
_ROUNDING = 1e-4
Loss = Callable[[Any, Any], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each image, (N,); for dense outputs (N, K, H, W) its mean over the pixels."""
    losses = F.cross_entropy(outputs.float(), targets, reduction="none")
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


class PGD:
    """Climbs a model's loss inside a norm ball round each image.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8).
        alpha: Step size, same units; eps / 4 where None.
        steps: Number of gradient steps.
        norm: "Linf" or "L2".
        targeted: Whether `targets` is where to go (the loss falls) instead of what to leave (the loss rises).
        restarts: Number of random starts; per image, the highest loss wins.
        loss: Maps (model output, targets) to a loss per image (N,) or a scalar; cross entropy where None.
        random_start: Whether to start at a random point of the ball.
        generator: Source of the random starts; torch's global one where None.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> adversarial = attacks.PGD(eps=8 / 255, steps=5)(model, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def __init__(
        self,
        *,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 10,
        norm: Norm = "Linf",
        targeted: bool = False,
        restarts: int = 1,
        loss: Loss | None = None,
        random_start: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        check_norm(norm)
        if norm == "Linf" and not 0 <= eps <= 1:
            raise OptionError(f"expected eps in units of the [0, 1] image range, got {eps}; write 8/255, not 8")
        if eps < 0 or steps < 0 or restarts < 1:
            raise OptionError(
                f"expected eps >= 0, steps >= 0 and restarts >= 1, got eps={eps}, steps={steps}, restarts={restarts}"
            )
        self.eps = eps
        self.alpha = eps / 4 if alpha is None else alpha
        self.steps = steps
        self.norm: Norm = norm
        self.targeted = targeted
        self.restarts = restarts
        self.loss: Loss = cross_entropy if loss is None else loss
        self.random_start = random_start
        self.generator = generator

    def __call__(self, model: Callable[[Tensor], Any], images: Tensor, targets: Any) -> Tensor:
        """Returns adversarial images, detached.

        Args:
            model: Differentiable map from images to outputs; its mode and parameters stay as they are.
            images: (N, C, H, W), float, in [0, 1].
            targets: What the loss takes beside the outputs, such as labels (N,).

        Raises:
            InputError: Where the images are not a float batch in [0, 1], or the model gives no gradient.
        """
        if not (images.ndim == 4 and images.is_floating_point()):
            raise InputError(
                f"expected float images of shape (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}"
            )
        if images.numel() and not (images.min() >= -_ROUNDING and images.max() <= 1 + _ROUNDING):
            raise InputError(
                f"expected images in [0, 1], got {images.min():.3g} .. {images.max():.3g}; attack a model that "
                "normalises inside"
            )
        images = images.detach().clamp(0, 1)
        best, best_loss = images, torch.full((len(images),), -torch.inf, device=images.device)
        for _ in range(self.restarts):
            candidate = self._climb(model, images, targets)
            if self.restarts == 1:
                return candidate
            with torch.no_grad():
                loss = self._signed(model(candidate), targets).expand(len(images)).float()
            better = loss > best_loss
            best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
            best_loss = torch.where(better, loss, best_loss)
        return best

    def _signed(self, outputs: Any, targets: Any) -> Tensor:
        loss = self.loss(outputs, targets)
        return -loss if self.targeted else loss

    def _climb(self, model: Callable[[Tensor], Any], images: Tensor, targets: Any) -> Tensor:
        delta = torch.zeros_like(images)
        if self.random_start:
            delta = random_start(images, self.eps, self.norm, self.generator)
            delta = (images + delta).clamp(0, 1) - images
        for _ in range(self.steps):
            delta.requires_grad_(True)
            with torch.enable_grad():
                loss = self._signed(model(images + delta), targets).sum()
                if not loss.requires_grad:
                    raise InputError(
                        "expected a model that gives gradients, got outputs without any; drop torch.no_grad() and "
                        "detach() from it, or use a score-based attack"
                    )
                (gradient,) = torch.autograd.grad(loss, delta)
            delta = project(delta.detach() + ascend(gradient, self.alpha, self.norm), self.eps, self.norm)
            delta = (images + delta).clamp(0, 1) - images
        return (images + delta).clamp(0, 1)
