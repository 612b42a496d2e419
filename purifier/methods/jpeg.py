"""JPEG compression and decompression.

Dziugaite et al., "A study of the effect of JPG compression on adversarial images", 2016
(https://arxiv.org/abs/1608.00853); Guo et al., "Countering Adversarial Images using Input Transformations", ICLR 2018
(https://arxiv.org/abs/1711.00117). The codec is Pillow's (libjpeg), on the CPU.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from purifier._opening import MOST_PIXELS, opened
from purifier._options import check_integer
from purifier.methods._base import Method, Stage


def _round_trip(images: Tensor, quality: int) -> Tensor:
    from PIL import Image

    pixels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    out = np.empty_like(pixels)
    for i, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with opened(file.getvalue(), max_pixels=MOST_PIXELS) as decoded:
            out[i] = np.asarray(decoded)
    return (torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255).to(images)


# A custom operator, so that compiled graphs call the codec without tracing it.
_codec = torch.library.custom_op(
    "purifier::jpeg", _round_trip, mutates_args=(), schema="(Tensor images, int quality) -> Tensor"
)
_codec.register_fake(lambda images, quality: torch.empty_like(images, memory_format=torch.contiguous_format))
# The exact derivative, which is zero almost everywhere.
_codec.register_autograd(lambda ctx, gradient: (torch.zeros_like(gradient), None))


class JPEG(Method):
    """Encodes to 8-bit JPEG and decodes. The exact gradient is zero, so an honest attack needs BPDA.

    Args:
        quality: libjpeg's quality, 1 .. 100.
    """

    differentiable = False
    tunable = ("quality",)
    export_obstacle = "its codec is Pillow's"

    def __init__(self, *, quality: int = 90) -> None:
        super().__init__()
        self.quality = check_integer("quality", quality, low=1, high=100)

    @property
    def options(self) -> dict[str, Any]:
        return {"quality": self.quality}

    def stages(self) -> list[Stage]:
        # Blocks with subsampled colour are 16 x 16, and decoding smooths the colour across block borders.
        return [Stage(self._code, halo=16, align=16)]

    def _code(self, images: Tensor) -> Tensor:
        out: Tensor = _codec(images, self.quality)
        return out
