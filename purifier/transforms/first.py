"""PurifyFirst: purifies pictures before a transformers processor gets them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from purifier._errors import InputError, OptionError
from purifier._purifier import Purifier
from purifier._wrapping import DEFAULT
from purifier.transforms.purify import Purify

_OWN = ("processor", "purify")
_PARTS = ("image_processor", "video_processor")
# What is not a picture if it is the first argument.
_OTHERS = ("text", "texts", "audio", "videos")
_PICTURES = ("images", "image", "query_images", "prompt_images", "visual_prompt")
# Texts that transformers takes for pictures, besides paths: addresses and base64.
_FETCHED = re.compile(r"https?://|data:image/|[A-Za-z0-9+/=\s]{260,}$")


class PurifyFirst:
    """A transformers image processor that purifies pictures before it resizes, cuts up and normalises them.

    For models that are fed something else than whole images, such as the patches of a vision-language model, and for
    pipelines that keep their model as it is. Attributes are the processor's own, also those that are set. Its
    `preprocess`, `apply_chat_template`, `image_processor` and `video_processor` purify first too; other methods do not.

    Args:
        processor: An image processor, or one of texts, images and videos.
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
        """Purifies pictures and videos, and hands them to the processor with the other arguments.

        Args:
            *args: The processor's. Pictures are one picture (PIL image, array, tensor, path, address), a list of
                pictures or nested lists of such. Videos are lists of frames, or arrays or tensors of frames.
            **kwargs: Likewise.

        Raises:
            InputError: If a video is not decoded, or a picture has another form.
        """
        return self._called(self.processor, *args, **kwargs)

    def _called(self, process: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        names = [*_names(process), *[""] * len(args)]
        purified = [self._argument(name, value) for name, value in zip(names, args, strict=False)]
        return process(*purified, **{name: self._argument(name, value) for name, value in kwargs.items()})

    def _argument(self, name: str, value: Any) -> Any:
        if name == "videos":
            return self._videos(value)
        return self._images(value) if name in _PICTURES else value

    def _images(self, images: Any) -> Any:
        if isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim > 3):
            return [self._images(image) for image in images]
        if isinstance(images, Image | Tensor):
            return self.purify(images)
        if isinstance(images, str) and _FETCHED.match(images):
            from transformers.image_utils import load_image

            images = load_image(images)
        if isinstance(images, np.ndarray) and images.ndim == 3:
            return self._array(images)
        return images if images is None else self.purify.purifier.purify_image(images)

    def _array(self, image: np.ndarray) -> Any:
        """Purifies one array, channels first or last, uint8 or float in [0, 1]."""
        first = image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3, 4)
        if image.dtype.kind != "f":
            last = np.moveaxis(image, 0, -1) if first else image
            purified = self.purify.purifier.purify_image(last)
            return np.moveaxis(np.asarray(purified).reshape(last.shape), -1, 0) if first else purified
        tensor = torch.from_numpy(np.ascontiguousarray(image if first else np.moveaxis(image, -1, 0)))
        return np.moveaxis(self.purify(tensor).numpy(), 0, 0 if first else -1)

    def _videos(self, videos: Any) -> Any:
        if isinstance(videos, str | os.PathLike):
            raise InputError(f"expected the frames of a video, got {videos}; decode it first: video_utils.load_video")
        if isinstance(videos, np.ndarray):
            return np.stack([self._videos(part) for part in videos]) if videos.ndim > 3 else self._frame(videos)
        if isinstance(videos, Tensor) and videos.ndim > 2 and videos.shape[-3] not in (1, 3) and videos.shape[-1] == 3:
            return self.purify(videos.movedim(-1, -3)).movedim(-3, -1)
        if isinstance(videos, list | tuple):
            return [self._videos(part) for part in videos]
        return self._images(videos)

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        return np.asarray(self._images(frame))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _OWN:
            raise AttributeError(name)
        found = getattr(self.processor, name)
        if name in _PARTS and found is not None:
            return self._beside(found)
        if name == "preprocess":
            return lambda *args, **kwargs: self._called(found, *args, **kwargs)
        # It calls the processor that it belongs to, which must be this one.
        return MethodType(found.__func__, self) if name == "apply_chat_template" else found

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            super().__setattr__(name, value)
        else:
            setattr(self.processor, name, value)

    def _beside(self, processor: Any) -> PurifyFirst:
        """Returns a part of the processor behind the same purifier."""
        part = type(self).__new__(type(self))
        part.processor, part.purify = processor, self.purify
        return part


def _names(process: Callable[..., Any]) -> list[str]:
    """Returns the names of the positional arguments; the first is "images" unless it is of another kind."""
    try:
        parameters = inspect.signature(process).parameters.values()
    except (TypeError, ValueError):
        return ["images"]
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return names if names and names[0] in _OTHERS else ["images", *names[1:]]
