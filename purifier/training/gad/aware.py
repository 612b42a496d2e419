"""Adversarial training of a purifier in front of a frozen model, against attackers who know both.

The attacks go through purifier and model: one step from a random start (Wong et al., "Fast is better than free", ICLR
2020, https://arxiv.org/abs/2001.03994), or PGD (Madry et al., ICLR 2018, https://arxiv.org/abs/1706.06083). With
`replays`, each batch is used several times, and the gradient of one step's training is the next step's attack (Shafahi
et al., "Adversarial training for free!", NeurIPS 2019, https://arxiv.org/abs/1904.12843). The only loss is the model's
own for what the purifier returns.

A deviation that saves time: in the first part of the training (`head_start`), the attacks go through a linear layer on
the purifier's features instead of the model. The features then learn from that layer alone, and the rest of the
purifier learns to make the model say the same. Attacks cost a third of what they cost through the model.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError, PurifierWarning
from purifier._random import isolated_randomness
from purifier.methods._base import Method
from purifier.training.gad.config import GADTraining
from purifier.training.gad.norms import batch_normed
from purifier.training.gad.tasks import Classification, Task
from purifier.training.loop import Fitted
from purifier.training.outputs import training_card

# What a call runs: the linear layer alone, all of it with the features apart, or the whole with all gradients.
Part = Literal["head", "apart", "whole"]
# A single step that is this much weaker than PGD is a sign of catastrophic overfitting.
_OVERFITTED = 0.5
_PGD_STEPS = 10


class Guided(nn.Module):
    """A purifier as it is trained: with batch norms, and a linear layer on its features, which end with the training.

    Args:
        method: The purifier's method.
        normed: Whether to train with batch norms.
        classes: Number of outputs of the linear layer; 0 means that there is none.

    Raises:
        OptionError: If a layer is wanted and the method has no features.
    """

    def __init__(self, method: Method, *, normed: bool = False, classes: int = 0) -> None:
        super().__init__()
        self.method = batch_normed(method) if normed else method
        self.head: nn.Linear | None = None
        if classes:
            if not callable(getattr(method, "features", None)):
                raise OptionError("expected network='residual' with head_start or head_weight above 0, got another one")
            with torch.no_grad():
                width = method.features(torch.zeros(1, 3, 8, 8)).shape[1]  # type: ignore[operator]
            self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor, part: Part = "whole") -> tuple[Tensor | None, Tensor | None]:
        """Returns the purified images, None for "head", and the outputs of the linear layer, None without one.

        With "apart", no gradient flows from the purified images to the features.
        """
        if self.head is None:
            return self.method(images).clamp(0, 1), None
        if part == "head":
            return None, self.head(self.method.features(images))  # type: ignore[operator]
        purified, features = self.method.purified_and_features(images, detach=part == "apart")  # type: ignore[operator]
        return purified, self.head(features)


class AwareLosses:
    """The attacks and the loss of a training against attackers who know the purifier.

    Args:
        config: The settings.
        task: The task of the target model.
        method: The purifier's method.

    Raises:
        OptionError: If `head_start` or `head_weight` do not suit the task or the network.

    Attributes:
        model: What the loop trains: the purifier, with a linear layer if there is a head start.
    """

    def __init__(self, config: GADTraining, task: Task, method: Method) -> None:
        self._config, self._task = config, task
        self._head_steps = math.ceil(config.head_start * config.steps)
        self._step = 0
        # The batch of the step before, with its gradient.
        self._replay: Tensor | None = None
        # Trained weights were trained to do without.
        self.model = Guided(method, normed=not config.init, classes=self._classes())

    def losses(
        self, model: Callable[..., Any], images: Tensor, targets: Any, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Attacks a batch and returns its loss and the parts of it.

        Args:
            model: The purifier as the loop calls it.
            images: Clean images (N, 3, H, W).
            targets: Their targets.
            step: Number of the step.
        """
        self._step = step
        clean = round(self._config.clean_share * len(images))
        replays = self._config.replays > 1
        mixed = self._replayed(images, clean, step) if replays else self._mixed(images, clean, targets, step)
        return self._loss(model, mixed, targets, "apart" if self._in_head_start() else "whole")

    def _mixed(self, images: Tensor, clean: int, targets: Any, step: int) -> Tensor:
        """Attacks a batch but for its first images."""
        config = self._config
        mixed = self.attack(images, targets, self._radius(step), config.attack_steps or 1)
        if config.threat == "both":
            blind = (len(images) - clean) // 2
            mixed[clean : clean + blind] = self._task.attack(images, targets, step)[clean : clean + blind]
        mixed[:clean] = images[:clean]
        return mixed

    def _replayed(self, images: Tensor, clean: int, step: int) -> Tensor:
        """Perturbs a batch by the gradient that the step before left; at its first step, at random.

        Unlike the authors', a new batch does not start from the perturbation of the one before.

        Returns:
            A leaf, for which the step's backward pass computes the next attack's gradient. The first ones are clean.
        """
        eps, before = self._radius(step), self._replay
        if step % self._config.replays == 0 or before is None or before.grad is None:
            perturbation = torch.empty_like(images).uniform_(-eps, eps)
        else:
            # In float16, the gradient of a step that is skipped is infinite or NaN.
            perturbation = before.detach() - images + eps * before.grad.nan_to_num().sign()
        perturbation[:clean] = 0
        self._replay = (images + perturbation.clamp(-eps, eps)).clamp(0, 1).requires_grad_()
        return self._replay

    def attack(self, images: Tensor, targets: Any, eps: float, steps: int, model: nn.Module | None = None) -> Tensor:
        """Attacks purifier and model together in the Linf norm; returns detached images in [0, 1].

        Args:
            images: Clean images (N, 3, H, W).
            targets: Their targets.
            eps: Radius, in units of the [0, 1] range.
            steps: With 1, one step of 1.25 eps from a random start; with more, PGD with steps of 2.5 eps / steps.
            model: What to attack; None means the model that is trained.
        """
        low, high = (images - eps).clamp(0, 1), (images + eps).clamp(0, 1)
        attacked = images + torch.empty_like(images).uniform_(-eps, eps)
        attacked = torch.minimum(torch.maximum(attacked, low), high)
        alpha = 1.25 * eps if steps == 1 else 2.5 * eps / steps
        for _ in range(steps):
            with torch.enable_grad():
                leaf = attacked.detach().requires_grad_()
                loss, _ = self._loss(self.model if model is None else model, leaf, targets, self._attacked())
                (gradient,) = torch.autograd.grad(loss, leaf)
            attacked = torch.minimum(torch.maximum(attacked + alpha * gradient.sign(), low), high)
        return attacked.detach()

    def figures(self, model: nn.Module, batches: Sequence[tuple[Tensor, Any]]) -> dict[str, float]:
        """Returns the scores "single" (one step) and "aware" (PGD-10) of held-out images under attacks through both.

        In the head start, these are the accuracies of the linear layer. Warns of catastrophic overfitting.
        """
        assert isinstance(model, Guided)
        model.eval()
        found = {"single": 0.0, "aware": 0.0}
        count = sum(len(images) for images, _ in batches)
        for images, targets in batches:
            with isolated_randomness(images.device, seed=self._config.seed):
                for name, steps in (("single", 1), ("aware", _PGD_STEPS)):
                    attacked = self.attack(images, targets, self._task.eps, steps, model)
                    found[name] += self._score(model, attacked, targets) * len(images) / count
        if found["single"] > 0.2 and found["aware"] < _OVERFITTED * found["single"]:
            warnings.warn(
                f"the training has overfitted to its attack: the score is {found['single']:.2f} under one step and "
                f"{found['aware']:.2f} under {_PGD_STEPS}; train again with more attack_steps, or with a lower eps",
                PurifierWarning,
                stacklevel=4,
            )
        return found

    def _radius(self, step: int) -> float:
        """The radius of a step's attack: it grows to `eps` in the first part of the training."""
        warm = self._config.eps_warmup * self._config.steps
        return self._task.eps * min(1.0, (step + 1) / warm if warm else 1.0)

    def _in_head_start(self) -> bool:
        return self._step < self._head_steps

    def _attacked(self) -> Part:
        """What the attacks go through at this step."""
        return "head" if self._in_head_start() else "whole"

    def _loss(
        self, model: Callable[..., Any], images: Tensor, targets: Any, part: Part
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self._config
        purified, outputs = model(images, part)
        parts: dict[str, Tensor] = {}
        if purified is not None:
            parts["task"] = self._task.observe(purified.float(), targets).loss.float()
        if outputs is not None:
            parts["head"] = F.cross_entropy(outputs.float(), targets)
        weights = {"task": config.task_weight, "head": config.head_weight if part == "whole" else 1.0}
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def _score(self, model: Guided, images: Tensor, targets: Any) -> float:
        purified, outputs = model(images, self._attacked())
        if purified is None:
            assert outputs is not None
            return (outputs.argmax(1) == targets).float().mean().item()
        return self._task.score(purified.float(), targets)

    def _classes(self) -> int:
        """Returns the number of outputs of the linear layer, 0 for none."""
        if not self._config.head_start and not self._config.head_weight:
            return 0
        if not isinstance(self._task, Classification):
            raise OptionError(
                f"expected task='classification' with head_start or head_weight above 0, got {self._config.task!r}"
            )
        return self._task.classes

    def card(self, fitted: Fitted, target: str) -> str:
        """Returns the model card of the trained purifier, in front of a model of the class `target`."""
        config, task = self._config, self._task
        steps = config.attack_steps or 1
        text = (
            "An adversarially trained purifier (`purifier train gad`), in front of one frozen model\n"
            f"({target}): {fitted.step} of {config.steps} steps. It is for that model and not for another one.\n"
            f"Samples were {task.size} x {task.size} pixels; the attacks went through purifier and model\n"
            f"(threat={config.threat!r}), with eps {task.eps:.4g} and {steps} steps each"
            f"{f'; each batch was used {config.replays} times' if config.replays > 1 else ''}."
        )
        measured = (
            f"On held-out samples, with the model that it was trained for: {task.scores}, clean and under a blind\n"
            "attack, behind the purifier and bare; under attacks through purifier and model, of one step (single)\n"
            f"and of {_PGD_STEPS} (aware), with the training's eps. During the head start these two are those of the\n"
            "linear layer that stands in for the model. PSNR in dB, of clean images."
        )
        return training_card("gad", "gad", text, config, fitted.history, measured=measured)
