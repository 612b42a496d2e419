"""Training of NCIS: a blind-spot network plus a Gaussian pass learns to reproduce clean images (eq. 7 and 10).

Cha et al., "NCIS: Neural Contextual Iterative Smoothing for Purifying Adversarial Perturbations", WACV 2024,
https://arxiv.org/abs/2106.11644.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from purifier._errors import OptionError
from purifier._options import check_integer
from purifier._purifier import Purifier
from purifier.methods.ncis import NCIS
from purifier.training.initial import load_trained
from purifier.training.loop import Fitted, Losses, train_purifier
from purifier.training.outputs import training_card
from purifier.training.settings import PhotographTraining
from purifier.training.validation import PhotographRecipe, method_of, psnr

__all__ = ["NCISRecipe", "NCISTraining", "train"]


@dataclass(frozen=True, kw_only=True)
class NCISTraining(PhotographTraining):
    """Settings of the NCIS training, in addition to those of every training on photographs.

    Attributes:
        init: Name or folder of a trained ncis to start from; "" starts from random weights.
        init_share: Share of the starting weights in the finished ones, which are their weighted mean with the trained
            weights (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022,
            https://arxiv.org/abs/2109.01903); 0 keeps the trained ones.
        unroll: Number of iterations that are trained together; the loss is their mean (the paper: 1).
        patch: Side in pixels of the patches that the blind-spot network predicts (m of FBI-E).
        kernel_size: Side in pixels of the Gaussian kernel (K); 0 leaves the Gaussian pass out.
        filters: Width of the blind-spot network (FBI-Net).
        layers: Depth of that network.
        clamp: Whether each iteration ends with a clamp to [0, 1].
        iterations: Default number i of iterations of the finished purifier.
    """

    init: str = ""
    init_share: float = 0.0
    unroll: int = 1
    patch: int = 2
    kernel_size: int = 11
    filters: int = 64
    layers: int = 8
    clamp: bool = True
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("iterations", self.iterations, low=1)
        check_integer("unroll", self.unroll, low=1)
        if self.init_share and not self.init:
            raise OptionError(f"expected init beside init_share={self.init_share}, got none; name what to start from")


class NCISRecipe(PhotographRecipe):
    """The model, crops, loss and validation of the NCIS training.

    Raises:
        InputError: If there are no images.
        OptionError: If `init` does not fit the network.
    """

    def __init__(self, config: NCISTraining) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        method = NCIS(
            iterations=config.iterations,
            patch=config.patch,
            filters=config.filters,
            layers=config.layers,
            kernel_size=config.kernel_size,
            clamp=config.clamp,
        )
        if config.init:
            load_trained(method, config.init)
        self._start = copy.deepcopy(method.state_dict())
        self.model = Unrolled(method, config.unroll)
        super().__init__(config)

    def losses(self, model: Callable[[Tensor], list[Tensor]], batch: Tensor, step: int) -> Losses:
        """Mean squared error of F(x), F(F(x)), ... to the clean crops (eq. 7)."""
        outputs = model(batch)
        return Losses(torch.stack([(output.float() - batch).square().mean() for output in outputs]).mean())

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measures the purifier with its own number of iterations; see `Validation.figures`.

        Returns:
            These figures, and "psnr_once", the PSNR in dB of one application of F to clean images.
        """
        method, clean = cast(NCIS, method_of(model)), self._validation.clean
        device = next(method.parameters()).device
        with torch.inference_mode():
            once = torch.cat([method.step(batch.to(device)).cpu() for batch in clean.split(16)])
        return {"psnr_once": psnr(once, clean), **super().validate(model)}

    def purifier(self, fitted: Fitted) -> Purifier:
        """Makes the trained purifier: the mean of starting and trained weights by `init_share`, with its model card."""
        config, method = self.config, method_of(fitted.model).cpu()
        for key, value in method.state_dict().items():
            value.lerp_(self._start[key], config.init_share)
        text = (
            "NCIS ([Cha et al., WACV 2024](https://arxiv.org/abs/2106.11644)), trained with `purifier train ncis`: "
            f"{fitted.step} of {config.steps} steps; validated at {config.iterations} iterations."
        )
        return Purifier(method, name="ncis", card=training_card("ncis", "ncis", text, config, fitted.history))


class Unrolled(nn.Module):
    """The model as the loop trains it: one call runs all trained applications, as DDP expects one forward pass.

    Args:
        method: The network.
        unroll: Number of applications.
    """

    def __init__(self, method: NCIS, unroll: int) -> None:
        super().__init__()
        self.method = method
        self.unroll = unroll

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) to the output of each application, not clamped."""
        outputs = [self.method.reconstruct(images)]
        for _ in range(self.unroll - 1):
            before = outputs[-1].clamp(0, 1) if self.method.clamp else outputs[-1]
            outputs.append(self.method.reconstruct(before))
        return outputs


def train(config: NCISTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains NCIS and writes the purifier to `out / "ncis"`; see `purifier.training.loop.train_purifier`.

    `config.data` names at least one folder of images; the arguments are those of `train_purifier`.

    Raises:
        InputError: If there are no images.
        OptionError: If settings do not fit together, or `out` holds a run with other settings.
    """
    return train_purifier(lambda: NCISRecipe(config), config, out, minutes=minutes)
