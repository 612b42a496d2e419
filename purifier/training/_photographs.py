"""What the trainings on photographs without labels share: their settings, and the crops made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from purifier._options import check_integer, check_number
from purifier.data.crops import RandomCrops, split_validation
from purifier.data.images import list_images
from purifier.training._loop import LoopConfig


@dataclass(frozen=True, kw_only=True)
class PhotographTraining(LoopConfig):
    """Settings of a training on crops of photographs, beside those of the loop.

    Attributes:
        data: Folders of images, read recursively.
        crop_size: Side of the random crops, in pixels.
        shrink: Smallest factor by which an image is shrunk at random before the crop.
        aliased: Share of the shrunk images that are shrunk without a filter against aliasing, as many services and
            data sets do; they are grainier for it.
        vary: Share of the crops that are sharpened, noisy or compressed at random, as pictures are without an attacker.
        validation_every: Each n-th file is kept out of training and validates.
        validation_images: Images that validate, at most.
    """

    data: tuple[str, ...] = ()
    crop_size: int = 96
    shrink: float = 1.0
    aliased: float = 0.0
    vary: float = 0.0
    validation_every: int = 20
    validation_images: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.data, str | Path):
            object.__setattr__(self, "data", (str(self.data),))


def crops_and_validation(config: PhotographTraining) -> tuple[RandomCrops, list[Path]]:
    """Returns the crops to train on, and the files that validate.

    Raises:
        InputError: Where there are no images, or none to train on.
        OptionError: Where every file would validate, or a setting is out of its range.
    """
    check_integer("crop_size", config.crop_size, low=1)
    check_number("shrink", config.shrink, low=0.01, high=1.0)
    check_number("aliased", config.aliased, low=0.0, high=1.0)
    check_number("vary", config.vary, low=0.0, high=1.0)
    training, validation = split_validation(list_images(config.data), config.validation_every)
    crops = RandomCrops(
        training,
        crop_size=config.crop_size,
        length=config.steps * config.batch_size,
        seed=config.seed,
        shrink=config.shrink,
        aliased=config.aliased,
        vary=config.vary,
    )
    return crops, validation
