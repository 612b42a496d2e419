"""Every knob of the GAD training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from purifier.training._loop import LoopConfig

Variant = Literal["li", "lf-noc", "li+lf-noc", "lt", "lt+lf-noc", "full"]


@dataclass(frozen=True, kw_only=True)
class GADTraining(LoopConfig):
    """Settings of the GAD training, beside those of the loop.

    The paper gives the terms and the attacks, but neither loss weights nor the margin, the widths or the optimiser:
    those are ours. Where a setting is 0 or "" for the task's own, that is what the paper uses for the task.

    Attributes:
        data: Folder of images: for classification with a folder for each class, called by its name or number in the
            model (or as many folders as classes, in sorted order), for the other tasks with the files that masks or
            annotations belong to.
        masks: Segmentation: folder of masks, PNG files of class numbers under the names of the images.
        annotations: Detection: COCO JSON file of instances.
        task: "classification", "segmentation", "detection", or "module:function", a `Task` of the user's own.
        variant: Terms at work, as in the paper's ablations: "li" (pixels), "lf-noc" (features without classes),
            "li+lf-noc" (both), "lt" (pixels, traditional: the clean image is the goal of both outputs), "lt+lf-noc",
            or "full" (pixels, features and classes).
        filters: Width of the generator at full size.
        blocks: Its residual blocks.
        downsamples: Its halvings; 0 for the task's own: 2 for classification, 4 for segmentation and detection.
        norm: Its normalisation, "layer", "instance" (pix2pixHD's, which forgets brightness) or "none".
        start: "random" weights, or "identity", random ones with which the generator nearly gives its input back, and
            learns sooner; with norm "none" and at least 3 * 2**downsamples filters.
        init: Name or folder of a trained generator of the same size to start from instead; "" for none.
        size: Side of the training samples, in pixels; 0 for the task's own: 32, 512 for segmentation, 256 for
            detection.
        layer: Module of the target model whose input (classification, segmentation) or output (detection) gives the
            features; "" for the task's own: the last linear layer, the last convolution, the backbone.
        vectors: Feature vectors of a batch, at most; more are thinned out at random.
        ignore_index: Segmentation: mask value that does not count.
        eps: Attack: radius, in units of the [0, 1] range; 0 for the task's own: 0.031, 0.03 for segmentation, 8/255
            for detection.
        alpha: Attack: step size, same units; 0 for the task's own: 0.0175, 0.01 for segmentation; 2/255 for detection
            (the paper gives none).
        attack_steps: Attack: steps; 0 for the task's own: 4, 3 for segmentation; 4 for detection (the paper gives
            none).
        reconstruction_weight: Weight lambda 4 of L_r (eq. 1).
        perceptual_weight: Weight lambda 5 of L_p (eq. 2); 0 needs no network for it.
        gan_weight: Weight lambda 6 of L_GANg (eq. 3).
        matching_weight: Weight lambda 7 of L_m (eq. 4). With this and gan_weight at 0 there is no discriminator.
        task_weight: Weight lambda 8 of L_Ftask (eq. 5).
        feature_weight: Weight lambda 9 of L_Frec (eq. 6).
        align_weight: Weight lambda 1 of L_Falign (eq. 7).
        inter_weight: Weight lambda 2 of L_Finter (eq. 8).
        intra_weight: Weight lambda 3 of L_Fintra (eq. 8).
        margin: Margin M of L_Finter, in units of the mean length of a clean feature vector.
        detach_clean: Whether the clean output, where it is the goal of the adversarial one (eq. 1, 2 and 4), is
            fixed. In the paper's equations it is not: the two meet.
        perceptual: Network of L_p: "vgg16", or "module:function", a function without arguments that returns a module
            whose output is a list of feature maps.
        critic_filters: Width of the discriminator.
        critic_layers: Its halvings.
        validation_every: Each n-th sample is kept out of training and validates.
        validation_images: Images that validate, at most.
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
