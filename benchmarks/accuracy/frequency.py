"""How maps from images to images treat frequencies: gain, growth, spectra. Frequencies are in cycles a pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]

# Amplitude of the sinusoids. Images are clamped so that adding one stays in [0, 1].
AMPLITUDE = 2 / 255
# Angle between the x axis and the direction in which a sinusoid varies.
ANGLES = {"horizontal": 0.0, "vertical": math.pi / 2, "diagonal": math.pi / 4}
# Bands of the distance of a frequency from 0, from low to high.
BANDS = {
    "below 1/32": (0.0, 1 / 32),
    "1/32 to 1/8": (1 / 32, 1 / 8),
    "1/8 to 1/4": (1 / 8, 1 / 4),
    "above 1/4": (1 / 4, 1.0),
}


def sinusoid(size: int, frequency: float, direction: str, channels: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Returns a cosine (3, size, size) of amplitude 1 in some channels, with a crest at the top left pixel."""
    angle = ANGLES[direction]
    return plane_wave(size, frequency * math.cos(angle), frequency * math.sin(angle), channels=channels)


def plane_wave(size: int, fx: float, fy: float, phase: float = 0.0, channels: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Returns cos(2 pi (fx x + fy y) + phase), (3, size, size), in some channels."""
    x = torch.arange(size, dtype=torch.float64)
    wave = torch.zeros(3, size, size)
    wave[list(channels)] = torch.cos(2 * math.pi * (fx * x + fy * x[:, None]) + phase).float()
    return wave


def iterates(apply: Apply, images: Tensor, count: int) -> list[Tensor]:
    """Returns the images after 0, 1, ..., `count` applications."""
    made = [images]
    for _ in range(count):
        made.append(apply(made[-1]))
    return made


def gains(
    apply: Apply, images: Tensor, waves: Mapping[str, Tensor], counts: Collection[int] = (1,)
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the response to each wave after some numbers of applications, by wave and number; see `response`."""
    images, most = images.clamp(AMPLITUDE, 1 - AMPLITUDE), max(counts)
    base = iterates(apply, images, most)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, wave in waves.items():
        moved = iterates(apply, images + AMPLITUDE * wave, most)
        found[name] = {str(count): response(moved[count] - base[count], wave) for count in counts}
    return found


def response(difference: Tensor, wave: Tensor) -> dict[str, float]:
    """Compares differences of outputs (N, 3, H, W) with the wave (3, H, W) that was added, times AMPLITUDE.

    Returns:
        "mean", "min" and "max", over the images, of the amplitude of that wave in the difference, as a share of the
        added one.
        "total", the mean over the images of the norm of the difference as a share of the norm of what was added.
    """
    same = (difference * wave).flatten(1).sum(1) / (AMPLITUDE * wave.square().sum())
    total = difference.flatten(1).norm(dim=1) / (AMPLITUDE * wave.norm())
    found = {"mean": same.mean().item(), "min": same.min().item(), "max": same.max().item()}
    return {**found, "total": total.mean().item()}


def drift(apply: Apply, images: Tensor, count: int) -> list[dict[str, float]]:
    """Returns how far 1, ..., `count` applications move images, in 1/255, in all and by band.

    "change" is the distance from the images, "last" that from the output of one application less.
    """
    made = iterates(apply, images, count)
    return [
        {"change": size(made[i] - images), "last": size(made[i] - made[i - 1]), **by_band(made[i] - images)}
        for i in range(1, count + 1)
    ]


def growth(apply: Apply, images: Tensor, rounds: int, border: int) -> dict[str, float]:
    """Finds the small perturbation that grows the most when it is passed on again and again, by power iteration.

    The images stay the same: round k adds what round k - 1 gave, scaled to the same norm.

    Returns:
        "mean" and "max", over the images, of the growth in one application (the geometric mean of the last four), and
        of what the last round added:

        - "cosine", the mean cosine of the angle between it and what came of it: -1 if the sign turns;
        - "fx" and "fy", the frequency of most energy, and "grey", the share of energy in the mean of the channels;
        - the shares of its energy by band, and "border", that in the outer `border` pixels.
    """
    length = images[0].numel() ** 0.5 / 255
    base, random = apply(images), torch.Generator().manual_seed(0)
    moved, factors = torch.randn(images.shape, generator=random), []
    for _ in range(rounds):
        added = moved * (length / _norm(moved))
        moved = apply(images + added) - base
        factors.append(_norm(moved).flatten() / length)
    mean = torch.stack(factors[-4:]).log().mean(0).exp()
    cosine = (added * moved).flatten(1).sum(1) / (length * _norm(moved).flatten())
    found = {"mean": mean.mean().item(), "max": mean.max().item(), "cosine": cosine.mean().item()}
    return {**found, **_look(added, border)}


def _look(images: Tensor, border: int) -> dict[str, float]:
    """Returns where the energy of images is: frequency, colour, bands and border; see `growth`."""
    power, _ = spectrum(images)
    rows, columns = (torch.fft.fftfreq(length).abs() for length in power.shape)
    row, column = divmod(int(power.argmax()), power.shape[1])
    total, grey = images.square().sum(), images.mean(1).square().sum() * images.shape[1]
    outer = 1 - images[..., border:-border, border:-border].square().sum() / total
    energy = {band: value**2 for band, value in by_band(images).items()}
    return {
        "fx": columns[column].item(),
        "fy": rows[row].item(),
        "grey": (grey / total).item(),
        **{band: value / sum(energy.values()) for band, value in energy.items()},
        "border": outer.item(),
    }


def _norm(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)[:, None, None, None]


def size(images: Tensor) -> float:
    """Returns the root mean square in 1/255."""
    return 255 * images.square().mean().sqrt().item()


def by_band(images: Tensor) -> dict[str, float]:
    """Returns the root mean square of images (N, C, H, W) in each band, in 1/255."""
    power, radius = spectrum(images)
    return {
        band: 255 * power[(radius >= low) & (radius < high)].sum().sqrt().item() for band, (low, high) in BANDS.items()
    }


def slope(images: Tensor) -> float:
    """Returns the exponent of a power law, power by frequency, fitted to the luminance between 1/32 and 1/2."""
    power, radius = spectrum(images.mean(1, keepdim=True))
    edges = torch.logspace(-5, -1, 9, base=2)
    means = [power[(radius >= low) & (radius < high)].mean() for low, high in pairwise(edges)]
    x, y = (edges[:-1] * edges[1:]).sqrt().log(), torch.stack(means).log()
    return (((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()


def spectrum(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean power by frequency, and the distance of each frequency from 0.

    Images are mirrored at their borders, which would otherwise count as edges. The power adds up to the mean square.
    """
    mirrored = torch.cat((images, images.flip(2)), 2)
    mirrored = torch.cat((mirrored, mirrored.flip(3)), 3)
    power = torch.fft.fft2(mirrored, norm="forward").abs().square().mean((0, 1))
    rows, columns = (torch.fft.fftfreq(length) for length in mirrored.shape[2:])
    return power, (rows[:, None].square() + columns.square()).sqrt()
