"""The NRP recipe: undo perturbations of features so that pixels, features and a critic take the result for clean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from torch import Tensor, nn

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier.attacks import FGSM, SSP
from purifier.methods.noise import ProjectedNoise
from purifier.methods.nrp import NRP, NRPResG
from purifier.models.features import load_features
from purifier.models.reference import reference_model
from purifier.training._critic import Critic, contest
from purifier.training._loop import Losses
from purifier.training._photographs import crops_and_validation
from purifier.training._validation import Validation
from purifier.training.nrp._config import NRPTraining
from purifier.training.nrp._initial import load_grown, start_as_identity
from purifier.training.nrp._losses import feature_loss, pixel_loss

# Gaussian noise of dynamic inference: sigma 0.05 beside eps 16/255.
_SIGMA_OF_EPS = 0.05 / (16 / 255)


class NRPRecipe:
    """What the loop needs to train NRP: purifier, critic, crops, losses and validation.

    Raises:
        InputError: Where there are no images.
        OptionError: Where settings do not fit together.
    """

    def __init__(self, config: NRPTraining) -> None:
        _check(config)
        torch.manual_seed(config.seed)
        self.config = config
        self.model = _network(config)
        self.critic = Critic(config.crop_size) if config.adversarial_weight else None
        self.features = load_features(config.features)
        self._classifier = reference_model("demo").requires_grad_(False) if config.attack == "fgsm" else None
        self.crops, validation = crops_and_validation(config)
        noise = torch.Generator().manual_seed(config.seed)
        self._validation = Validation(
            validation,
            count=config.validation_images,
            seed=config.seed,
            attacks={"ssp": SSP(self.features, eps=16 / 255, alpha=4 / 255, steps=10, generator=noise)},
            labelled=Path(config.labelled) if config.labelled else None,
        )

    def to(self, device: torch.device) -> None:
        """Moves the feature extractor, and the classifier of FGSM."""
        self.features.to(device)
        if self._classifier is not None:
            self._classifier.to(device)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Tensor, step: int) -> Losses:
        """Eq. 5 on a batch of clean crops (N, 3, H, W), which is attacked here."""
        config = self.config
        purified = model(self.attacked(batch)).float()
        parts, total = {}, purified.new_zeros(())
        if config.pixel_weight:
            parts["pixel"] = pixel_loss(purified, batch)
            total = total + config.pixel_weight * parts["pixel"]
        if config.feature_weight:
            with torch.no_grad():
                clean = self.features(batch)
            parts["feature"] = feature_loss(self.features(purified).float(), clean.float())
            total = total + config.feature_weight * parts["feature"]
        judge = None
        if self.critic is not None and step >= config.critic_from:
            parts["adversarial"], judge = contest(self.critic, purified, batch, relativistic=config.relativistic)
            total = total + config.adversarial_weight * parts["adversarial"]

        return Losses(total, {name: value.detach() for name, value in parts.items()}, judge)

    def attacked(self, batch: Tensor) -> Tensor:
        """Perturbs crops (N, 3, H, W), but for the `clean_share` of them that come first."""
        config = self.config
        kept = round(config.clean_share * len(batch))
        eps = _between(config.eps_low, config.eps)
        clean, rest = batch[:kept], batch[kept:]
        if not len(rest):
            return clean
        if config.attack == "gaussian":
            noise = ProjectedNoise(sigma=_SIGMA_OF_EPS * eps, eps=eps)
            return torch.cat((clean, noise(rest)))
        if self._classifier is not None:
            return torch.cat((clean, FGSM(eps=eps)(self._classifier, rest, self._classifier(rest).argmax(1))))
        alpha = eps * _between(config.attack_alpha_low, config.attack_alpha)
        attack = SSP(self.features, eps=eps, alpha=alpha, steps=config.attack_steps)
        return torch.cat((clean, attack(self.features, rest, None)))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out images; see `Validation.figures`."""
        return self._validation.figures(model, next(model.parameters()).device)

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, clean purified, attacked by SSP, attacked purified."""
        return self._validation.samples(model, next(model.parameters()).device)


def _between(low: float, high: float) -> float:
    """Draws a number."""
    return low + (high - low) * torch.rand(()).item()


def _network(config: NRPTraining) -> NRP | NRPResG:
    if config.network == "nrp":
        network: NRP | NRPResG = NRP(filters=config.filters, blocks=config.blocks, growth=config.growth)
    else:
        network = NRPResG(filters=config.filters, blocks=config.blocks)
    if config.init:
        load_grown(network, Purifier.from_pretrained(config.init).method.state_dict())
    elif config.start == "identity":
        start_as_identity(network)
    return network


def _check(config: NRPTraining) -> None:
    for name in ("network", "start", "attack"):
        known, got = get_args(get_type_hints(NRPTraining)[name]), getattr(config, name)
        if got not in known:
            raise OptionError(f"expected {name} as one of {', '.join(known)}, got {got!r}")
    if config.start == "identity" and config.filters < 3:
        raise OptionError(f"expected filters >= 3 to start as the identity, got {config.filters}")
    if not 0 <= config.eps_low <= config.eps <= 1:
        raise OptionError(
            f"expected 0 <= eps_low <= eps <= 1, in units of the [0, 1] range, got eps_low={config.eps_low}, "
            f"eps={config.eps}; write 16/255 as {16 / 255:.4f}, and lower eps_low with eps"
        )
    if not 0 < config.attack_alpha_low <= config.attack_alpha:
        raise OptionError(
            f"expected 0 < attack_alpha_low <= attack_alpha, shares of eps, got attack_alpha_low="
            f"{config.attack_alpha_low}, attack_alpha={config.attack_alpha}; lower attack_alpha_low with attack_alpha"
        )
    if not 0 <= config.clean_share <= 1:
        raise OptionError(f"expected clean_share in [0, 1], got {config.clean_share}")
    weights = (config.pixel_weight, config.feature_weight, config.adversarial_weight)
    if min(weights) < 0 or max(weights) == 0:
        raise OptionError(f"expected loss weights >= 0, one of them above, got {weights}")
    if max(weights[:2]) == 0 and config.critic_from > 0:
        raise OptionError(
            f"expected a loss before the critic works, got pixel_weight=0, feature_weight=0 and critic_from="
            f"{config.critic_from}; give one of the two a weight, or set critic_from to 0"
        )
