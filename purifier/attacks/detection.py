"""Attacks on detectors: on the classification loss, the localisation loss, or both.

Xu et al., "General Adversarial Defense Against Black-box Attacks via Pixel Level and Feature Level Distribution
Alignments" (GAD), section 4, https://arxiv.org/abs/2212.05387, attacks detectors with all three. Attacks on one of the
losses: Zhang & Wang, "Towards Adversarially Robust Object Detection", ICCV 2019, section 4,
https://arxiv.org/abs/1907.10310.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError
from purifier._random import isolated_randomness
from purifier.attacks._gradient import GradientAttack
from purifier.attacks.apgd import APGD
from purifier.attacks.base import Attack, Loss, Model, check_images
from purifier.attacks.eot import EOT, Around, with_loss

Kind = Literal["cls", "loc", "cls+loc"]

# The loss terms of torchvision's detectors. Objectness counts as classification.
_TERMS = {
    "cls": ("loss_classifier", "loss_objectness", "classification"),
    "loc": ("loss_box_reg", "loss_rpn_box_reg", "bbox_regression", "bbox_ctrness"),
}


class DetectionLoss:
    """The sum of a torchvision detector's loss terms of one kind, a scalar; higher is worse for the detector.

    Args:
        kind: "cls" (classification, objectness), "loc" (boxes) or "cls+loc".

    Raises:
        OptionError: If the kind is not one of these.
    """

    def __init__(self, kind: Kind = "cls+loc") -> None:
        if kind not in get_args(Kind):
            raise OptionError(f"expected kind='cls', 'loc' or 'cls+loc', got {kind!r}")
        self.kind: Kind = kind

    @property
    def __name__(self) -> str:
        return self.kind

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the sum; gradients flow.

        Args:
            outputs: The dict of losses that a torchvision detector returns in train mode.
            targets: Not used, because the detector was called with them.

        Raises:
            InputError: If there is no term of this kind.
        """
        names = [name for part in self.kind.split("+") for name in _TERMS[part]]
        terms = [outputs[name] for name in names if name in outputs] if isinstance(outputs, Mapping) else []
        if not terms:
            got = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
            raise InputError(
                f"expected a detector's losses with {' or '.join(names)}, got {got}; for other detectors pass your "
                "own loss: DetectionAttack(attack, loss=lambda outputs, targets: ...)"
            )
        return torch.stack(terms).sum()


@dataclass(kw_only=True, eq=False, repr=False)
class DetectionAttack(Around):
    """Runs a gradient attack, such as PGD or BIM, on a detector, one image at a time.

    A torchvision detector (Faster, Mask and Keypoint R-CNN, RetinaNet, SSD, SSDlite, FCOS), with or without a
    purifier, is switched to its loss mode during the attack. Only the detector's own flags change: batch norm and
    dropout stay in eval mode, and no statistics change. In this mode the detector samples anchors at random; averaging
    over calls (`EOT`) may help. Any other detector needs a loss of your own.

    Args:
        attack: A gradient attack that takes a loss. Its own loss is not used.
        loss: "cls", "loc" or "cls+loc" of a torchvision detector. Or a function of (model output, targets): then the
            model is called with images alone, in its current mode, and targets are a batch of one image.

    Raises:
        OptionError: If the attack takes no loss, or the kind of loss is unknown.
    """

    loss: Kind | Loss = "cls+loc"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loss: Loss = self.loss if callable(self.loss) else DetectionLoss(self.loss)

    def _adopt(self, attack: Attack) -> None:
        inner = attack.attack if isinstance(attack, EOT) else attack
        if not isinstance(inner, GradientAttack | APGD):
            raise OptionError(
                f"expected an attack on any loss for detection, such as PGD or BIM, got "
                f"{getattr(inner, 'name', type(inner).__name__)}, which needs a classifier's outputs"
            )
        super()._adopt(attack)

    @property
    def name(self) -> str:
        """Name of the attack inside, and the kind of loss."""
        return f"{self.attack.name}-{getattr(self._loss, '__name__', type(self._loss).__name__)}"

    def __call__(self, model: Model, images: Any, targets: Any) -> Any:
        """Returns adversarial images, detached: a tensor for a tensor, a list for a list.

        The model's modes, buffers, parameters and gradients do not change.

        Args:
            model: A detector that takes images in [0, 1].
            images: (N, 3, H, W), or a list of (3, H, W) of any sizes; float32 or float64, in [0, 1].
            targets: What the detector takes for each image; for torchvision a dict of boxes (M, 4) and labels (M,).

        Raises:
            InputError: If images, targets or model do not suit the attack.
        """
        singles = [image[None] if isinstance(image, Tensor) else image for image in images]
        for image in singles:
            check_images(image)
        if not isinstance(targets, Sequence | Tensor) or len(targets) != len(singles):
            got = len(targets) if isinstance(targets, Sequence | Tensor) else type(targets).__name__
            raise InputError(f"expected targets for each of {len(singles)} images, got {got}")
        with self._own_randomness(singles), self._loss_mode(model):
            attacked = [
                super(DetectionAttack, self).__call__(model, image, targets[i : i + 1])
                for i, image in enumerate(singles)
            ]
        if isinstance(images, Tensor):
            return torch.cat(attacked) if attacked else images.detach().clone()
        return [image[0] for image in attacked]

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        attack = with_loss(self.attack, self._loss)
        if callable(self.loss):
            return attack(model, images, targets)
        call: Any = model
        return attack(lambda points: call(list(points), targets), images, targets)

    @contextmanager
    def _loss_mode(self, model: Any) -> Iterator[None]:
        if callable(self.loss):
            yield
            return
        switched = [module for module in detector_parts(model) if not module.training]
        try:
            for module in switched:
                module.training = True
            yield
        finally:
            for module in switched:
                module.training = False

    def _own_randomness(self, images: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Draws the detector's random anchors from the attack's generator if it has one."""
        if self.generator is None:
            return nullcontext()
        seed = int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        return isolated_randomness(*(image.device for image in images), seed=seed)


def detector_parts(model: Any) -> list[nn.Module]:
    """Returns the modules of a torchvision detector whose train flag means "return losses".

    Raises:
        InputError: If the model is not a torchvision detector and does not contain one.
    """
    from torchvision.models.detection import FCOS, RetinaNet
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.models.detection.rpn import RegionProposalNetwork
    from torchvision.models.detection.ssd import SSD

    outer = (GeneralizedRCNN, RetinaNet, SSD, FCOS)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    if not any(isinstance(module, outer) for module in modules):
        raise InputError(
            f"expected a torchvision detector, or one behind a purifier, got {type(model).__name__}; for other "
            "detectors pass your own loss: DetectionAttack(attack, loss=lambda outputs, targets: ...)"
        )
    return [module for module in modules if isinstance(module, (*outer, RegionProposalNetwork, RoIHeads))]
