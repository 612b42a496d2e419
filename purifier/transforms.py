"""Purifying as a step of a data pipeline: torchvision transforms, and in front of a transformers image processor.

A pipeline purifies pictures before they are resized, cropped or normalised for the model, in the data loader's workers.
`purifier.wrap` and `purifier.attach` purify what the model is fed, on the model's device.
"""

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
from purifier._errors import InputError, OptionError
from purifier._input import check_form
from purifier._purifier import Purifier
from purifier._wrapping import DEFAULT, load_for

__all__ = ["Purify", "PurifyFirst"]


class Purify(v2.Transform):
    """Purifies the pictures of a sample and leaves the rest of it as it is.

    Takes PIL images, `tv_tensors.Image` and `Video`, and plain tensors as other v2 transforms do: uint8 in 0..255, or
    float in [0, 1]. Boxes, masks and labels pass through. Each kind comes back as itself, with its shape and dtype. It
    can be pickled, so that it works in the workers of a `DataLoader`. Gradients flow through float tensors. A sample
    whose only picture is an array is refused, because v2 transforms pass arrays through.

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

    _transformed_types = (Image, tv_tensors.Image, tv_tensors.Video, lambda value: type(value) is Tensor)

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

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuses a sample of arrays.

        Raises:
            InputError: If there is an array of a picture's form, and nothing that is purified.
        """
        arrays = [value for value in flat_inputs if isinstance(value, np.ndarray) and value.ndim in (2, 3, 4)]
        if arrays and not any(self._needs_transform_list(flat_inputs)):
            raise InputError(
                f"expected a sample with a PIL image or a tensor, got an array {arrays[0].shape}, which v2 transforms "
                "pass through; turn it into a tensor first: v2.ToImage()"
            )

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


class PurifyFirst:
    """A transformers image processor that purifies pictures before it resizes, cuts up and normalises them.

    For models that are fed something else than whole images, such as the patches of a vision-language model, and for
    pipelines that keep their model as it is. Attributes are the processor's own.

    Args:
        processor: An image processor, or one of texts and images; called with the pictures first or as `images=`.
        purifier: A name, folder or hub repository for `Purifier.from_pretrained`, or a purifier.
        **from_pretrained_arguments: Passed on to `Purifier.from_pretrained`.

    Raises:
        OptionError: If the processor cannot be called.
    """

    def __init__(
        self, processor: Any, purifier: str | os.PathLike[str] | Purifier = DEFAULT, **from_pretrained_arguments: Any
    ) -> None:
        if not callable(processor):
            raise OptionError(f"expected an image processor that can be called, got {type(processor).__name__}")
        self.processor = processor
        self.purify = Purify(purifier, **from_pretrained_arguments)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Purifies a picture, a list of pictures or nested lists of such, and hands them to the processor."""
        if "images" in kwargs:
            kwargs["images"] = self._purified(kwargs["images"])
        elif args:
            args = (self._purified(args[0]), *args[1:])
        return self.processor(*args, **kwargs)

    def _purified(self, images: Any) -> Any:
        if isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim > 3):
            return [self._purified(image) for image in images]
        if isinstance(images, Image | Tensor):
            return self.purify(images)
        return images if images is None else self.purify.purifier.purify_image(images)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "processor":
            raise AttributeError(name)
        return getattr(self.processor, name)
