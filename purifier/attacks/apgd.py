"""APGD: projected gradient descent that chooses its own step size.

Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks", ICML
2020, Algorithm 1, with the DLR losses of eq. 6 and 7, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_bool, check_integer
from purifier.attacks._balls import Norm, ascend, check_norm, project, random_start
from purifier.attacks._progress import progress_bar
from purifier.attacks.base import Attack, Loss, Model, check_eps, input_gradient, per_image, pick
from purifier.attacks.losses import cross_entropy, dlr, logits_in, margin, places, targeted_dlr

_LOSSES = {"ce": cross_entropy, "dlr": dlr}
_TARGETED = "dlr-targeted"
# Weight of the new point against the momentum (alpha of Algorithm 1).
_NEW = 0.75


@dataclass(kw_only=True, eq=False, repr=False)
class APGD(Attack):
    """PGD with momentum. An image whose loss stalls returns to its best point, and its step size is halved.

    With a built-in loss on a classifier, the first point that fools the model is the result for that image, and
    further restarts run on the other images. Otherwise the point of the highest loss is the result. A single call of
    the model decides whether a point fools it. If the model is random, average its calls with `attacks.EOT`.

    Args:
        eps: Radius of the ball, in units of the [0, 1] image range (8/255, not 8). The first step is 2 eps.
        steps: Number of gradient steps of each start.
        restarts: Number of starts; with "dlr-targeted", of starts for each class.
        loss: "ce" (cross entropy), "dlr" (needs 3 classes), "dlr-targeted" (needs 4 classes; targets each of the
            `goals` likeliest other classes in turn), or a function of (model output, targets) that returns a loss per
            image (N,) or a scalar.
        goals: Number of classes that "dlr-targeted" targets.
        rho: The step size is halved if the loss rose in less than this share of recent steps, in (0, 1).
        norm, targeted, random_start, generator: See `PGD`.

    Raises:
        OptionError: If an option is out of its range.
    """

    eps: float = 8 / 255
    steps: int = 100
    norm: Norm = "Linf"
    targeted: bool = False
    restarts: int = 1
    loss: Literal["ce", "dlr", "dlr-targeted"] | Loss = "ce"
    goals: int = 9
    rho: float = 0.75
    random_start: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_eps(self.eps, self.norm)
        if not callable(self.loss) and not (isinstance(self.loss, str) and self.loss in (*_LOSSES, _TARGETED)):
            raise OptionError(f'expected loss="ce", "dlr", "dlr-targeted" or a function, got {self.loss!r}')
        if self.loss == _TARGETED and self.targeted:
            raise OptionError(
                'expected loss="ce" or "dlr" with targeted=True, got "dlr-targeted", which takes labels to leave and '
                "chooses its goals itself"
            )
        if not 0 < self.rho < 1:
            raise OptionError(f"expected rho in (0, 1), got {self.rho}")
        for name in ("steps", "restarts", "goals"):
            check_integer(name, getattr(self, name), low=1)
        for name in ("targeted", "random_start"):
            check_bool(name, getattr(self, name))

    @property
    def name(self) -> str:
        return {"dlr": "APGD-DLR", _TARGETED: "APGD-T"}.get(str(self.loss), "APGD")

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        best = images.clone()
        losses = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
        done = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        runs = self._runs(model, images, targets)
        with progress_bar(self.name, len(runs) * self.steps) as bar:
            for goals in runs:
                left = (~done).nonzero().squeeze(1)
                task = _Task(pick(targets, left, len(images)), goals if goals is None else goals[left])
                found = self._climb(model, images[left], task, bar)
                better = found.done | (found.loss > losses[left])
                best[left[better]] = found.images[better]
                losses[left[better]] = found.loss[better].to(losses.dtype)
                done[left] = found.done
                if bool(done.all()):
                    break
        return best

    def _runs(self, model: Model, images: Tensor, targets: Any) -> list[Tensor | None]:
        """The classes (N,) that each climb targets; None for an untargeted loss."""
        if self.loss != _TARGETED:
            return [None] * self.restarts
        logits, labels = places(model(images), targets)
        others = logits.scatter(1, labels.clamp_min(0).unsqueeze(1), -torch.inf)
        ranked = others.topk(min(self.goals, logits.shape[1] - 1), 1).indices
        return [goals.squeeze(1) for goals in ranked.split(1, 1) for _ in range(self.restarts)]

    def _climb(self, model: Model, images: Tensor, task: _Task, bar: Any) -> _Best:
        start = torch.zeros_like(images)
        if self.random_start:
            start = random_start(images, self.eps, self.norm, self.generator)
        now = self._back(images, images + start)
        before = now
        loss, gradient, done = self._look(model, now, task)
        best = _Best(now, loss, gradient, now, loss, done)
        pace = _Pace(2 * self.eps, self.rho, loss)
        checkpoints = _checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            ahead = self._back(images, now + ascend(gradient, 1, self.norm) * pace.step.view(-1, 1, 1, 1))
            weight = _NEW if step > 1 else 1.0
            ahead = self._back(images, now + weight * (ahead - now) + (1 - weight) * (now - before))
            before, now = now, ahead
            previous = loss
            loss, gradient, done = self._look(model, now, task, last=step == self.steps)
            best.update(now, loss, gradient, done)
            pace.rises += loss > previous
            if step in checkpoints:
                stalled = pace.halve(best.peak, checkpoints[step])
                now = _where(stalled, best.top, now)
                gradient = _where(stalled, best.gradient, gradient)
                loss = torch.where(stalled, best.peak, loss)
            bar.update()
        return best

    def _look(self, model: Model, images: Tensor, task: _Task, last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the loss (N,), its gradient (zero at the last point) and which images fool the model (N,)."""
        with torch.set_grad_enabled(not last):
            images = images.detach().requires_grad_(not last)
            outputs = model(images)
            loss = per_image(self._objective(outputs, task), images)
        gradient = torch.zeros_like(images) if last else input_gradient(loss, images)
        return loss.detach(), gradient, self._fooled(outputs, task, loss.detach())

    def _objective(self, outputs: Any, task: _Task) -> Tensor:
        if task.goals is not None:
            return targeted_dlr(outputs, task.targets, task.goals)
        loss = (_LOSSES[self.loss] if isinstance(self.loss, str) else self.loss)(outputs, task.targets)
        return -loss if self.targeted else loss

    def _fooled(self, outputs: Any, task: _Task, loss: Tensor) -> Tensor:
        """Which images fool the model (N,). Unknown, so none, for the user's own loss or dense outputs."""
        if not isinstance(self.loss, str) or logits_in(outputs).ndim > 2:
            return torch.zeros_like(loss, dtype=torch.bool)
        margins = margin(logits_in(outputs).detach(), task.targets).squeeze(1)
        return margins < 0 if self.targeted else margins > 0

    def _back(self, images: Tensor, points: Tensor) -> Tensor:
        """Projects points to the ball and the image range."""
        return (images + project(points - images, self.eps, self.norm)).clamp(0, 1)


@dataclass
class _Task:
    """Targets of the loss, and classes (N,) to reach."""

    targets: Any
    goals: Tensor | None


@dataclass
class _Best:
    """The best points of a climb, for each image.

    Attributes:
        top: The point of the highest loss, from which a stalled climb resumes.
        peak: Its loss (N,).
        gradient: The gradient there.
        images: The result: the first point that fools the model, otherwise the point of the highest loss.
        loss: Its loss (N,).
        done: Whether it fools the model (N,).
    """

    top: Tensor
    peak: Tensor
    gradient: Tensor
    images: Tensor
    loss: Tensor
    done: Tensor

    def update(self, points: Tensor, loss: Tensor, gradient: Tensor, done: Tensor) -> None:
        higher = loss > self.peak
        self.top, self.gradient = _where(higher, points, self.top), _where(higher, gradient, self.gradient)
        self.peak = torch.where(higher, loss, self.peak)
        better = (done & ~self.done) | ((done == self.done) & (loss > self.loss))
        self.images, self.loss = _where(better, points, self.images), torch.where(better, loss, self.loss)
        self.done = self.done | done


class _Pace:
    """Step size of each image, halved under the two conditions of section 3.1."""

    def __init__(self, step: float, rho: float, loss: Tensor) -> None:
        self.rho = rho
        self.step = torch.full_like(loss, step)
        self.rises = torch.zeros_like(loss)
        self._peak = loss
        self._halved = torch.ones_like(loss, dtype=torch.bool)

    def halve(self, peak: Tensor, steps: int) -> Tensor:
        """Halves the step if few of the last `steps` steps raised the loss, or an unchanged step found no new peak."""
        stalled = (self.rises < self.rho * steps) | (~self._halved & (self._peak >= peak))
        self.step = torch.where(stalled, self.step / 2, self.step)
        self.rises = torch.zeros_like(self.rises)
        self._peak, self._halved = peak, stalled
        return stalled


def _checkpoints(steps: int) -> dict[int, int]:
    """Maps each step at which progress is checked to the number of steps since the previous check."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # Rounded first; otherwise ceil(0.57 * 100) would be 58.
    marks = sorted({math.ceil(round(share * steps, 6)) for share in shares if share < 1})
    return {mark: mark - before for before, mark in pairwise(marks)}


def _where(chosen: Tensor, points: Tensor, others: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), points, others)
