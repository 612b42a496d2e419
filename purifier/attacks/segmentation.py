"""Attacks on segmenters: any attack on logits, on the loss of every pixel.

BIM, C&W and DeepFool on the loss per pixel are the attacks of Xu et al., "General Adversarial Defense Against Black-box
Attacks via Pixel Level and Feature Level Distribution Alignments" (GAD), section 4, https://arxiv.org/abs/2212.05387,
and of the segmentation tables of Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020,
https://arxiv.org/abs/2006.04924.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import InputError, OptionError
from purifier.attacks.base import Model
from purifier.attacks.eot import Around
from purifier.attacks.losses import cross_entropy

# The label that the losses of this package ignore.
_IGNORED = -100


@dataclass(kw_only=True, eq=False, repr=False)
class SegmentationAttack(Around):
    """Runs an attack on logits, such as BIM, CW or DeepFool, on a segmenter.

    The losses are means over the valid pixels. `CW` and `DeepFool` say when a dense output counts as fooled.

    Args:
        attack: The attack to run.
        ignore_index: Mask value of pixels to ignore, 255 in VOC. Pixels of -100 are ignored too.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> segmenter = torch.nn.Conv2d(3, 5, 3, padding=1)
        >>> images, masks = torch.rand(2, 3, 16, 16), torch.randint(5, (2, 16, 16))
        >>> attack = attacks.SegmentationAttack(attacks.BIM(eps=0.03, alpha=0.01, steps=3))
        >>> attack(lambda x: {"out": segmenter(x)}, images, masks).shape
        torch.Size([2, 3, 16, 16])
    """

    ignore_index: int = 255

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_index(self.ignore_index)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        check_masks(targets, len(images))
        adapted = logits_of(model, size=(targets.shape[1], targets.shape[2]))
        return self.attack(adapted, images, _without(targets, self.ignore_index))


@dataclass(kw_only=True, eq=False, repr=False)
class SegmentationLoss:
    """Mean cross entropy over the valid pixels of each image, (N,), from the output of a segmenter.

    Pass it to attacks that take a loss: `attacks.BIM(loss=attacks.SegmentationLoss())(segmenter, images, masks)`.

    Args:
        ignore_index: Mask value of pixels to ignore. Pixels of -100 are ignored too.

    Raises:
        OptionError: If it is not an integer.
    """

    ignore_index: int = 255

    def __post_init__(self) -> None:
        _check_index(self.ignore_index)

    @property
    def __name__(self) -> str:
        return f"segmentation(ignore_index={self.ignore_index})"

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the loss of each image; gradients flow to the outputs.

        Args:
            outputs: What a segmenter returns; see `logits_of`. The logits are enlarged to the size of the masks.
            targets: Masks (N, H, W) of integers.

        Raises:
            InputError: If outputs or targets are of another kind.
        """
        logits = read_logits(outputs)
        check_masks(targets, len(logits))
        return cross_entropy(_enlarge(logits, targets.shape[1:]), _without(targets, self.ignore_index))


class _Logits(nn.Module):
    def __init__(self, model: Any, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.training = getattr(model, "training", False)

    def forward(self, images: Tensor) -> Tensor:
        return _enlarge(read_logits(self.model(images)), self.size or images.shape[-2:])


def logits_of(model: Model, *, size: tuple[int, int] | None = None) -> nn.Module:
    """Returns a segmenter whose output is only the logits (N, K, H, W). It shares the model; gradients flow.

    Args:
        model: A segmenter that returns logits, a dict with logits under "out" (torchvision), or an object with
            `.logits` (transformers).
        size: Height and width to which logits are enlarged, bilinearly. None means those of the images.
    """
    return _Logits(model, size)


def read_logits(outputs: Any) -> Tensor:
    """Reads logits (N, K, H, W) from what a segmenter returns; see `logits_of`.

    Raises:
        InputError: If there are none.
    """
    found = outputs.get("out") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if found is None and isinstance(outputs, Mapping):
        found = outputs.get("logits")
    if not isinstance(found, Tensor) or found.ndim != 4:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(outputs).__name__
        raise InputError(
            "expected logits (N, classes, H, W) from the segmenter, as a tensor, under 'out' or as .logits, got "
            f"{got}; attack a function that returns them: lambda x: model(x)[...]"
        )
    if found.shape[1] < 2:
        raise InputError(
            f"expected logits of at least two classes (N, classes, H, W) from the segmenter, got {tuple(found.shape)}; "
            "give a model of one logit a pixel (sigmoid) as two classes, lambda x: torch.cat((torch.zeros_like(z := "
            "model(x)), z), 1), with masks of 0 and 1"
        )
    return found


def check_masks(masks: Any, count: int) -> None:
    """Checks that masks are integers (N, H, W).

    Raises:
        InputError: If they are not.
    """
    if not isinstance(masks, Tensor) or masks.ndim != 3 or len(masks) != count or masks.is_floating_point():
        got = f"{masks.dtype} of shape {tuple(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
        raise InputError(f"expected integer masks of shape ({count}, H, W), one class a pixel, got {got}")


def _enlarge(logits: Tensor, size: Any) -> Tensor:
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def _without(masks: Tensor, ignore_index: int) -> Tensor:
    masks = masks.long()
    return masks.masked_fill(masks == ignore_index, _IGNORED)


def _check_index(ignore_index: int) -> None:
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise OptionError(f"expected ignore_index as an integer, got {ignore_index!r}")
