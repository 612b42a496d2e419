"""Purify: a torchvision transform that purifies the pictures of a sample."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from purifier._call import purify_any
from purifier._convention import Convention
from purifier._errors import InputError
from purifier._input import check_form
from purifier._purifier import Purifier
from purifier._wrapping import DEFAULT, load_for

# Modes of PIL images of one channel: pictures, or masks.
_PLAIN = ("1", "L", "P", "I", "I;16", "F")


class Purify(v2.Transform):
    """Purifies the pictures of a sample and leaves the rest of it as it is.

    Takes PIL images, `tv_tensors.Image` and `Video`, and plain tensors as other v2 transforms do: uint8 in 0..255, or
    float in [0, 1]. Boxes, masks and labels pass through. Beside one picture in colour, PIL images of one channel pass
    through as masks. Each kind comes back as itself, with its shape and dtype. The transform can be pickled, so that it
    works in the workers of a `DataLoader`. Gradients flow through float tensors. A sample whose only picture is an
    array is refused, because v2 transforms pass arrays through.

    Args:
        purifier: A name, folder or hub repository for `Purifier.from_pretrained`, or a purifier.
        mean: Mean of each channel that the images are normalised with; None for images in [0, 1].
        std: Standard deviation of each channel, likewise.
        channels: "RGB" or "BGR".
        out_of_range: "auto", "clamp" or "refuse"; see `purifier.PurifiedModel`.
        **from_pretrained_arguments: Passed on to `Purifier.from_pretrained`, such as `iterations=5`.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from torchvision.transforms import v2
        >>> from purifier.transforms import Purify
        >>> pipeline = v2.Compose([Purify("gs"), v2.ToDtype(torch.float32, scale=True)])
        >>> pipeline(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        purifier: str | os.PathLike[str] | Purifier = DEFAULT,
        *,
        mean: Any = None,
        std: Any = None,
        channels: str = "RGB",
        out_of_range: str = "auto",
        **from_pretrained_arguments: Any,
    ) -> None:
        super().__init__()
        self.convention = Convention.of(mean, std, channels=channels, out_of_range=out_of_range)
        self.purifier = load_for(None, purifier, from_pretrained_arguments)

    def forward(self, *inputs: Any) -> Any:
        """Purifies the pictures of a sample.

        Raises:
            InputError: If there is no sample, if its only picture is an array, or if it is not clear which of several
                PIL images are pictures.
        """
        if not inputs:
            raise InputError("expected a sample with a picture, got nothing; call it with one")
        return super().forward(*inputs)

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Checks what `forward` raises."""
        arrays = [value for value in flat_inputs if isinstance(value, np.ndarray) and value.ndim in (2, 3, 4)]
        if arrays and not any(self._needs_transform_list(flat_inputs)):
            raise InputError(
                f"expected a sample with a PIL image or a tensor, got an array {arrays[0].shape}, which v2 transforms "
                "pass through; turn it into a tensor first: v2.ToImage()"
            )

    def _needs_transform_list(self, flat_inputs: list[Any]) -> list[bool]:
        declared = [value for value in flat_inputs if isinstance(value, tv_tensors.Image | tv_tensors.Video)]
        tensors = [value for value in flat_inputs if type(value) is Tensor]
        # A label may come first.
        tensors = [value for value in tensors if value.ndim > 2] or tensors
        alone = not declared and not (tensors and tensors[0].ndim > 2)
        pictures: list[Any] = [*declared, *_pictures(flat_inputs, alone=alone)] or tensors[:1]
        chosen = {id(value) for value in pictures}
        return [id(value) in chosen for value in flat_inputs]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Purifies one picture."""
        if isinstance(inpt, Image):
            return self.purifier.purify_image(inpt)
        out = self._purified(inpt.as_subclass(Tensor))
        return tv_tensors.wrap(out, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else out

    def _purified(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8 and self.convention.normalisation is None:
            return (self._purified(images.float() / 255) * 255).round().to(torch.uint8)
        check_form(images, grey=True)
        return self.convention.from_unit(purify_any(self.purifier.purify, self.convention.to_unit(images)), images)


def _pictures(values: list[Any], *, alone: bool) -> list[Image]:
    """Returns the PIL images of a sample that are pictures: those in colour, or else the only one.

    Images of one channel are masks beside one picture in colour or a `tv_tensors.Image`. Images of two levels are masks
    beside any other.

    Raises:
        InputError: If an image of one channel may be a picture as well as a mask.
    """
    images = [value for value in values if isinstance(value, Image)]
    colour = [image for image in images if image.mode not in _PLAIN]
    plain = [image for image in images if image.mode in _PLAIN and image.mode != "1"]
    unclear = plain if len(colour) > 1 or (alone and not colour and len(plain) > 1) else []
    if unclear:
        raise InputError(
            "expected one picture beside masks, got PIL images of modes "
            f"{', '.join(image.mode for image in images)}, and one of a single channel may be either; turn masks into "
            "tv_tensors.Mask, pictures into RGB or with v2.ToImage() into tv_tensors.Image"
        )
    return colour or ((plain or images[:1]) if alone else [])
