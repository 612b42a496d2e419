"""Every knob of the Alloy training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from purifier.training._photographs import PhotographTraining


@dataclass(frozen=True, kw_only=True)
class AlloyTraining(PhotographTraining):
    """Settings of the Alloy training, beside those of every training on photographs.

    Attributes:
        name: Name of the finished purifier, and of its folder.
        extractors: Fixed networks whose features are to be those of the clean image, each as
            "NAME=MODEL[@LAYER[+LAYER]]:WEIGHT". MODEL is "vgg16" (up to relu3_3), "reference:demo" or
            "module:function", a function without arguments that returns a module of images in [0, 1]; LAYER is a module
            inside, as `named_modules()` calls it, whose output gives the features, the model's own output where none is
            named; WEIGHT is that of its feature loss, 0 for a network that is attacked only.
        sources: What the images are spoilt with; one of them is drawn at random for each step, process and part of a
            batch. "ssp:EXTRACTOR:SHARE:STEPS" attacks the features of an extractor. What a classifier says (its model's
            output) is attacked by PGD with "kl:EXTRACTOR:SHARE:STEPS", by PGD in L2, as far as eps at every value goes,
            with "l2", by MI-FGSM with "mi", by DIM with "di", by Square with "square". "*" stands for all extractors
            that this is possible for. "gaussian:SHARE" and "sign:SHARE" are noise, "none:SHARE" leaves the images
            clean. Shares are relative to their sum; STEPS is a number, of queries for Square, or a range, such as 2-3.
        eps: Largest perturbation, in units of the [0, 1] range.
        eps_low: Smallest one; each draw of a source has its own strength between the two.
        attack_alpha: Largest step size of the attacks, as a share of eps; drawn between it and 1 / steps, with which an
            attack just gets as far as eps. Large steps end on the border of the ball, small ones mostly inside.
        aware_share: Share of the attacks that go through the purifier, at its own number of iterations.
        pixel_weight: Weight of the mean absolute difference of pixels; 0 switches it off.
        belief_weight: Weight of the KL divergence, in nats, of what a classifier says of the clean image from what it
            says of the purified one; the mean over the extractors that classify. Distances of features are means over
            many values, in which a small change of the few that an attack aims at can hide; here it cannot.
        adversarial_weight: Weight of what NRP's critic makes of the purified crops, against which it is trained, in its
            relativistic form (see the NRP training), of the last application; 0 trains without one.
        views: Largest share by which crops are shrunk or enlarged for the extractors of the losses, clean and purified
            ones alike, in steps of 16 pixels: what tells one network alone, at one scale, that the purifier did well,
            is then no way out. 0 for none.
        teacher: Name or folder of a trained purifier of RGB images, of any method, whose output for the same spoilt
            images is a target beside the clean ones; "" for none. What a large network could not bring back is no
            longer asked of a small one.
        teacher_weight: Weight of the mean absolute difference of pixels from the teacher's output, where there is one.
        unroll: Applications of the network that are trained together; the loss is the mean over them.
        head_start: Most applications that a batch goes through before those, without a gradient; how many is drawn for
            each step and process. What is trained are then also the second and third application, at little more cost.
        network: "alloy", or "ncis", the network of NCIS trained in this way, which never sees the patch that it
            replaces (its blind spot); `blocks` are then its layers, and it has no levels, blur or gate.
        iterations: k that the finished purifier uses unless told otherwise.
        patch: Side of a patch, in pixels.
        filters: Width of the network.
        blocks: Its residual blocks; with several levels, on the way down and on the way up at each of them.
        levels: Scales that it works at.
        clamp: Whether each application ends with a clamp to [0, 1].
        blur: Passes of GS over the image before each application; 0 for none.
        gate: Width of the gate that keeps the purifier off images that nobody attacked; 0 for none.
        gate_blocks: Its residual blocks.
        gate_bias: What is added to the gate's logits when it is used, not while it learns to tell images apart.
        gate_weight: Weight of the cross entropy, in nats, of the gate on clean and spoilt images, where there is one.
        only_gate: Whether the gate alone is trained, by that cross entropy alone, of an `init` that may have none.
        start: "random" weights, or "identity", random ones with which the network gives its input back.
        init: Name or folder of a trained purifier to start from, of the same size; an alloy may be of one level and
            twice as many blocks where this one has several levels, to which it then adds the coarser scales; a gate
            that it lacks is added. "" for none.
        labelled: Folder with folders of pictures of the demo classifier's classes, to validate accuracy on; "" for
            none.
    """

    name: str = "alloy"
    extractors: tuple[str, ...] = ("vgg=vgg16:0.5", "demo=reference:demo@stages:0.25")
    sources: tuple[str, ...] = (
        "ssp:*:0.55:2-3",
        "kl:*:0.20:2-3",
        "gaussian:0.075",
        "sign:0.075",
        "none:0.10",
    )
    learning_rate: float = 4e-4
    eps: float = 18 / 255
    eps_low: float = 6 / 255
    attack_alpha: float = 0.75
    aware_share: float = 0.0
    pixel_weight: float = 4.0
    belief_weight: float = 0.5
    adversarial_weight: float = 0.0
    views: float = 0.0
    teacher: str = ""
    teacher_weight: float = 4.0
    unroll: int = 1
    head_start: int = 0
    network: Literal["alloy", "ncis"] = "alloy"
    iterations: int = 1
    patch: int = 2
    filters: int = 64
    blocks: int = 6
    levels: int = 2
    clamp: bool = True
    blur: int = 1
    gate: int = 0
    gate_blocks: int = 0
    gate_bias: float = 0.0
    gate_weight: float = 1.0
    only_gate: bool = False
    start: Literal["random", "identity"] = "random"
    init: str = ""
    validation_images: int = 32
    labelled: str = ""
