"""SSP: self-supervised perturbation. It distorts the features of a network and needs neither labels nor the model.

Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020, Algorithm 1 (eq. 1 to 4),
https://arxiv.org/abs/2006.04924.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError
from purifier._options import check_integer
from purifier.attacks._balls import Norm, ascend, project, random_start
from purifier.attacks._progress import progress_bar
from purifier.attacks.base import COMPUTED, Attack, Model, check_eps, input_gradient
from purifier.models.features import vgg16_features

Distance = Literal["mae", "squared"]
Features = Callable[[Tensor], Tensor]


@dataclass(kw_only=True, eq=False, repr=False)
class SSP(Attack):
    """Self-supervised perturbation: moves the features of images as far as possible from those of the clean images.

    The result does not depend on the model and the targets: call `attack(None, images, None)`.

    Args:
        features: Map of images (N, 3, H, W) in [0, 1] to features (N, ...), such as `features_at(network, "layer3")`.
            None means torchvision's VGG16 up to conv3_3 after its ReLU, as in the paper; its weights are read from
            torch's hub cache, or downloaded once (528 MB).
        eps: Radius of the Linf ball, in units of the [0, 1] image range (8/255 or 16/255 in the paper).
        alpha: Step size, in the same units. None means eps / 4; the paper states none.
        steps: Number of gradient steps; up to 100 in the paper.
        distance: "mae" (mean absolute error) or "squared" (mean squared error) between features.
        noise: Radius of the uniform noise at the start (R in the paper) as a share of eps, in (0, 1]. 0 is impossible,
            because the distance has no gradient at the clean images.
        generator: Source of randomness. None means torch's global generator.

    Raises:
        OptionError: If an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16)
        >>> attacks.SSP(attacks.features_at(network, "1"), steps=5)(None, images, None).shape
        torch.Size([2, 3, 16, 16])
    """

    features: Features | None = field(default=None, kw_only=False)
    eps: float = 16 / 255
    alpha: float = COMPUTED
    norm: Norm = field(default="Linf", init=False)
    steps: int = 100
    distance: Distance = "mae"
    noise: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.features is not None and not callable(self.features):
            raise OptionError(
                f"expected features as a function of images, got {type(self.features).__name__}; for a layer of a "
                'network pass features_at(network, "layer3")'
            )
        super().__post_init__()
        if not isinstance(self.distance, str) or self.distance not in get_args(Distance):
            raise OptionError(f"expected distance='mae' or distance='squared', got {self.distance!r}")
        check_eps(self.eps, self.norm)
        # Of eps / 4, / 8 and / 16, the largest goes farthest in 10 steps, and all go equally far in 40.
        self.alpha = self.eps / 4 if self.alpha is None else self.alpha
        check_eps(self.alpha, self.norm, "alpha")
        if not 0 < self.noise <= 1:
            raise OptionError(f"expected noise in (0, 1], got {self.noise}")
        check_integer("steps", self.steps, low=0)

    def __call__(self, model: Model | None, images: Any, targets: Any) -> Any:
        """Returns adversarial images, detached: a tensor for a tensor, a list for a list.

        Args:
            model: Not used; may be None.
            images: (N, 3, H, W), or for detectors a list of (3, H, W) of any sizes; float32 or float64, in [0, 1].
            targets: Not used; may be None.

        Raises:
            InputError: If the images are of another kind, or `features` does not return one tensor.
        """
        model = nn.Identity() if model is None else model
        if isinstance(images, Tensor):
            return super().__call__(model, images, targets)
        if not isinstance(images, list | tuple):
            raise InputError(f"expected images (N, 3, H, W) or a list of (3, H, W), got {type(images).__name__}")
        return [super(SSP, self).__call__(model, image[None], targets)[0] for image in images]

    def _check(self, model: Any, images: Tensor) -> None:
        # The attacked model is not used, so only the mode of the feature network matters.
        super()._check(self.features or nn.Identity(), images)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        extract = vgg16_features(images.device, images.dtype) if self.features is None else self.features
        clean = _checked(extract(images), images)
        moved = (images + random_start(images, self.noise * self.eps, self.norm, self.generator)).clamp(0, 1)
        with progress_bar(self.name, self.steps) as bar:
            for _ in range(self.steps):
                with torch.enable_grad():
                    moved = moved.detach().requires_grad_(True)
                    distances = self._distances(extract(moved), clean)
                step = ascend(input_gradient(distances, moved), self.alpha, self.norm)
                moved = (images + project(moved.detach() + step - images, self.eps, self.norm)).clamp(0, 1)
                bar.update()
        return moved

    def _distances(self, features: Tensor, clean: Tensor) -> Tensor:
        """Distance of each image's features, (N,): eq. 1."""
        difference = (features - clean).flatten(1)
        return (difference.abs() if self.distance == "mae" else difference.square()).mean(1)


def _checked(features: Any, images: Tensor) -> Tensor:
    if not isinstance(features, Tensor) or features.shape[:1] != images.shape[:1]:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"expected features as one tensor ({len(images)}, ...), got {got}; choose a layer with features_at"
        )
    return features
