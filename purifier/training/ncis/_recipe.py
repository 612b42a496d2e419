"""The NCIS recipe: reproduce clean crops with a blind-spot network plus a Gaussian pass (eq. 7 and 10)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from purifier._errors import OptionError
from purifier._options import check_integer
from purifier.methods.ncis import NCIS
from purifier.training._loop import Losses
from purifier.training._photographs import crops_and_validation
from purifier.training._trained import load_trained
from purifier.training._unrolled import Unrolled
from purifier.training._validation import Validation, psnr
from purifier.training.ncis._config import NCISTraining


class NCISRecipe:
    """What the loop needs to train NCIS: the model, the crops, the loss and the validation."""

    critic = None

    def __init__(self, config: NCISTraining) -> None:
        torch.manual_seed(config.seed)
        method = NCIS(
            iterations=check_integer("iterations", config.iterations, low=1),
            patch=config.patch,
            filters=config.filters,
            layers=config.layers,
            kernel_size=config.kernel_size,
            clamp=config.clamp,
        )
        if config.init_share and not config.init:
            raise OptionError(f"expected init beside init_share={config.init_share}, got none; name what to start from")
        if config.init:
            load_trained(method, config.init)
        self.model = Unrolled(method, config.unroll)
        self.crops, validation = crops_and_validation(config)
        self._validation = Validation(validation, count=config.validation_images, seed=config.seed)

    def to(self, device: torch.device) -> None:
        """Nothing but the model has to move."""

    def losses(self, model: Callable[[Tensor], list[Tensor]], batch: Tensor, step: int) -> Losses:
        """Mean squared error of F(x), F(F(x)), ... against the clean crops (eq. 7)."""
        outputs = model(batch)
        return Losses(torch.stack([(output.float() - batch).square().mean() for output in outputs]).mean())

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out images (see `Validation.figures`) at the purifier's own number of iterations, and the
        PSNR in dB of one application of F on clean images, "psnr_once".
        """
        method: NCIS = model.method  # type: ignore[assignment]
        device = next(method.parameters()).device
        clean = self._validation.clean
        with torch.inference_mode():
            once = torch.cat([method.step(batch.to(device)).cpu() for batch in clean.split(16)])
        return {"psnr_once": psnr(once, clean), **self._validation.figures(method, device)}

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows: clean, clean purified, attacked by PGD, attacked purified."""
        method: NCIS = model.method  # type: ignore[assignment]
        return self._validation.samples(method, next(method.parameters()).device)
