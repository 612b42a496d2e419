"""Settings that all trainings share. Each class checks its own values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from torch.utils.data import Dataset

from purifier._errors import OptionError, nearest
from purifier._options import check_fields, check_integer, check_number
from purifier.data.crops import RandomCrops, split_validation
from purifier.data.images import list_images


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that refuse unknown names, and values that their Literal types do not list."""

    # Settings of earlier versions, with what an error says about each.
    former: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, **values: Any) -> Self:
        for name in values:
            cls.check_name(name)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                raise OptionError(f"expected {name} as one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        check_fields(self)

    @classmethod
    def check_name(cls, name: str) -> None:
        """Checks that there is a setting of that name.

        Raises:
            OptionError: If there is none.
        """
        names = [field.name for field in fields(cls)]
        if name not in names:
            hint = f"; {cls.former[name]}" if name in cls.former else nearest(name, names)
            raise OptionError(f"expected settings of {cls.__name__}, got {name!r}{hint}")


def check_folder_name(name: str) -> None:
    """Checks the name of a finished purifier, which is also that of its folder.

    Raises:
        OptionError: If it is not a plain name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise OptionError(
            f"expected name to be a folder name of letters, digits, '_', '.' and '-', got {name!r}; choose the place "
            "with out"
        )


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Settings):
    """Settings of the training loop, the same for every method.

    Raises:
        OptionError: If a setting is unknown or out of its range.

    Attributes:
        steps: Optimiser steps.
        batch_size: Crops per step, over all processes.
        accumulate: Parts that each batch is split into, to save memory.
        learning_rate: Adam's peak learning rate.
        warmup_steps: Steps of linear warm-up. A cosine to 0 follows.
        cosine_minutes: Minutes of training, over all runs, after which the cosine reaches 0 and the training ends,
            unless its steps are done earlier. With 0, only `steps` counts. Above 0, a second run does not give the
            same bits.
        gradient_norm: Largest L2 norm of a step's gradient; longer gradients are scaled down. 0 means no limit.
        seed: Decides the initial weights, every crop and every random number of a step.
        precision: "bf16" runs the networks in bfloat16 (weights and losses stay float32); "no" is float32; "auto" is
            bf16 if the device computes it fast.
        ema_decay: Decay of the running average of the weights, which is validated and saved; 0 keeps the last weights.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations.
        sample_every: Steps between sample pictures (`samples/` in the output folder); 0 writes none.
        tensorboard: Whether to write losses and figures for TensorBoard (`tensorboard/` in the output folder).
        compile: Whether to compile the network. The first step then takes a minute, later ones about 0.6 of the time.
        workers: Processes that prepare crops.
        device: "auto", "cpu" or "cuda". CUDA_VISIBLE_DEVICES or torchrun chooses the GPU.
    """

    steps: int = 8000
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    cosine_minutes: float = 0.0
    gradient_norm: float = 0.0
    seed: int = 0
    precision: Literal["auto", "no", "bf16"] = "auto"
    ema_decay: float = 0.999
    checkpoint_every: int = 250
    validate_every: int = 1000
    sample_every: int = 0
    tensorboard: bool = False
    compile: bool = False
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "validate_every"):
            check_integer(name, getattr(self, name), low=1)
        for name in ("warmup_steps", "sample_every", "workers"):
            check_integer(name, getattr(self, name), low=0)
        check_integer("seed", self.seed, low=0, high=2**32 - 1, why="the generator of numpy takes no larger seed")
        if not 0 < self.learning_rate < math.inf:
            raise OptionError(f"expected a learning_rate above 0, got {self.learning_rate}")
        check_number("ema_decay", self.ema_decay, low=0, high=1)
        for name in ("cosine_minutes", "gradient_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"expected {name} of at least 0, with 0 for no limit, got {getattr(self, name)}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise OptionError(
                f"expected device to be auto, cpu or cuda, got {self.device!r}; choose a GPU by CUDA_VISIBLE_DEVICES"
            )

    @property
    def steps_per_batch(self) -> int:
        """How many steps in a row use the same batch. A run is saved, and can stop, only between batches."""
        return 1

    def learning_rate_at(self, step: int, seconds: float = 0.0) -> float:
        """Returns the learning rate of a step, after so many seconds of training: a warm-up, then a cosine to 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        if self.cosine_minutes:
            progress = max(progress, seconds / (60 * self.cosine_minutes))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether the training is done after so many steps and seconds, over all runs."""
        return step >= self.steps or (self.cosine_minutes > 0 and seconds >= 60 * self.cosine_minutes)


@dataclass(frozen=True, kw_only=True)
class PhotographTraining(LoopConfig):
    """Settings of a training on crops of photographs without labels, in addition to those of the loop.

    Attributes:
        data: Folders of images, read recursively.
        crop_size: Side of the random crops, in pixels.
        shrink: Smallest factor by which an image is shrunk at random before the crop.
        aliased: Share of the shrunk images that are shrunk without an anti-aliasing filter, as many services and data
            sets do. Such images look noisier.
        vary: Share of the crops that are sharpened, compressed or made noisy at random, as ordinary pictures are.
        validation_every: One in this many files is held out for validation.
        validation_images: Largest number of images to validate on.
    """

    data: tuple[str, ...] = ()
    crop_size: int = 96
    shrink: float = 1.0
    aliased: float = 0.0
    vary: float = 0.0
    validation_every: int = 20
    validation_images: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.data, str | Path):
            object.__setattr__(self, "data", (str(self.data),))
        for name, low in (("crop_size", 1), ("validation_every", 2), ("validation_images", 1)):
            check_integer(name, getattr(self, name), low=low)
        check_number("shrink", self.shrink, low=0.01, high=1.0)
        check_number("aliased", self.aliased, low=0.0, high=1.0)
        check_number("vary", self.vary, low=0.0, high=1.0)

    def crops_and_validation(self) -> tuple[Dataset[Any], list[Path]]:
        """Returns the crops to train on, and the files held out for validation.

        Raises:
            InputError: If there are no images, or none to train on.
            OptionError: If every file would be held out.
        """
        training, validation = split_validation(list_images(self.data), self.validation_every)
        crops = RandomCrops(
            training,
            crop_size=self.crop_size,
            length=self.steps * self.batch_size,
            seed=self.seed,
            shrink=self.shrink,
            aliased=self.aliased,
            vary=self.vary,
        )
        return crops, validation


def check_strength(eps_low: float, eps: float) -> None:
    """Checks the range of a training's perturbations.

    Raises:
        OptionError: If it is not 0 <= eps_low <= eps <= 1.
    """
    if not 0 <= eps_low <= eps <= 1:
        raise OptionError(
            f"expected 0 <= eps_low <= eps <= 1, in units of the [0, 1] range, got eps_low={eps_low}, eps={eps}; write "
            f"16/255 as {16 / 255:.4f}, and lower eps_low with eps"
        )


def check_weights(weights: Mapping[str, float]) -> None:
    """Checks the weights of a training's losses.

    Raises:
        OptionError: If one is below 0 or not finite, or all are 0.
    """
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        given = ", ".join(f"{name}={weight}" for name, weight in weights.items())
        raise OptionError(f"expected loss weights >= 0, one of them above, got {given}")
