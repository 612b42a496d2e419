"""Every knob of the NRP training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from purifier.training._photographs import PhotographTraining


@dataclass(frozen=True, kw_only=True)
class NRPTraining(PhotographTraining):
    """Settings of the NRP training, beside those of every training on photographs.

    The defaults are the paper's where it gives any.

    Attributes:
        network: "nrp" (dense blocks, 16.6 M parameters) or "nrp-resg" (residual blocks, 1.7 M).
        filters: Width of the network.
        blocks: Its depth.
        growth: Features that each convolution of a dense block adds (nrp).
        start: "random" weights, or "identity", random ones with which the network gives its input back.
        init: Name or folder of a trained purifier to start from; one with fewer blocks is grown. "" for none.
        features: Fixed feature extractor, "vgg16" (up to relu3_3) or "module:function".
        crop_size: Side of the random crops, in pixels; a multiple of 32 where there is a critic.
        attack: "ssp" (the paper's), "gaussian" (its ablation GNP) or "fgsm" (its ablation FGSP, on the demo
            classifier).
        eps: Largest perturbation, in units of the [0, 1] range.
        eps_low: Smallest one; each step draws its own between the two.
        attack_steps: Steps T of SSP; the paper gives none.
        attack_alpha: Largest step size of SSP as a share of eps; the paper gives none.
        attack_alpha_low: Smallest one; each step draws its own between the two. Steps of 1 / attack_steps end inside
            the ball, large ones on its border; a purifier that saw only the one is weak against the other.
        clean_share: Share of a batch that is not attacked.
        pixel_weight: Weight gamma of the pixel loss (eq. 6); 0 switches it off.
        feature_weight: Weight lambda of the feature loss (eq. 8); 0 switches it off.
        adversarial_weight: Weight alpha of the critic's judgement (eq. 7); 0 trains without a critic.
        relativistic: Whether the critic compares real with purified (relativistic average), or is a vanilla GAN's.
        critic_from: Step from which the critic works.
        labelled: Folder with folders of pictures of the demo classifier's classes, to validate accuracy on; "" for
            none.
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
