"""Settings of the GAD training, and the loss terms of the paper's ablations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from purifier._errors import OptionError
from purifier._options import check_integer, check_number
from purifier.training.settings import LoopConfig, check_weights

Variant = Literal["li", "lf-noc", "li+lf-noc", "lt", "lt+lf-noc", "full"]

# The loss terms by their names; those of features need the target model.
PIXELS = ("reconstruction", "perceptual", "gan", "matching")
FEATURES = ("task", "feature")
CLASSES = ("align", "inter", "intra")
_TERMS: dict[str, tuple[str, ...]] = {
    "li": PIXELS,
    "lf-noc": FEATURES,
    "li+lf-noc": PIXELS + FEATURES,
    "lt": PIXELS,
    "lt+lf-noc": PIXELS + FEATURES,
    "full": PIXELS + FEATURES + CLASSES,
}


@dataclass(frozen=True, kw_only=True)
class GADTraining(LoopConfig):
    """Settings of the GAD training, in addition to those of the loop.

    The paper gives the terms and the attacks, but not the loss weights, the margin, the widths or the optimiser: those
    are ours. Some settings have the default 0 or "", which stands for the task's own value: for the three tasks of this
    package the paper's, if it states one.

    Attributes:
        data: Folder of images. Classification: one folder per class, named after the class or by its number in the
            model; otherwise as many folders as classes, in sorted order. Other tasks: the images of `masks` or
            `annotations`.
        masks: Segmentation: folder of masks, PNG files of class numbers under the names of the images.
        annotations: Detection: COCO JSON file of the objects.
        task: "classification", "segmentation", "detection", or "module:MyTask", a `Task` of your own.
        variant: Terms of the paper's ablations: "li" (pixels), "lf-noc" (features without classes), "li+lf-noc" (both),
            "lt" (pixels, traditional: both outputs are compared with the clean image), "lt+lf-noc", or "full" (pixels,
            features and classes).
        threat: "blind": the paper's losses, against attacks on the model alone. "aware": adversarial training against
            attacks through purifier and model; its only loss is the model's own. "both": half of the attacks are
            blind. The settings of the paper's losses, `variant` to `critic_layers`, do not matter then.
        network: "gad", the paper's generator, or "residual", a small one on patches of the image, which has no use
            for `norm`, `start` and `downsamples`.
        filters: Width of the generator at full size; of the residual network at the resolution of its patches.
        blocks: Number of residual blocks of the generator; of the residual network at half that resolution.
        fine_blocks: Number of residual blocks of the residual network at the resolution of its patches.
        patch: Side of a patch of the residual network in pixels: 2 suits images of 32 pixels, 8 those of 128.
        clean_share: Share of each batch that is not attacked, with threat "aware" or "both".
        eps_warmup: Share of the steps in which the radius of the attack grows from 0, with threat "aware" or "both".
        skip: Whether the residual network changes the image, and starts as the identity, or draws it anew.
        replays: How many steps in a row use each batch ("free" adversarial training), with threat "aware" and one
            attack step. From the second step on, the attack continues with the gradient of the step before, that of
            its whole loss, at no further cost. 1 means a new batch, and an attack, each step.
        head_start: Share of the steps in which attacks go through a linear layer on the features of the residual
            network instead of the model (classification only), with threat "aware" or "both". They take half the time.
        head_weight: Weight of the loss of that layer after the head start; 0 means that it ends with it.
        downsamples: How often the generator halves the resolution; 0 means 2 for classification, 4 for segmentation and
            detection.
        norm: Normalisation layers of the generator: "layer", "instance" (as in pix2pixHD; loses brightness) or "none".
        start: "random" weights, or "identity": random weights with which the generator nearly returns its input, and
            learns faster; needs norm "none" and at least 3 * 2**downsamples filters.
        init: Name or folder of a trained generator of the same size to start from instead; "" means none.
        size: Side of the training samples, in pixels; 0 means 32 for classification, 512 for segmentation, 256 for
            detection.
        layer: Module of the target model whose input (classification, segmentation) or output (detection) gives the
            features; "" means the last linear layer, the last convolution, or the backbone, by task.
        vectors: Largest number of feature vectors of a batch; if there are more, a random part of them is used.
        ignore_index: Segmentation: mask value of pixels to ignore.
        eps: Radius of the attack, in units of the [0, 1] range; 0 means 0.031 for classification, 0.03 for
            segmentation, 8/255 for detection.
        alpha: Step size of the attack, in the same units; 0 means 0.0175 for classification, 0.01 for segmentation,
            2/255 for detection (the paper gives none). Attacks through purifier and model have a step size of their
            own: 1.25 eps for one step, and 2.5 eps / attack_steps for more.
        attack_steps: Steps of the attack; 0 means 4 for classification, 3 for segmentation, 4 for detection (the paper
            gives none), and 1 for attacks through purifier and model, those of threat "aware" and half of "both".
        reconstruction_weight: Weight lambda 4 of the pixel loss L_r (eq. 1).
        perceptual_weight: Weight lambda 5 of the perceptual loss L_p (eq. 2); with 0, its network is not loaded.
        gan_weight: Weight lambda 6 of the adversarial loss L_GANg (eq. 3).
        matching_weight: Weight lambda 7 of the feature matching of the discriminator, L_m (eq. 4). If this and
            gan_weight are 0, there is no discriminator.
        task_weight: Weight lambda 8 of the task loss L_Ftask (eq. 5).
        feature_weight: Weight lambda 9 of the feature loss L_Frec (eq. 6).
        align_weight: Weight lambda 1 of L_Falign (eq. 7).
        inter_weight: Weight lambda 2 of L_Finter (eq. 8).
        intra_weight: Weight lambda 3 of L_Fintra (eq. 8).
        margin: Margin M of L_Finter, in units of the mean length of a clean feature vector.
        detach_clean: Whether the output for the clean image is a fixed target for the output for the adversarial one,
            so that no gradient flows to it (eq. 1, 2 and 4). In the paper's equations gradients flow to both.
        perceptual: Network of L_p: "vgg16", or "module:function", a function without arguments that returns a module
            whose output is a list of feature maps.
        critic_filters: Width of the discriminator.
        critic_layers: How often the discriminator halves the resolution.
        validation_every: One in this many samples is held out for validation.
        validation_images: Largest number of images to validate on.
    """

    batch_size: int = 64
    learning_rate: float = 2e-4
    data: str = ""
    masks: str = ""
    annotations: str = ""
    task: str = "classification"
    variant: Variant = "full"
    threat: Literal["blind", "aware", "both"] = "blind"
    network: Literal["gad", "residual"] = "gad"
    filters: int = 32
    blocks: int = 6
    fine_blocks: int = 1
    patch: int = 2
    skip: bool = True
    clean_share: float = 0.0
    eps_warmup: float = 0.2
    replays: int = 1
    head_start: float = 0.0
    head_weight: float = 0.0
    downsamples: int = 0
    norm: Literal["layer", "instance", "none"] = "layer"
    start: Literal["random", "identity"] = "random"
    init: str = ""
    size: int = 0
    layer: str = ""
    vectors: int = 4096
    ignore_index: int = 255
    eps: float = 0.0
    alpha: float = 0.0
    attack_steps: int = 0
    reconstruction_weight: float = 10.0
    perceptual_weight: float = 0.1
    gan_weight: float = 0.1
    matching_weight: float = 1.0
    task_weight: float = 1.0
    feature_weight: float = 1.0
    align_weight: float = 1.0
    inter_weight: float = 0.1
    intra_weight: float = 0.1
    margin: float = 1.0
    detach_clean: bool = False
    perceptual: str = "vgg16"
    critic_filters: int = 64
    critic_layers: int = 3
    validation_every: int = 20
    validation_images: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attack_steps", "size", "downsamples", "fine_blocks"):
            check_integer(name, getattr(self, name), low=0)
        for name, low in (
            ("vectors", 1),
            ("patch", 1),
            ("replays", 1),
            ("validation_every", 2),
            ("validation_images", 1),
        ):
            check_integer(name, getattr(self, name), low=low)
        for name in ("clean_share", "eps_warmup", "head_start", "head_weight"):
            check_number(name, getattr(self, name), low=0, high=1)
        if min(self.margin, self.eps, self.alpha) < 0:
            raise OptionError(
                f"expected margin, eps and alpha of at least 0, got {self.margin}, {self.eps} and {self.alpha}"
            )
        check_weights({f"{name}_weight": getattr(self, f"{name}_weight") for name in _TERMS["full"]})
        if self.replays > 1 and (self.threat != "aware" or self.attack_steps > 1 or self.accumulate > 1):
            raise OptionError(
                f"expected replays={self.replays} with threat='aware', one attack step and accumulate=1, got "
                f"threat={self.threat!r}, attack_steps={self.attack_steps} and accumulate={self.accumulate}; set "
                "these, or replays=1"
            )
        if not any(self.weights.values()):
            raise OptionError(
                f"expected a weight above 0 of a loss that variant={self.variant!r} uses, got 0 for each of "
                f"{', '.join(_TERMS[self.variant])}"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term of eq. 9 and 10 by its name; 0 if the variant leaves it out."""
        used = _TERMS[self.variant]
        return {name: float(getattr(self, f"{name}_weight")) if name in used else 0.0 for name in _TERMS["full"]}

    @property
    def steps_per_batch(self) -> int:
        return self.replays

    @property
    def aware(self) -> bool:
        """Whether the attacker of the training knows the purifier."""
        return self.threat != "blind"

    @property
    def traditional(self) -> bool:
        """Whether adversarial outputs are compared with clean images (L_T) and not with clean outputs."""
        return self.variant.startswith("lt")
