"""Certified accuracy: how many images a smoothed classifier gets right with a certificate of at least a radius.

Cohen, Rosenfeld & Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, section 4,
https://arxiv.org/abs/1902.02918. An abstention counts as an error. No attack is involved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from purifier._errors import InputError, OptionError, shown
from purifier._options import check_fields, check_integer
from purifier._random import seed_of
from purifier._records import Records
from purifier.data.sets import ImageSet, LabelledImages
from purifier.evaluation.metrics.classification import interval
from purifier.evaluation.plan import UNDEFENDED
from purifier.evaluation.rows import Interval
from purifier.smoothing import Smoothed, lower_bound
from purifier.smoothing.binomial import certified_radius, check_alpha, check_sigma

# L2 norms in units of the [0, 1] range.
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Certification:
    """How images are certified; `purifier.smoothing.Smoothed` describes the options.

    Attributes:
        sigma: Standard deviation of the noise, in units of the [0, 1] range.
        draws: Number of draws that bound the probability of the class.
        first_draws: Number of draws that choose the class.
        alpha: Chance that a certificate is wrong.

    Raises:
        OptionError: If an option is out of its range.
    """

    sigma: float
    draws: int = 1000
    first_draws: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("draws", "first_draws"):
            check_integer(name, getattr(self, name), low=1, high=10_000_000)
        check_alpha(self.alpha)
        check_sigma(self.sigma)

    @property
    def largest_radius(self) -> float:
        """The radius if all draws hit. No certificate has a larger one."""
        return certified_radius(lower_bound(self.draws, self.draws, self.alpha), self.sigma)


@dataclass(frozen=True, kw_only=True)
class CertifiedRow:
    """The certified accuracy behind one denoiser.

    Attributes:
        purifier: Name of the denoiser; "none" for the bare model.
        certification: How the images were certified.
        images: Number of images (n).
        certified: For each of `RADII`, the number of images that are right with at least that radius.
        abstained: Number of images without a certificate.
    """

    purifier: str
    certification: Certification
    images: int
    certified: tuple[int, ...]
    abstained: int

    @property
    def accuracies(self) -> list[tuple[float, Interval]]:
        """For each of `RADII`, the certified accuracy with its 95 % interval over the choice of images."""
        return [(count / self.images, interval(count, self.images)) for count in self.certified]

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields and the accuracies, ready for JSON."""
        found = [
            {"radius": radius, "share": share, "interval": list(within)}
            for radius, (share, within) in zip(RADII, self.accuracies, strict=True)
        ]
        return {**asdict(self), "threat": "certified", "norm": "L2", "accuracies": found}


def check_certifications(given: Any, data: ImageSet) -> None:
    """Checks that certifications are given by name, and for a classifier.

    Raises:
        OptionError: If they are something else.
        InputError: If the data have no labels of images.
    """
    if not isinstance(given, Mapping) or not all(isinstance(one, Certification) for one in given.values()):
        raise OptionError(f"expected certifications as a dict from names to Certification, got {shown(given)}")
    if given and not isinstance(data, LabelledImages):
        raise InputError(f"expected labelled images to certify, got {type(data).__name__}; only classifiers can be")


@dataclass(frozen=True)
class Certifier:
    """Certifies the images of an evaluation.

    Attributes:
        model: The bare model as a function of images in [0, 1].
        purifiers: The denoisers by name.
        data: Images and labels.
        device: Where the images go.
        seed: Seed of the evaluation.
    """

    model: Callable[..., Any]
    purifiers: Mapping[str, Any]
    data: ImageSet
    device: torch.device
    seed: int

    def __call__(
        self, name: str, certification: Certification, records: Records, progress: Callable[[int], object]
    ) -> CertifiedRow:
        """Certifies what the records lack. The draws of an image depend on the seed and its number only.

        Raises:
            InputError: If the model is no classifier.
        """
        denoiser = None if name == UNDEFENDED else self.purifiers[name]
        for index in range(len(self.data)):
            if index not in records.by_index:
                records.add([self._certified(denoiser, certification, index)])
            progress(1)
        found = [records.by_index[index] for index in range(len(self.data))]
        right = [one["radius"] for one in found if one["label"] is not None and one["label"] == one["true"]]
        return CertifiedRow(
            purifier=name,
            certification=certification,
            images=len(found),
            certified=tuple(sum(radius >= least for radius in right) for least in RADII),
            abstained=sum(one["label"] is None for one in found),
        )

    def _certified(self, denoiser: Any, options: Certification, index: int) -> dict[str, Any]:
        images, targets = self.data.load([index])
        generator = torch.Generator().manual_seed(seed_of(self.seed, "certified", index, f"{options.sigma}"))
        smoothed = Smoothed(self.model, denoiser, sigma=options.sigma, generator=generator)
        found = smoothed.certify(
            images[0].to(self.device), first_draws=options.first_draws, draws=options.draws, alpha=options.alpha
        )
        return {"index": index, "true": int(targets[0]), "label": found.label, "radius": found.radius}
