"""The NCIS recipe: reproduce clean crops with a blind-spot network plus a Gaussian pass (eq. 7 and 10)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from purifier._errors import OptionError
from purifier._purifier import Purifier
from purifier._reference import reference_model
from purifier.attacks import PGD
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
            before = outputs[-1].clamp(0, 1) if self.method.clamp else outputs[-1]
            outputs.append(self.method.reconstruct(before))
        return outputs


class NCISRecipe:
    """What the loop needs to train NCIS: the model, the crops, the loss and the validation."""

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
        if config.init_share and not config.init:
            raise OptionError(f"expected init beside init_share={config.init_share}, got none; name what to start from")
        if config.init:
            method.load_state_dict(Purifier.from_pretrained(config.init).method.state_dict())
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
        self._clean = torch.stack([_square(to_tensor(read_rgb(p))) for p in validation[::stride]])
        self._clean = self._clean[: config.validation_images]
        self._classifier = reference_model("demo").requires_grad_(False)
        self._predicted = self._classifier(self._clean).argmax(1)
        pgd = PGD(eps=16 / 255, alpha=1.6 / 255, steps=10, generator=torch.Generator().manual_seed(config.seed))
        self._attacked = pgd(self._classifier, self._clean, self._predicted)

    def loss(self, model: Callable[[Tensor], list[Tensor]], batch: Tensor) -> Tensor:
        """Mean squared error of F(x), F(F(x)), ... against the clean crops (eq. 7)."""
        outputs = model(batch)
        return torch.stack([(output.float() - batch).square().mean() for output in outputs]).mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out images.

        Returns:
            PSNR in dB of one application of F on clean images; and at the purifier's own number of iterations, the
            PSNR on clean images and the purification success rates on clean images and on images attacked by PGD
            (eps 16/255, 10 steps) against the demo classifier.
        """
        method: NCIS = model.method  # type: ignore[assignment]
        device = next(method.parameters()).device
        with torch.inference_mode():
            once = _in_batches(method.step, self._clean, device)
            clean = _in_batches(method, self._clean, device)
            attacked = _in_batches(method, self._attacked, device)
            return {
                "psnr_once": _psnr(once, self._clean),
                "psnr": _psnr(clean, self._clean),
                "psr_clean": self._success_rate(clean),
                "psr_attacked": self._success_rate(attacked),
            }

    def _success_rate(self, purified: Tensor) -> float:
        """Share of images that are classified as the undefended model classifies the clean image."""
        return (self._classifier(purified).argmax(1) == self._predicted).float().mean().item()


def _square(image: Tensor, side: int = 128) -> Tensor:
    """Shrinks to a short side of `side` and cuts out the centre square."""
    factor = side / min(image.shape[1:])
    size = [max(side, round(length * factor)) for length in image.shape[1:]]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = (small.shape[1] - side) // 2, (small.shape[2] - side) // 2
    return small[:, top : top + side, left : left + side]


def _in_batches(apply: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, size: int = 16) -> Tensor:
    return torch.cat([apply(batch.to(device)).cpu() for batch in images.split(size)])


def _psnr(images: Tensor, truth: Tensor) -> float:
    errors = (images - truth).square().flatten(1).mean(1).clamp_min(1e-10)
    return (-10 * errors.log10()).mean().item()
