"""The GAD recipe: draw the outputs for attacked images to those for clean ones, in pixels and in a model's features."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError, PurifierWarning
from purifier.methods.gad import GAD
from purifier.training._loop import Losses
from purifier.training._trained import load_trained
from purifier.training.gad import _losses
from purifier.training.gad._config import GADTraining
from purifier.training.gad._discriminator import PatchDiscriminator
from purifier.training.gad._initial import start_as_identity
from purifier.training.gad._perceptual import load_perceptual
from purifier.training.gad._samples import Samples, split_items
from purifier.training.gad._validation import HeldOut
from purifier.training.gad._weights import weights_of
from purifier.training.gad.tasks import Observed, make_task

Batch = tuple[Tensor, object]
# Scores of the model alone below which something is likely to be wrong.
_POOR = 0.5


class GADRecipe:
    """What the loop needs to train GAD: generator, discriminator, samples, losses and validation.

    Args:
        config: The settings.
        model: The target model, of images in [0, 1]. It is copied, so that it stays as it is; the copy is fixed and in
            eval mode.

    Raises:
        InputError: Where there are no samples, or the model does not fit the task.
        OptionError: Where settings do not fit together.
        WeightsError: Where the weights of the perceptual network cannot be had.
    """

    def __init__(self, config: GADTraining, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"expected the model to defend as an nn.Module, got {type(model).__name__}")
        self._weights = weights_of(config)
        _check(config)
        torch.manual_seed(config.seed)
        self.config = config
        self._target = copy.deepcopy(model).eval().requires_grad_(False)
        self.task = make_task(self._target, config)
        self.model = GAD(
            filters=config.filters, blocks=config.blocks, downsamples=self.task.downsamples, norm=config.norm
        )
        if config.init:
            load_trained(self.model, config.init)
        elif config.start == "identity":
            start_as_identity(self.model)
        self.critic = (
            PatchDiscriminator(filters=config.critic_filters, layers=config.critic_layers)
            if self._weights.critic
            else None
        )
        self._maps = load_perceptual(config.perceptual) if self._weights.of["perceptual"] else None
        training, validation = split_items(self.task.items(), config.validation_every)
        self.crops = Samples(self.task, training, length=config.steps * config.batch_size, seed=config.seed)
        self._held = HeldOut(self.task, validation, count=config.validation_images, seed=config.seed)

    def to(self, device: torch.device) -> None:
        """Moves the copy of the target model and the perceptual network; reads the held-out samples.

        Warns where the model alone is wrong on most of these, which no purifier mends.
        """
        self._target.to(device)
        bare = self._held.bare(device)
        if bare < _POOR:
            warnings.warn(
                f"without a purifier the model scores {bare:.2f} ({self.task.scores}) on held-out samples of "
                f"{self.task.size} x {self.task.size} pixels; see that this is the size it works at (--size), that it "
                "takes images in [0, 1], and that the labels are its own",
                PurifierWarning,
                stacklevel=4,
            )
        if self._maps is not None:
            self._maps.to(device)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Batch, step: int) -> Losses:
        """Eq. 10 on a batch of clean images and targets; the images are attacked here.

        The adversarial output is drawn to the clean output, as eq. 1 says (to the clean image in the variants "lt").
        Gradients flow to both, as nothing in the equations stops them: the clean output also comes towards the
        adversarial one, which costs accuracy on clean images and wins some on attacked ones; `detach_clean` makes it
        a fixed goal. Fixed in any case are all that the target model and the perceptual network make of the clean
        image itself, and both outputs where the discriminator learns.
        """
        images, targets = batch
        attacked = self.task.attack(images, targets, step)
        # One call, because several processes share one backward pass a call.
        clean, adversarial = model(torch.cat((images, attacked))).float().chunk(2)
        terms: dict[str, Tensor] = {}
        if self._weights.pixels:
            terms |= self._of_pixels(images, clean, adversarial)
        if self._weights.features:
            terms |= self._of_features(images, clean, adversarial, targets)
        total = torch.stack([self._weights.of[name] * value for name, value in terms.items()]).sum()
        parts = {name: value.detach() for name, value in terms.items()}
        return Losses(total, parts, self._judge(images, clean, adversarial) if self.critic is not None else None)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out samples; see `HeldOut.figures`."""
        return self._held.figures(model, next(model.parameters()).device)

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, clean purified, attacked, attacked purified."""
        return self._held.samples(model, next(model.parameters()).device)

    def _of_pixels(self, images: Tensor, clean: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
        goal = images if self._weights.traditional else clean.detach() if self.config.detach_clean else clean
        terms: dict[str, Tensor] = {}
        if self._weights.any("reconstruction"):
            terms["reconstruction"] = _losses.reconstruction_loss(clean, adversarial, images, goal)
        if self._maps is not None:
            terms["perceptual"] = self._perceptual(self._maps, images, clean, adversarial)
        if self.critic is not None:
            real, fake = self._real_and_fake(images, clean, adversarial)
            scores, features = self.critic(fake)
            if self._weights.any("gan"):
                terms["gan"] = _losses.gan_loss(scores.float())
            if self._weights.any("matching"):
                goals = self.critic(real.detach() if self.config.detach_clean else real)[1]
                # Two fakes for each real image in the traditional variants.
                goals = [torch.cat([one] * (len(fake) // len(real))) for one in goals]
                terms["matching"] = _losses.maps_distance(_single(features), _single(goals))
        return terms

    def _perceptual(self, network: nn.Module, images: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """L_p (eq. 2): as eq. 1, on feature maps."""
        with torch.no_grad():
            truth = _single(network(images))
        ours, theirs = _single(network(clean)), _single(network(adversarial))
        goals = truth if self._weights.traditional else ours
        if self.config.detach_clean:
            goals = [one.detach() for one in goals]
        return _losses.maps_distance(ours, truth) + _losses.maps_distance(theirs, goals)

    def _of_features(self, images: Tensor, clean: Tensor, adversarial: Tensor, targets: object) -> dict[str, Tensor]:
        with torch.no_grad():
            truth = self.task.observe(images, targets)
        # What the model is given when the purifier is in front of it.
        ours, theirs = (self.task.observe(output.clamp(0, 1), targets) for output in (clean, adversarial))
        terms: dict[str, Tensor] = {}
        if self._weights.any("task"):
            terms["task"] = _losses.task_loss(ours.loss.float(), theirs.loss.float())
        if not self._weights.any("feature", "align", "inter", "intra"):
            return terms
        vectors, labels = self._vectors(truth, ours, theirs)
        if self._weights.any("feature"):
            terms["feature"] = _losses.feature_loss(vectors[1], vectors[2], vectors[0])
        if self._weights.any("align", "inter", "intra"):
            goal, _ = _losses.class_centres(vectors[0], labels)
            centres, rows = _losses.class_centres(vectors[2], labels)
            found = {
                "align": _losses.align_loss(goal, centres),
                "inter": _losses.inter_loss(centres, self.config.margin),
                "intra": _losses.intra_loss(vectors[2], centres, rows),
            }
            terms |= {name: value for name, value in found.items() if self._weights.of[name]}
        return terms

    def _vectors(self, *observed: Observed) -> tuple[list[Tensor], Tensor]:
        """Vectors in units of the mean length of the first's, so that weights and margin fit every model."""
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
        """What the discriminator tells apart: clean from adversarial outputs; traditionally, images from outputs."""
        return (images, torch.cat((clean, adversarial))) if self._weights.traditional else (clean, adversarial)

    def _judge(self, images: Tensor, clean: Tensor, adversarial: Tensor) -> Callable[[], Tensor]:
        assert self.critic is not None
        critic = self.critic
        real, fake = self._real_and_fake(images, clean.detach(), adversarial.detach())

        def judge() -> Tensor:
            return _losses.critic_loss(critic(real)[0].float(), critic(fake)[0].float())

        return judge


def _single(maps: list[Tensor]) -> list[Tensor]:
    return [one.float() for one in maps]


def _check(config: GADTraining) -> None:
    if config.batch_size < 1 or config.vectors < 1 or config.validation_every < 2 or config.validation_images < 1:
        raise OptionError(
            "expected batch_size, vectors and validation_images of at least 1 and validation_every of at least 2, got "
            f"{config.batch_size}, {config.vectors}, {config.validation_images} and {config.validation_every}"
        )
    if config.margin < 0 or min(config.eps, config.alpha, config.attack_steps, config.size, config.downsamples) < 0:
        raise OptionError(
            "expected margin, eps, alpha, attack_steps, size and downsamples of at least 0, got "
            f"{config.margin}, {config.eps}, {config.alpha}, {config.attack_steps}, {config.size} and "
            f"{config.downsamples}"
        )
