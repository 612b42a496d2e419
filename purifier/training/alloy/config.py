"""Settings of the Alloy training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from purifier._errors import OptionError
from purifier._options import check_number
from purifier.training.bank.settings import AttackedTraining
from purifier.training.extractors import read_extractors
from purifier.training.perturbations import read_sources
from purifier.training.settings import check_folder_name, check_strength, check_weights

_REMOVED = ("network", "adversarial_weight", "aware_share", "unroll", "head_start", "start")


@dataclass(frozen=True, kw_only=True)
class AlloyTraining(AttackedTraining):
    """Settings of the Alloy training, in addition to those of every training on photographs.

    Attributes:
        name: Name of the finished purifier, and of its folder.
        extractors: Fixed networks whose features of the purified image should match those of the clean image, each as
            "NAME=MODEL[@LAYER[+LAYER]]:WEIGHT". MODEL is "vgg16" (up to relu3_3), "reference:demo" or
            "module:function", a function without arguments that returns a module of images in [0, 1]. LAYER is a module
            inside, as `named_modules()` names it, whose output gives the features; without it, the model's own output
            does. WEIGHT is the weight of the feature loss; 0 means that the network is attacked only.
        sources: What perturbs the images; each step draws one of them at random (each process and part of a batch its
            own). "ssp:EXTRACTOR:SHARE:STEPS" attacks the features of an extractor. Other kinds, in the same form,
            attack the predictions of an extractor that is a classifier: "kl" by PGD, "pgd" by PGD on the likeliest
            class, "l2" by PGD in L2 (radius: the norm of a perturbation of eps at every value), "mi" by MI-FGSM, "di"
            by DIM, "ti" by TI-FGSM, "apgd" by APGD, "cw" by C&W, "square" by Square. EXTRACTOR is a name, several
            joined by "+" (not for "ssp"), or "*" for all that the attack fits. "gaussian:SHARE" and "sign:SHARE" add
            noise, "none:SHARE" leaves the images clean. Shares are relative to their sum. STEPS is a number (of queries
            for Square), or a range such as 2-3.
        eps: Largest perturbation, in units of the [0, 1] range; 16/255 is 0.0627.
        eps_low: Smallest perturbation; each draw of a source has its own eps between the two.
        attack_alpha: Largest step size of the attacks, as a share of eps. Each attack draws its step size between this
            and 1 / steps, with which it just reaches eps. Large steps end on the border of the ball, small ones mostly
            inside.
        pixel_weight: Weight of the mean absolute difference of pixels; 0 switches it off.
        prediction_weight: Weight of KL(clean || purified), in nats, of a classifier's predictions for both images; the
            mean over the extractors that classify. Distances of features are means over
            many values and can hide a change of the few values that an attack aims at; the divergence cannot.
        views: Largest share by which crops, clean and purified ones alike, are shrunk or enlarged before the extractors
            of the losses see them, in steps of 16 pixels. The purifier then cannot fit an extractor at one scale only.
            0 means none.
        teacher: Name or folder of a trained purifier of RGB images, of any method, whose output for the same perturbed
            images is another target beside the clean ones; "" means none. It is a target that a small network can
            reach.
        teacher_weight: Weight of the mean absolute difference of pixels from the teacher's output.
        iterations: Default number k of iterations of the finished purifier.
        patch: Side of a patch, in pixels.
        filters: Width of the network.
        blocks: Number of residual blocks; with several levels, on the way down and on the way up at each of them.
        levels: Number of scales that the network works at.
        clamp: Whether each application ends with a clamp to [0, 1].
        blur: Passes of Gaussian smoothing over the image before each application; 0 means none.
        gate: Width of the gate, which detects attacks and leaves clean images nearly unchanged; 0 means no gate.
        gate_blocks: Number of residual blocks of the gate.
        gate_bias: Constant added to the gate's logits at inference, but not in training.
        gate_floor: Weights of the gate below this count as 0 at inference.
        gate_threshold: Attack score up to which an image is returned unchanged at inference.
        gate_weight: Weight of the cross entropy, in nats, of the gate on clean and perturbed images.
        gate_worst: Share of that loss that only counts the worst position of each image: the surest one of a clean
            image, the least sure one of an attacked one. It makes the gate surer of whole images.
        only_gate: Whether to train only the gate, by that cross entropy alone, for the network of `init`.
        init: Name or folder of a trained purifier to start from, of the same size; "" means none. If this alloy has
            several levels, `init` may also have one level and twice as many blocks, and becomes the finest level. A
            gate that it lacks is added.
        labelled: Folder with one folder of images per class, named after classes of the demo classifier, to validate
            its accuracy; "" means none.
    """

    former: ClassVar = {
        "belief_weight": "did you mean 'prediction_weight'?",
        **dict.fromkeys(_REMOVED, "this setting was removed, because it did not help in the ablation of docs/alloy.md"),
    }

    name: str = "alloy"
    extractors: tuple[str, ...] = ("vgg=vgg16:0.5", "demo=reference:demo@stages:0.25")
    sources: tuple[str, ...] = ("ssp:*:0.55:2-3", "kl:*:0.20:2-3", "gaussian:0.075", "sign:0.075", "none:0.10")
    learning_rate: float = 4e-4
    eps: float = 18 / 255
    eps_low: float = 6 / 255
    attack_alpha: float = 0.75
    pixel_weight: float = 4.0
    prediction_weight: float = 0.5
    views: float = 0.0
    teacher: str = ""
    teacher_weight: float = 4.0
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
    gate_floor: float = 0.0
    gate_threshold: float = 0.0
    gate_weight: float = 1.0
    gate_worst: float = 0.0
    only_gate: bool = False
    init: str = ""
    validation_images: int = 32
    labelled: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        read_sources(self.sources)
        check_folder_name(self.name)
        check_strength(self.eps_low, self.eps)
        check_number("gate_worst", self.gate_worst, low=0.0, high=1.0)
        if not 0 < self.attack_alpha <= 2:
            raise OptionError(f"expected attack_alpha in (0, 2], a share of eps, got {self.attack_alpha}")
        if not 0 <= self.views < 1:
            raise OptionError(f"expected views in [0, 1), a share of the sides of crops, got {self.views}")
        if self.only_gate and not (self.gate and self.gate_weight and self.init):
            raise OptionError(
                "expected with only_gate a gate, its weight, and an init whose network it is for, got "
                f"gate={self.gate}, gate_weight={self.gate_weight} and init={self.init!r}"
            )
        check_weights(self.loss_weights() | {"prediction_weight": self.prediction_weight})

    def loss_weights(self) -> dict[str, float]:
        """Returns the weight of each loss that needs no classifier, by its setting or its extractor."""
        weights = {"pixel_weight": self.pixel_weight}
        weights |= {line.name: line.weight for line in read_extractors(self.extractors)}
        weights["teacher_weight"] = self.teacher_weight if self.teacher else 0.0
        weights["gate_weight"] = self.gate_weight if self.gate else 0.0
        return weights
