"""DeepFool: the smallest perturbation in L2 or Linf, by steps to the nearest linearised decision boundary.

Moosavi-Dezfooli et al., "DeepFool: a Simple and Accurate Method to Fool Deep Neural Networks", CVPR 2016, Algorithm 2
and section 3.4 for other norms, https://arxiv.org/abs/1511.04599.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_integer
from purifier.attacks._balls import Norm, project
from purifier.attacks._progress import progress_bar
from purifier.attacks.base import Attack, Model, check_eps, input_gradient, pick
from purifier.attacks.losses import fooled, logits_in, places
from purifier.attacks.losses import margin as logit_margin

# Added to the gap, so that a point on a boundary crosses it.
_BEYOND = 1e-4


@dataclass(kw_only=True, eq=False, repr=False)
class DeepFool(Attack):
    """Moves each image step by step to the nearest decision boundary, until the model no longer predicts the label.

    Images that are misclassified from the start are returned unchanged. A dense output (N, K, H, W) has one boundary
    at a time: the mean margin of the pixels that are still correct. It counts as fooled if `share` of the valid pixels
    are.

    Args:
        steps: Largest number of steps.
        candidates: Number of other classes whose boundaries are considered, the likeliest at the current point.
        overshoot: How far each step goes beyond the boundary, as a share of the perturbation.
        share: Share of pixels to fool in a dense output, in (0, 1].
        norm: "L2" or "Linf", the norm that the steps keep small.
        eps: Radius of the ball of that norm which the result is cut to. An image that needs more stays unfooled. 0
            means no limit.
        margin: Maps (model output, targets) to the largest other logit minus the label's, (N,) or (N, P) for P
            places, NaN at places to ignore; its mean over the places that are still correct is the one boundary. None
            means the `candidates` boundaries of logits (N, K), or `losses.margin` of logits (N, K, H, W).

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images = torch.rand(4, 3, 8, 8)
        >>> labels = model(images).argmax(1)
        >>> adversarial = attacks.DeepFool()(model, images, labels)
        >>> bool((model(adversarial).argmax(1) != labels).all())
        True
    """

    bounded: ClassVar[bool] = False

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    share: float = 0.9
    norm: Norm = "L2"
    eps: float = 0.0
    margin: Callable[[Any, Any], Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.overshoot >= 0 or not 0 < self.share <= 1:
            raise OptionError(
                f"expected overshoot >= 0 and share in (0, 1], got overshoot={self.overshoot}, share={self.share}"
            )
        check_eps(self.eps, self.norm)
        vars(self).update(bounded=self.eps > 0)
        check_integer("steps", self.steps, low=1)
        check_integer("candidates", self.candidates, low=1)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        total = torch.zeros_like(images)
        left = torch.arange(len(images), device=images.device)
        with progress_bar(self.name, self.steps) as bar:
            for _ in range(self.steps):
                with torch.enable_grad():
                    points = self._moved(images[left], total[left]).requires_grad_(True)
                    gaps, margins = self._gaps(model(points), pick(targets, left, len(images)))
                right = ~fooled(margins, self.share)
                if not bool(right.any()):
                    break
                move = _nearest(gaps, points, self.norm)
                left = left[right]
                total[left] += move[right]
                bar.update()
        return self._moved(images, total)

    def _moved(self, images: Tensor, total: Tensor) -> Tensor:
        perturbations = (1 + self.overshoot) * total
        if self.eps:
            perturbations = project(perturbations, self.eps, self.norm)
        return (images + perturbations).clamp(0, 1)

    def _gaps(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Returns functions (N, J) whose zeros are the boundaries, and the margins (N, P).

        The candidates are ranked again at each point; the paper's code keeps the ranking of the clean image.
        """
        logits = logits_in(outputs)
        if self.margin is None and isinstance(logits, Tensor) and logits.ndim == 2:
            logits, labels = (part.squeeze(-1) for part in places(outputs, targets))
            others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
            count = min(self.candidates, logits.shape[1] - 1)
            gaps = others.topk(count, 1).values - logits.gather(1, labels.unsqueeze(1))
            return gaps, gaps[:, :1].detach()
        margins = logit_margin(outputs, targets) if self.margin is None else self.margin(outputs, targets)
        margins = margins.reshape(len(margins), -1)
        right = margins <= 0
        gap = torch.where(right, margins, 0).sum(1) / right.sum(1).clamp_min(1)
        return gap.unsqueeze(1), margins.detach()


def _nearest(gaps: Tensor, points: Tensor, norm: Norm) -> Tensor:
    """Returns the step (N, C, H, W) onto the nearest of the linearised boundaries (eq. 8 and 9; 10 and 11 for Linf)."""
    best = torch.zeros_like(points)
    shortest = torch.full((len(points), 1, 1, 1), torch.inf, dtype=points.dtype, device=points.device)
    with torch.enable_grad():
        functions = gaps.unbind(1)
    for gap in functions:
        slope = input_gradient(gap, points, keep=True)
        # The dual norm of the slope: how fast the gap falls along the best direction of length 1.
        length = slope.flatten(1).norm(p=2 if norm == "L2" else 1, dim=1).view(-1, 1, 1, 1)
        distance = (gap.detach().abs().view(-1, 1, 1, 1).to(points.dtype) + _BEYOND) / length
        nearer = (distance < shortest) & (length > 0)
        best = torch.where(nearer, distance * (slope / length if norm == "L2" else slope.sign()), best)
        shortest = torch.where(nearer, distance, shortest)
    return best
