"""Training of NRP: undo attacks on features, so that pixels, features and a critic's scores match clean images.

Algorithm 2 of Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020,
https://arxiv.org/abs/2006.04924.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._options import check_number
from purifier._purifier import Purifier
from purifier.attacks import FGSM, SSP
from purifier.methods._base import Method
from purifier.methods.nrp import NRP, NRPResG
from purifier.models.features import load_features
from purifier.models.reference import reference_model
from purifier.training.bank.pairs import Batch, Pairs
from purifier.training.bank.settings import AttackedTraining
from purifier.training.critic import Critic, contest
from purifier.training.growing import grow_dense
from purifier.training.initial import load_grown, nrp_identity
from purifier.training.label_free import between, gaussian
from purifier.training.loop import Fitted, Losses, train_purifier
from purifier.training.outputs import training_card
from purifier.training.settings import check_strength, check_weights
from purifier.training.validation import PhotographRecipe, method_of

__all__ = ["NRPRecipe", "NRPTraining", "train"]


@dataclass(frozen=True, kw_only=True)
class NRPTraining(AttackedTraining):
    """Settings of the NRP training, in addition to those of every training on photographs.

    The defaults are the paper's wherever the paper states a value.

    Attributes:
        network: "nrp" (dense blocks, 16.6 M parameters) or "nrp-resg" (residual blocks, 1.7 M).
        filters: Width of the network.
        blocks: Number of blocks.
        growth: Features that each convolution of a dense block adds (nrp).
        start: "random" weights, or "identity": weights with which the network returns its input unchanged.
        init: Name or folder of a trained purifier to start from. If it has fewer blocks, new ones are inserted. An
            nrp-resg can become an nrp of as many blocks or more, whose output is nearly the same at first. "" means
            none.
        features: Fixed feature extractor, "vgg16" (up to relu3_3) or "module:function".
        crop_size: Side of the random crops, in pixels; a multiple of 32 with a critic.
        attack: "ssp" (the paper's), "gaussian" (its ablation GNP) or "fgsm" (its ablation FGSP, on the demo
            classifier).
        eps: Largest perturbation, in units of the [0, 1] range; 16/255 is 0.0627.
        eps_low: Smallest perturbation; each step draws its eps between the two.
        attack_steps: Steps T of SSP; the paper gives none.
        attack_alpha: Largest step size of SSP as a share of eps; the paper gives none.
        attack_alpha_low: Smallest step size of SSP; each training step draws its own between the two. Step sizes of
            1 / attack_steps end inside the ball, larger ones on its border. A purifier trained on one kind alone is
            weak against the other.
        clean_share: Share of a batch that is not attacked.
        pixel_weight: Weight gamma of the pixel loss (eq. 6); 0 switches it off.
        feature_weight: Weight lambda of the feature loss (eq. 5); 0 switches it off.
        adversarial_weight: Weight alpha of the critic's loss (eq. 7); 0 trains without a critic.
        relativistic: Whether the critic (discriminator) compares clean with purified images (relativistic average GAN)
            instead of judging each alone (vanilla GAN).
        critic_from: Step from which the critic is used.
        labelled: Folder with one folder of images per class, named after classes of the demo classifier, to validate
            its accuracy; "" means none.
    """

    batch_size: int = 16
    learning_rate: float = 1e-4
    network: Literal["nrp", "nrp-resg"] = "nrp"
    filters: int = 64
    blocks: int = 23
    growth: int = 32
    start: Literal["random", "identity"] = "random"
    init: str = ""
    features: str = "vgg16"
    crop_size: int = 128
    attack: Literal["ssp", "gaussian", "fgsm"] = "ssp"
    eps: float = 16 / 255
    eps_low: float = 16 / 255
    attack_steps: int = 5
    attack_alpha: float = 0.25
    attack_alpha_low: float = 0.25
    clean_share: float = 0.0
    pixel_weight: float = 1e-2
    feature_weight: float = 1.0
    adversarial_weight: float = 5e-3
    relativistic: bool = True
    critic_from: int = 0
    validation_images: int = 32
    labelled: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.eps_low, self.eps)
        if not 0 < self.attack_alpha_low <= self.attack_alpha:
            raise OptionError(
                f"expected 0 < attack_alpha_low <= attack_alpha, shares of eps, got attack_alpha_low="
                f"{self.attack_alpha_low}, attack_alpha={self.attack_alpha}; lower attack_alpha_low with attack_alpha"
            )
        check_number("clean_share", self.clean_share, low=0, high=1)
        names = ("pixel_weight", "feature_weight", "adversarial_weight")
        check_weights({name: getattr(self, name) for name in names})
        if not (self.pixel_weight or self.feature_weight) and self.critic_from > 0:
            raise OptionError(
                f"expected a loss before the critic is used, got pixel_weight=0, feature_weight=0 and critic_from="
                f"{self.critic_from}; give one of the two a weight, or set critic_from to 0"
            )


class NRPRecipe(PhotographRecipe):
    """The purifier, critic, crops, losses and validation of the NRP training.

    Raises:
        InputError: If there are no images.
        OptionError: If settings do not fit together.
        WeightsError: If the weights of the feature extractor cannot be loaded.
    """

    def __init__(self, config: NRPTraining) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.model = _network(config)
        self.critic = Critic(config.crop_size) if config.adversarial_weight else None
        self.features = load_features(config.features)
        self._classifier = reference_model("demo").requires_grad_(False) if config.attack == "fgsm" else None
        noise = torch.Generator().manual_seed(config.seed)
        ssp = SSP(self.features, eps=16 / 255, alpha=4 / 255, steps=10, generator=noise)
        super().__init__(config, {"ssp": ssp}, config.labelled)
        if config.init:
            _load(self.model, Purifier.from_pretrained(config.init).method)

    def to(self, device: torch.device) -> None:
        """Moves the feature extractor, and the classifier of FGSM."""
        self.features.to(device)
        if self._classifier is not None:
            self._classifier.to(device)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Batch, step: int) -> Losses:
        """Attacks a batch of clean crops, unless they come from a bank, purifies it and computes its loss (eq. 8)."""
        config = self.config
        pairs = Pairs.of(batch).completed(self.attacked)
        batch, purified = pairs.clean, model(pairs.perturbed).float()
        parts, total = {}, purified.new_zeros(())
        if config.pixel_weight:
            parts["pixel"] = pixel_loss(purified, batch)
            total = total + config.pixel_weight * parts["pixel"]
        if config.feature_weight:
            with torch.no_grad():
                clean = self.features(batch)
            parts["feature"] = feature_loss(self.features(purified).float(), clean.float())
            total = total + config.feature_weight * parts["feature"]
        of_critic = None
        if self.critic is not None and step >= config.critic_from:
            parts["adversarial"], of_critic = contest(self.critic, purified, batch, relativistic=config.relativistic)
            total = total + config.adversarial_weight * parts["adversarial"]
        return Losses(total, {name: value.detach() for name, value in parts.items()}, of_critic)

    def attacked(self, batch: Tensor) -> Tensor:
        """Perturbs crops (N, 3, H, W), except the first `clean_share` of them."""
        config = self.config
        kept = round(config.clean_share * len(batch))
        eps = between(config.eps_low, config.eps)
        clean, rest = batch[:kept], batch[kept:]
        if not len(rest):
            return clean
        if config.attack == "gaussian":
            return torch.cat((clean, gaussian(rest, eps)))
        if self._classifier is not None:
            return torch.cat((clean, FGSM(eps=eps)(self._classifier, rest, self._classifier(rest).argmax(1))))
        alpha = eps * between(config.attack_alpha_low, config.attack_alpha)
        attack = SSP(self.features, eps=eps, alpha=alpha, steps=config.attack_steps)
        return torch.cat((clean, attack(self.features, rest, None)))

    def purifier(self, fitted: Fitted) -> Purifier:
        """Makes the trained purifier, with its model card."""
        config = self.config
        text = (
            'NRP (Naseer et al., "A Self-supervised Approach for Adversarial Robustness", '
            "[CVPR 2020](https://arxiv.org/abs/2006.04924)),\n"
            f"trained with `purifier train nrp`: {fitted.step} of {config.steps} steps."
        )
        card = training_card(config.network, "nrp", text, config, fitted.history)
        return Purifier(method_of(fitted.model).cpu(), name=config.network, card=card)


def pixel_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """L_img (eq. 6): the Euclidean distance of each image (N, C, H, W) to its clean one, averaged over the batch.

    It is not divided by the number of pixels, so it grows with the crop, as in the equation.
    """
    return (purified - clean).flatten(1).norm(dim=1).mean()


def feature_loss(purified: Tensor, clean: Tensor) -> Tensor:
    """L_feat (eq. 5): the mean absolute difference of features."""
    return (purified - clean).abs().mean()


def _network(config: NRPTraining) -> NRP | NRPResG:
    if config.network == "nrp":
        network: NRP | NRPResG = NRP(filters=config.filters, blocks=config.blocks, growth=config.growth)
    else:
        network = NRPResG(filters=config.filters, blocks=config.blocks)
    if config.start == "identity" and not config.init:
        nrp_identity(network)
    return network


def _load(network: NRP | NRPResG, trained: Method) -> None:
    """Loads the weights of a trained network into one of its kind or into a larger one."""
    if isinstance(network, NRP) and isinstance(trained, NRPResG):
        grow_dense(network, trained)
    else:
        load_grown(network, trained.state_dict())


def train(config: NRPTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains NRP and writes the purifier to `out / config.network`; see `purifier.training.loop.train_purifier`.

    `config.data` names at least one folder of images; the arguments are those of `train_purifier`.

    Raises:
        InputError: If there are no images.
        OptionError: If settings do not fit together, or `out` holds a run with other settings.
        WeightsError: If the weights of the feature extractor cannot be loaded.
    """
    return train_purifier(lambda: NRPRecipe(config), config, out, minutes=minutes)
