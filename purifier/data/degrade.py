"""What happens to pictures without an attacker: sharpening, noise, compression."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

# The strongest of each; half the pictures have each of them.
_SHARPEN_PERCENT, _NOISE_LEVELS, _LOWEST_QUALITY = 150, 3.0, 40


def varied(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns a picture (H, W, 3) uint8 as a camera, an editor or a service might have left it, of the same shape.

    An unsharp mask, Gaussian noise of up to 3 of 255 levels, grey in half the cases, and a JPEG of quality 40 to 95,
    each for half of the pictures, in this order, and of a strength of its own.
    """
    if random.random() < 0.5:
        radius, percent = random.uniform(0.5, 1.5), int(random.integers(20, _SHARPEN_PERCENT + 1))
        sharp = Image.fromarray(pixels).filter(ImageFilter.UnsharpMask(radius, percent, threshold=0))
        pixels = np.asarray(sharp)
    if random.random() < 0.5:
        # What cameras leave of their noise is mostly grey.
        channels = 1 if random.random() < 0.5 else pixels.shape[2]
        noise = random.normal(0.0, random.uniform(0.0, _NOISE_LEVELS), (*pixels.shape[:2], channels))
        pixels = (pixels + noise).round().clip(0, 255).astype(np.uint8)
    if random.random() < 0.5:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(random.integers(_LOWEST_QUALITY, 96)))
        pixels = np.asarray(Image.open(file))
    return pixels
