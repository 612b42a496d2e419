"""Settings of the GAD training, and the loss terms of the paper's ablations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from purifier._errors import OptionError
from purifier._options import check_integer
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
    are ours. A setting whose 0 or "" means "the task's own" then takes the paper's value for the task.

    Attributes:
        data: Folder of images. Classification: with a folder for each class, named by the class's name or number in the
            model (or as many folders as classes, in sorted order). Other tasks: the images of masks or annotations.
        masks: Segmentation: folder of masks, PNG files of class numbers under the names of the images.
        annotations: Detection: COCO JSON file of instances.
        task: "classification", "segmentation", "detection", or "module:function", a `Task` of the user's own.
        variant: Terms of the paper's ablations: "li" (pixels), "lf-noc" (features without classes), "li+lf-noc" (both),
            "lt" (pixels, traditional: both outputs are compared with the clean image), "lt+lf-noc", or "full" (pixels,
            features and classes).
        filters: Width of the generator at full size.
        blocks: Its residual blocks.
        downsamples: Its halvings; 0 means the task's own: 2 for classification, 4 for segmentation and detection.
        norm: Its normalisation: "layer", "instance" (pix2pixHD's, which loses brightness) or "none".
        start: "random" weights, or "identity": random weights with which the generator nearly returns its input, and
            learns faster; needs norm "none" and at least 3 * 2**downsamples filters.
        init: Name or folder of a trained generator of the same size to start from instead; "" means none.
        size: Side of the training samples, in pixels; 0 means the task's own: 32, 512 for segmentation, 256 for
            detection.
        layer: Module of the target model whose input (classification, segmentation) or output (detection) gives the
            features; "" means the task's own: the last linear layer, the last convolution, the backbone.
        vectors: Most feature vectors of a batch; a random part of them is used if there are more.
        ignore_index: Segmentation: mask value that does not count.
        eps: Attack: radius, in units of the [0, 1] range; 0 means the task's own: 0.031, 0.03 for segmentation, 8/255
            for detection.
        alpha: Attack: step size, same units; 0 means the task's own: 0.0175, 0.01 for segmentation; 2/255 for detection
            (the paper gives none).
        attack_steps: Attack: steps; 0 means the task's own: 4, 3 for segmentation; 4 for detection (the paper gives
            none).
        reconstruction_weight: Weight lambda 4 of L_r (eq. 1).
        perceptual_weight: Weight lambda 5 of L_p (eq. 2); 0 needs no network for it.
        gan_weight: Weight lambda 6 of L_GANg (eq. 3).
        matching_weight: Weight lambda 7 of L_m (eq. 4). If this and gan_weight are 0, there is no discriminator.
        task_weight: Weight lambda 8 of L_Ftask (eq. 5).
        feature_weight: Weight lambda 9 of L_Frec (eq. 6).
        align_weight: Weight lambda 1 of L_Falign (eq. 7).
        inter_weight: Weight lambda 2 of L_Finter (eq. 8).
        intra_weight: Weight lambda 3 of L_Fintra (eq. 8).
        margin: Margin M of L_Finter, in units of the mean length of a clean feature vector.
        detach_clean: Whether no gradient flows to the clean output as the goal of the adversarial one (eq. 1, 2 and 4).
            In the paper's equations gradients flow to both.
        perceptual: Network of L_p: "vgg16", or "module:function", a function without arguments that returns a module
            whose output is a list of feature maps.
        critic_filters: Width of the discriminator.
        critic_layers: Its halvings.
        validation_every: Each n-th sample is held out for validation.
        validation_images: Most images to validate on.
    """

    batch_size: int = 64
    learning_rate: float = 2e-4
    data: str = ""
    masks: str = ""
    annotations: str = ""
    task: str = "classification"
    variant: Variant = "full"
    filters: int = 32
    blocks: int = 6
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
        for name in ("attack_steps", "size", "downsamples"):
            check_integer(name, getattr(self, name), low=0)
        for name, low in (("vectors", 1), ("validation_every", 2), ("validation_images", 1)):
            check_integer(name, getattr(self, name), low=low)
        if min(self.margin, self.eps, self.alpha) < 0:
            raise OptionError(
                f"expected margin, eps and alpha of at least 0, got {self.margin}, {self.eps} and {self.alpha}"
            )
        check_weights({f"{name}_weight": getattr(self, f"{name}_weight") for name in _TERMS["full"]})
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
    def traditional(self) -> bool:
        """Whether adversarial outputs are compared with clean images (L_T) and not with clean outputs."""
        return self.variant.startswith("lt")
