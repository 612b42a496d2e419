"""The NCIS recipe: reproduce clean crops with a blind-spot network plus a Gaussian pass (eq. 7 and 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from purifier.methods.ncis import NCIS
from purifier.training._data import RandomCrops, list_images, read_rgb, split_validation, to_tensor
from purifier.training.ncis._config import NCISTraining


class _Unrolled(nn.Module):
    """The model as the loop trains it: one call runs every trained application, so DDP sees a single forward."""

    def __init__(self, method: NCIS, unroll: int) -> None:
        super().__init__()
        self.method = method
        self.unroll = unroll

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = [self.method.reconstruct(images)]
        for _ in range(self.unroll - 1):
            outputs.append(self.method.reconstruct(outputs[-1].clamp(0, 1) if self.method.clamp else outputs[-1]))
        return outputs


class NCISRecipe:
    """What the loop needs to train NCIS."""

    def __init__(self, config: NCISTraining) -> None:
        torch.manual_seed(config.seed)
        method = NCIS(
            iterations=config.iterations,
            patch=config.patch,
            filters=config.filters,
            layers=config.layers,
            kernel_size=config.kernel_size,
            clamp=config.clamp,
        )
        self.model = _Unrolled(method, config.unroll)
        training, validation = split_validation(list_images(config.data), config.validation_every)
        self.crops = RandomCrops(
            training,
            crop_size=config.crop_size,
            length=config.steps * config.batch_size,
            seed=config.seed,
            shrink=config.shrink,
        )
        stride = max(1, len(validation) // config.validation_images)
        self._validation = validation[::stride][: config.validation_images]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean squared error of F(x), F(F(x)), ... against the clean crops."""
        outputs = model(batch)
        return torch.stack([(output.float() - batch).square().mean() for output in outputs]).mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR in dB of one and of three applications on held-out clean images."""
        method: NCIS = model.method  # type: ignore[assignment]
        device = next(method.parameters()).device
        errors = []
        with torch.inference_mode():
            for path in self._validation:
                image = to_tensor(read_rgb(path))[None].to(device)
                once = method.step(image)
                thrice = method.step(method.step(once))
                errors.append([(once - image).square().mean(), (thrice - image).square().mean()])
        psnr = -10 * torch.tensor(errors).log10().mean(0)
        return {"psnr_1": psnr[0].item(), "psnr_3": psnr[1].item()}
