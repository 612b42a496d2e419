"""Certified predictions by randomised smoothing, of a classifier behind a denoiser.

Cohen, Rosenfeld & Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
https://arxiv.org/abs/1902.02918 (`predict` and `certify` are its Figure 1), and Salman et al., "Denoised Smoothing: A
Provable Defense for Pretrained Classifiers", NeurIPS 2020, https://arxiv.org/abs/2003.01908.

The smoothed classifier predicts the class that the classifier most often predicts for the image with Gaussian noise. If
that class has a probability of more than 1/2, no perturbation of an L2 norm below the radius changes it, whatever the
attacker knows. The probability is estimated from random draws, so each certificate is wrong with a chance of at most
`alpha`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purifier._attaching import as_purified_model
from purifier._errors import InputError, OptionError
from purifier._input import check_form, check_range
from purifier._options import check_generator, check_integer, check_number
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier
from purifier._wrapping import convention_of, load_for
from purifier.models.layers import check_eval
from purifier.smoothing.binomial import (
    abstains,
    certified_radius,
    check_alpha,
    check_sigma,
    lower_bound,
    reaches_half,
)
from purifier.smoothing.votes import voted

# The label of a prediction that the draws do not support.
ABSTAIN = -1


@dataclass(frozen=True)
class Certificate:
    """What is certain of one image.

    Attributes:
        label: The class, or None for an abstention.
        radius: L2 norm, in units of the [0, 1] range, below which no perturbation changes the class; 0 for an
            abstention.
        lower: Lower bound of the probability of the class under the noise.
        draws: Number of draws that the bound is computed from.
    """

    label: int | None
    radius: float
    lower: float
    draws: int


class Smoothed:
    """A classifier that is smoothed by Gaussian noise, with a denoiser in front of it.

    Neither the model nor the denoiser is changed. Gradients do not flow; an attack on the smoothed classifier needs
    `logits` on noisy images of its own.

    Args:
        model: A classifier in eval mode: a module or a function that returns logits (N, K), or an object with them as
            `.logits`. A purifier in front of it, wrapped or attached, is part of the classifier: it comes after the
            denoiser, and the images are fed as that wrapper takes them.
        denoiser: A name, folder or hub repository for `Purifier.from_pretrained`, or a purifier, that was trained for
            Gaussian noise of this sigma. None means that the model itself was.
        sigma: Standard deviation of the noise, in units of the [0, 1] range. A larger one gives larger radii and fewer
            correct predictions.
        mean: Mean of each channel of the normalisation that the model expects, as for `purifier.wrap`. A model that has
            a purifier states it there.
        std: Standard deviation of each channel, likewise.
        batch_size: Largest number of noisy images in one call of the model.
        generator: Source of the noise. None means torch's global generator.

    Raises:
        OptionError: If an option is out of its range, or there are mean and std for a model that has a purifier.
        UnknownNameError: If no purifier has that name.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)).eval()
        >>> smoothed = Smoothed(model, "gs", sigma=0.25, generator=torch.Generator().manual_seed(0))
        >>> smoothed.certify(torch.rand(3, 8, 8), first_draws=10, draws=50).draws <= 50
        True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        denoiser: str | os.PathLike[str] | Purifier | None = None,
        *,
        sigma: float,
        mean: Any = None,
        std: Any = None,
        batch_size: int = 100,
        generator: torch.Generator | None = None,
    ) -> None:
        self.sigma = check_sigma(sigma)
        if not callable(model):
            raise OptionError(f"expected a model that maps images to logits, got {type(model).__name__}")
        self.model, self.generator = model, check_generator(generator)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        defended = as_purified_model(model)
        self._purifier = None if defended is None else defended.purifier
        if defended is None:
            stated = convention_of(model, None, mean, std, None)
            defended = PurifiedModel(model, torch.nn.Identity(), **stated)
        elif mean is not None or std is not None:
            raise OptionError(
                f"expected no mean and std for a model that has a purifier, which states how its images are fed, got "
                f"mean={mean}, std={std}; give them to wrap() or attach()"
            )
        self._bare, self._convention = defended.model, defended.convention
        self.denoiser = None if denoiser is None else load_for(self._bare, denoiser, {})

    def logits(self, noisy: Tensor) -> Tensor:
        """Denoises images and classifies them: the base classifier of the smoothing. Gradients flow.

        Args:
            noisy: Images (N, 3, H, W), float, with noise; they may leave [0, 1].

        Returns:
            Logits (N, K).

        Raises:
            InputError: If the model does not return such logits.
        """
        images = noisy
        for purifier in (self.denoiser, self._purifier):
            images = images if purifier is None else purifier.purify(images)
        found = self._bare(self._convention.from_unit(images, noisy))
        logits = getattr(found, "logits", found)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(noisy) or logits.shape[1] < 2:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"expected logits ({len(noisy)}, classes) from the model, got {got}; only classifiers can be smoothed"
            )
        return logits

    def predict(self, images: Tensor, *, draws: int = 100, alpha: float = 0.001) -> Tensor:
        """Predicts the class of each image; the prediction is not that of the smoothed classifier with chance `alpha`.

        Args:
            images: (N, 3, H, W) or (3, H, W), RGB, float, in [0, 1].
            draws: Number of noisy copies of each image.
            alpha: Chance of an error, in (0, 1).

        Returns:
            Labels (N,), or a label (), on the CPU; `ABSTAIN` where the draws do not show which class is likelier.

        Raises:
            InputError: If images or model do not suit.
            OptionError: If an option is out of its range.
        """
        check_integer("draws", draws, low=1)
        check_alpha(alpha)
        batch = self._checked(images)
        labels = [_predicted(self.counts(image, draws), alpha) for image in batch]
        found = torch.tensor(labels, dtype=torch.long)
        return found[0] if images.ndim == 3 else found

    def certify(
        self,
        image: Tensor,
        *,
        first_draws: int = 100,
        draws: int = 1000,
        alpha: float = 0.001,
        enough: float | None = None,
        looks: int = 1,
    ) -> Certificate:
        """Certifies the class of one image.

        It stops early if the draws that are left cannot lead to a certificate any more.

        Args:
            image: (3, H, W), RGB, float, in [0, 1].
            first_draws: Number of draws that choose the class (n0 in the paper).
            draws: Number of further draws that bound its probability (n). The largest radius is that of all of them
                hitting: 2.5 sigma for 1,000 draws at alpha = 0.001, 3.8 sigma for 100,000.
            alpha: Chance that the certificate is wrong, in (0, 1).
            enough: Radius at which to stop early; None means never.
            looks: How often, evenly spaced, the draws are looked at for `enough`. Each look uses alpha / looks, so that
                the certificate stays right.

        Raises:
            InputError: If image or model do not suit.
            OptionError: If an option is out of its range.
        """
        for name, value in (("first_draws", first_draws), ("draws", draws), ("looks", looks)):
            check_integer(name, value, low=1)
        check_alpha(alpha)
        if enough is not None:
            check_number("enough", enough, low=0, high=1e6)
        (image,) = self._checked(_single(image))
        label = int(self.counts(image, first_draws).argmax())
        share = alpha / looks
        stops = sorted({draws * (look + 1) // looks for look in range(looks)} - {0})
        done = hits = 0
        for stop in stops:
            while done < stop:
                size = min(self.batch_size, stop - done)
                hits, done = hits + int(self.counts(image, size)[label]), done + size
                if not reaches_half(hits + draws - done, draws, share):
                    return Certificate(None, 0.0, lower_bound(hits, done, share), done)
            lower = lower_bound(hits, done, share)
            if enough is not None and self.radius(lower) >= enough:
                break
        radius = self.radius(lower)
        return Certificate(label if radius > 0 else None, radius, lower, done)

    def radius(self, lower: float) -> float:
        """Returns the radius that follows from a lower bound of a class's probability; 0 up to 1/2."""
        return certified_radius(lower, self.sigma)

    @torch.no_grad()
    def counts(self, image: Tensor, draws: int) -> Tensor:
        """Returns how often each class (K,) is predicted for an image (3, H, W) with noise, on the CPU.

        Raises:
            InputError: If the model does not return such logits, or one that is NaN.
        """
        total: Tensor | None = None
        for start in range(0, draws, self.batch_size):
            size = min(self.batch_size, draws - start)
            logits = self.logits(image + self.sigma * self._noise(image, size))
            found = voted(logits).cpu().bincount(minlength=logits.shape[1])
            total = found if total is None else total + found
        assert total is not None
        return total

    def _noise(self, image: Tensor, size: int) -> Tensor:
        device = image.device if self.generator is None else self.generator.device
        shape = (size, *image.shape)
        return torch.randn(shape, generator=self.generator, device=device, dtype=image.dtype).to(image.device)

    def _checked(self, images: Tensor) -> Tensor:
        check_form(images)
        check_range(images, "certificates hold for images in [0, 1]; give the mean and std of the model to Smoothed")
        check_eval(self.model)
        if images.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"expected images in single or double precision, got {images.dtype}; convert with .float()"
            )
        return images if images.ndim == 4 else images[None]


def _single(image: Tensor) -> Tensor:
    if isinstance(image, Tensor) and image.ndim != 3:
        raise InputError(f"expected one image (3, H, W) to certify, got shape {tuple(image.shape)}; certify one by one")
    return image


def _predicted(counts: Tensor, alpha: float) -> int:
    (first, second), (label, _) = (values.tolist() for values in counts.topk(2))
    return ABSTAIN if abstains(first, second, alpha) else label
