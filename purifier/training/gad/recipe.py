"""The GAD recipe: the outputs for attacked images should match those for clean ones, in pixels and a model's features.

Xu et al., "General Adversarial Defense Against Black-box Attacks via Pixel Level and Feature Level Distribution
Alignments", https://arxiv.org/abs/2212.05387 (ICLR 2021 submission), Algorithm 1.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError, PurifierWarning
from purifier._files import write_text
from purifier._identity import weights_sha256
from purifier._purifier import Purifier
from purifier.data.crops import split_validation
from purifier.methods._base import Method
from purifier.methods.gad import GAD
from purifier.methods.gad_residual import GADResidual
from purifier.training.gad import losses
from purifier.training.gad.aware import AwareLosses, Guided
from purifier.training.gad.config import CLASSES, FEATURES, PIXELS, GADTraining
from purifier.training.gad.discriminator import PatchDiscriminator
from purifier.training.gad.norms import folded
from purifier.training.gad.perceptual import load_perceptual
from purifier.training.gad.tasks import Observed, make_task
from purifier.training.gad.validation import HeldOut, Samples
from purifier.training.initial import gad_identity, load_trained
from purifier.training.loop import Fitted, Losses, train_purifier
from purifier.training.outputs import training_card

Batch = tuple[Tensor, object]
# A score of the model without a purifier below this is probably a mistake in the settings.
_POOR = 0.5


class GADRecipe:
    """The generator, discriminator, samples, losses and validation of the GAD training.

    Args:
        config: The settings.
        model: The target model, of images in [0, 1]. It is not changed: the recipe uses a frozen copy in eval mode.

    Raises:
        InputError: If there are no samples, or the model does not fit the task.
        OptionError: If settings do not fit together.
        WeightsError: If the weights of the perceptual network cannot be loaded.
    """

    def __init__(self, config: GADTraining, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"expected the model to defend as an nn.Module, got {type(model).__name__}")
        torch.manual_seed(config.seed)
        self.config, self._weights = config, config.weights
        self._target = copy.deepcopy(model).eval().requires_grad_(False)
        self.task = make_task(self._target, config)
        method = self._network()
        self._aware = AwareLosses(config, self.task, method) if config.aware else None
        self.model: nn.Module = method if self._aware is None else self._aware.model
        if config.aware:
            # In this format, convolutions of few channels take half the time on a CPU.
            for network in (self.model, self._target):
                network.to(memory_format=torch.channels_last)
        self.critic = (
            PatchDiscriminator(filters=config.critic_filters, layers=config.critic_layers)
            if self._uses("gan", "matching") and not config.aware
            else None
        )
        uses_maps = self._weights["perceptual"] and not config.aware
        self._maps = load_perceptual(config.perceptual) if uses_maps else None
        training, validation = split_validation(self.task.items(), config.validation_every)
        self.crops = Samples(self.task, training, length=config.steps * config.batch_size, seed=config.seed)
        self._held = HeldOut(self.task, validation, count=config.validation_images, seed=config.seed)

    def _network(self) -> Method:
        """Makes the purifier that is trained, with its first weights."""
        config = self.config
        if config.network == "residual":
            method: Method = GADResidual(
                filters=config.filters,
                fine_blocks=config.fine_blocks,
                blocks=config.blocks,
                patch=config.patch,
                skip=config.skip,
            )
        else:
            method = GAD(
                filters=config.filters, blocks=config.blocks, downsamples=self.task.downsamples, norm=config.norm
            )
        if config.init:
            load_trained(method, config.init)
        elif isinstance(method, GAD) and config.start == "identity":
            gad_identity(method)
        return method

    def to(self, device: torch.device) -> None:
        """Moves the copy of the target model and the perceptual network, and reads the held-out samples.

        Warns if the model without a purifier is wrong on most of them, because no purifier corrects that.
        """
        self._target.to(device)
        bare = self._held.bare(device)
        if bare < _POOR:
            warnings.warn(
                f"without a purifier the model scores {bare:.2f} ({self.task.scores}) on held-out samples of "
                f"{self.task.size} x {self.task.size} pixels; check that it works at this size (--size), that it takes "
                "images in [0, 1], and that the labels are its own",
                PurifierWarning,
                stacklevel=6,
            )
        if self._maps is not None:
            self._maps.to(device)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Batch, step: int) -> Losses:
        """Attacks a batch of clean images, with their targets, and computes the loss of eq. 10.

        The goal of the adversarial output is the clean output (eq. 1; the clean image in the variants "lt"). Gradients
        flow to both, as in the equations. The clean output therefore also moves towards the adversarial one, which
        costs accuracy on clean images and gains some on attacked ones; `detach_clean` stops that gradient. No gradient
        ever flows to features of the clean image itself, or from the discriminator's loss to the outputs.
        """
        images, targets = batch
        if self._aware is not None:
            return Losses(*self._aware.losses(model, images, targets, step))
        attacked = self.task.attack(images, targets, step)
        # One call, because DDP expects one forward pass for each backward pass.
        clean, adversarial = model(torch.cat((images, attacked))).float().chunk(2)
        terms: dict[str, Tensor] = {}
        if self._uses(*PIXELS):
            terms |= self._of_pixels(images, clean, adversarial)
        if self._uses(*FEATURES, *CLASSES):
            terms |= self._of_features(images, clean, adversarial, targets)
        total = torch.stack([self._weights[name] * value for name, value in terms.items()]).sum()
        parts = {name: value.detach() for name, value in terms.items()}
        return Losses(total, parts, self._critic_loss(images, clean, adversarial) if self.critic is not None else None)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measures the purifier on held-out samples; see `HeldOut.figures` and `AwareLosses.figures`."""
        device = next(model.parameters()).device
        found = self._held.figures(_purifier_in(model), device)
        return found if self._aware is None else {**found, **self._aware.figures(model, self._held.clean(device))}

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, clean purified, attacked, attacked purified."""
        return self._held.samples(_purifier_in(model), next(model.parameters()).device)

    def _uses(self, *terms: str) -> bool:
        return any(self._weights[name] for name in terms)

    def _of_pixels(self, images: Tensor, clean: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
        goal = images if self.config.traditional else clean.detach() if self.config.detach_clean else clean
        terms: dict[str, Tensor] = {}
        if self._uses("reconstruction"):
            terms["reconstruction"] = losses.reconstruction_loss(clean, adversarial, images, goal)
        if self._maps is not None:
            terms["perceptual"] = self._perceptual(self._maps, images, clean, adversarial)
        if self.critic is not None:
            real, fake = self._real_and_fake(images, clean, adversarial)
            scores, features = self.critic(fake)
            if self._uses("gan"):
                terms["gan"] = losses.gan_loss(scores.float())
            if self._uses("matching"):
                goals = self.critic(real.detach() if self.config.detach_clean else real)[1]
                # In the traditional variants there are two fake images for each real one.
                goals = [torch.cat([one] * (len(fake) // len(real))) for one in goals]
                terms["matching"] = losses.maps_distance(_single(features), _single(goals))
        return terms

    def _perceptual(self, network: nn.Module, images: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """L_p (eq. 2): eq. 1 on feature maps."""
        with torch.no_grad():
            truth = _single(network(images))
        ours, theirs = _single(network(clean)), _single(network(adversarial))
        goals = truth if self.config.traditional else ours
        if self.config.detach_clean:
            goals = [one.detach() for one in goals]
        return losses.maps_distance(ours, truth) + losses.maps_distance(theirs, goals)

    def _of_features(self, images: Tensor, clean: Tensor, adversarial: Tensor, targets: object) -> dict[str, Tensor]:
        with torch.no_grad():
            truth = self.task.observe(images, targets)
        # A purifier in front of the model clamps its output.
        ours, theirs = (self.task.observe(output.clamp(0, 1), targets) for output in (clean, adversarial))
        terms: dict[str, Tensor] = {}
        if self._uses("task"):
            terms["task"] = losses.task_loss(ours.loss.float(), theirs.loss.float())
        if not self._uses("feature", *CLASSES):
            return terms
        vectors, labels = self._vectors(truth, ours, theirs)
        if self._uses("feature"):
            terms["feature"] = losses.feature_loss(vectors[1], vectors[2], vectors[0])
        if self._uses(*CLASSES):
            goal, _ = losses.class_centres(vectors[0], labels)
            centres, rows = losses.class_centres(vectors[2], labels)
            found = {
                "align": losses.align_loss(goal, centres),
                "inter": losses.inter_loss(centres, self.config.margin),
                "intra": losses.intra_loss(vectors[2], centres, rows),
            }
            terms |= {name: value for name, value in found.items() if self._weights[name]}
        return terms

    def _vectors(self, *observed: Observed) -> tuple[list[Tensor], Tensor]:
        """Returns vectors divided by the mean length of the first's, so that weights and margin fit every model."""
        shapes, labels = {tuple(one.vectors.shape) for one in observed}, observed[0].labels
        (shape, *others) = shapes
        if others or len(shape) != 2 or labels.shape != shape[:1]:
            raise InputError(
                f"expected as many feature vectors (V, L) of a purified image as of the image itself, and V labels, "
                f"got shapes {sorted(shapes)} and {tuple(labels.shape)}; see Task.observe"
            )
        unit = observed[0].vectors.float().norm(dim=1).mean() if len(labels) else labels.new_ones((), dtype=torch.float)
        vectors = [one.vectors.float() / unit.clamp_min(1e-12) for one in observed]
        if len(labels) > self.config.vectors:
            kept = torch.randperm(len(labels))[: self.config.vectors].to(labels.device)
            vectors, labels = [one[kept] for one in vectors], labels[kept]
        return vectors, labels

    def _real_and_fake(self, images: Tensor, clean: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the discriminator tells apart: clean and adversarial outputs, or images and outputs (L_T)."""
        return (images, torch.cat((clean, adversarial))) if self.config.traditional else (clean, adversarial)

    def _critic_loss(self, images: Tensor, clean: Tensor, adversarial: Tensor) -> Callable[[], Tensor]:
        assert self.critic is not None
        critic = self.critic
        real, fake = self._real_and_fake(images, clean.detach(), adversarial.detach())
        return lambda: losses.critic_loss(critic(real)[0].float(), critic(fake)[0].float())

    def purifier(self, fitted: Fitted) -> Purifier:
        """Makes the trained purifier, with its model card."""
        method = _purifier_in(fitted.model).cpu()
        if self._aware is not None:
            return Purifier(method, name="gad", card=self._aware.card(fitted, type(self._target).__name__))
        config, task, target = self.config, self.task, type(self._target).__name__
        text = (
            "GAD (Xu et al., [ICLR 2021 submission](https://arxiv.org/abs/2212.05387)), trained with\n"
            f"`purifier train gad` in front of one model ({target}): {fitted.step} of {config.steps} steps.\nIt is for "
            f"that model and may do less in front of another. Samples were {task.size} x {task.size} pixels;\nthe "
            f"attack in training had eps {task.eps:.4g}, alpha {task.alpha:.4g} and {task.attack_steps} steps."
        )
        measured = (
            f"On held-out samples, with the model that it was trained for: {task.scores},\n"
            "clean and under the training's attack, behind the purifier and bare. The attack is blind: it does not\n"
            "know the purifier. PSNR in dB, of clean images."
        )
        card = training_card("gad", "gad", text, config, fitted.history, measured=measured)
        return Purifier(method, name="gad", card=card)


def _purifier_in(model: nn.Module) -> Method:
    """Returns the purifier of what the loop trains."""
    return folded(model.method) if isinstance(model, Guided) else cast(Method, model)


def _single(maps: list[Tensor]) -> list[Tensor]:
    return [one.float() for one in maps]


def train(config: GADTraining, out: str | Path, *, model: nn.Module, minutes: float | None = None) -> Path:
    """Trains GAD in front of a model and writes the purifier to `out / "gad"`; see `training.loop.train_purifier`.

    Args:
        config: The settings; `config.data` names the folder of images.
        out: The output folder.
        model: The target model, of images (N, 3, H, W) in [0, 1]. It is copied and not changed. Wrap a model of
            normalised images in a module that normalises.
        minutes: Stop after about that time; the next call resumes. None means no limit.

    Raises:
        InputError: If there are no samples, or the model does not fit the task.
        OptionError: If settings do not fit together, or `out` holds a run with other settings or another model.
        WeightsError: If the weights of the perceptual network cannot be loaded.
    """

    def make() -> GADRecipe:
        recipe = GADRecipe(config, model)
        _check_target(Path(out), model)
        return recipe

    return train_purifier(make, config, out, minutes=minutes)


def _check_target(out: Path, model: nn.Module) -> None:
    """Writes which model a training is for, or checks that a resumed training is for the same one.

    Raises:
        OptionError: If the checkpoint in `out` was made for another model.
    """
    path, target = out / "target.json", {"class": type(model).__name__, "sha256": weights_sha256(model)}
    if not (out / "checkpoint.pt").exists() or not path.exists():
        write_text(path, json.dumps(target))
    elif json.loads(path.read_text()) != target:
        raise OptionError(
            f"expected the model that {out} was trained for, got another; choose another folder or give that model"
        )
