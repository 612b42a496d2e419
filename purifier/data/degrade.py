"""Changes that images undergo without an attacker: sharpening, noise, compression."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from purifier._opening import MOST_PIXELS, opened

# The strongest sharpening, noise (standard deviation in 1/255) and compression.
_SHARPEN_PERCENT, _NOISE_LEVELS, _LOWEST_QUALITY = 150, 3.0, 40


def degraded(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns pixels (H, W, 3), uint8, degraded as by a camera, an editor or a web service; shape and dtype stay.

    Three changes follow each other: an unsharp mask, Gaussian noise of a standard deviation of up to 3/255 (equal in
    all channels in half of the cases), and JPEG of quality 40 to 95. Each has a probability of one half and a random
    strength.
    """
    if random.random() < 0.5:
        radius, percent = random.uniform(0.5, 1.5), int(random.integers(20, _SHARPEN_PERCENT + 1))
        sharp = Image.fromarray(pixels).filter(ImageFilter.UnsharpMask(radius, percent, threshold=0))
        pixels = np.asarray(sharp)
    if random.random() < 0.5:
        # The noise of camera images is mostly equal in all channels.
        channels = 1 if random.random() < 0.5 else pixels.shape[2]
        noise = random.normal(0.0, random.uniform(0.0, _NOISE_LEVELS), (*pixels.shape[:2], channels))
        pixels = (pixels + noise).round().clip(0, 255).astype(np.uint8)
    if random.random() < 0.5:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(random.integers(_LOWEST_QUALITY, 96)))
        with opened(file.getvalue(), max_pixels=MOST_PIXELS) as decoded:
            pixels = np.asarray(decoded)
    return pixels
