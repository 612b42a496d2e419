"""The training loop that every method shares: seeded, resumable bit for bit, mixed precision, several GPUs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from purifier._errors import OptionError
from purifier.training._checkpoint import load_checkpoint, save_checkpoint


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train, the same for every method.

    Attributes:
        steps: Optimiser steps.
        batch_size: Crops a step, over all processes.
        learning_rate: Adam's peak learning rate.
        warmup_steps: Steps of linear warm-up, after which a cosine falls to 0.
        seed: Decides initial weights and every crop.
        precision: "bf16" runs the network in bfloat16 (weights and loss stay float32); "no" is float32.
        ema_decay: Decay of the running average of the weights that is validated and kept; 0 keeps the last.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations.
        compile: Whether to compile the network; the first step then takes a minute, later ones about 0.6 of the time.
        workers: Processes that prepare crops.
        device: "auto", "cpu" or "cuda".
    """

    steps: int = 8000
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    seed: int = 0
    precision: Literal["no", "bf16"] = "bf16"
    ema_decay: float = 0.999
    checkpoint_every: int = 250
    validate_every: int = 1000
    compile: bool = False
    workers: int = 0
    device: str = "auto"


class Recipe(Protocol):
    """What a method adds to the loop."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def crops(self) -> Dataset[Tensor]:
        """Crop number k is used at step k // batch_size."""
        ...

    def loss(self, model: Callable[[Tensor], Any], batch: Tensor) -> Tensor:
        """Scalar loss of a batch of clean crops (N, 3, H, W)."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of merit of the averaged model."""
        ...


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a cosine to 0: a function of the step alone."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _batches(recipe: Recipe, config: LoopConfig, start: int, rank: int, world: int) -> Iterator[Tensor]:
    """Yields this process's share of each batch from step `start` on."""
    if config.batch_size % world:
        raise OptionError(f"expected a batch size that {world} processes can share, got {config.batch_size}")
    size, share = config.batch_size, config.batch_size // world
    indices = [
        list(range(step * size + rank * share, step * size + (rank + 1) * share)) for step in range(start, config.steps)
    ]
    return iter(DataLoader(recipe.crops, batch_sampler=indices, num_workers=config.workers))


def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.data.lerp_(new.data, 1 - decay)


def fit(recipe: Recipe, config: LoopConfig, out: Path) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Trains `recipe.model` and returns (the averaged model, the validation history).

    `out/checkpoint.pt` is rewritten as it goes; where it exists, training goes on from it and ends with the same
    bits as an unbroken run on the same machine.

    Raises:
        OptionError: Where the checkpoint in `out` was made with other settings.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    accelerator = Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")
    path = out / "checkpoint.pt"
    state = load_checkpoint(path)
    settings = asdict(config)
    if state is not None and state["settings"] != settings:
        changed = sorted(k for k in settings if state["settings"].get(k) != settings[k])
        raise OptionError(
            f"expected the settings that {path} was trained with, got other {', '.join(changed)}; choose another "
            "folder or give the old settings"
        )
    set_seed(config.seed)
    model = recipe.model
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    average = copy.deepcopy(model).requires_grad_(False)
    start, history = 0, []
    if state is not None:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start, history = state["step"], state["history"]
    model, optimiser = accelerator.prepare(model, optimiser)
    average.to(accelerator.device)
    plain = accelerator.unwrap_model(model)
    forward: Callable[[Tensor], Any] = torch.compile(model) if config.compile else model

    def checkpoint(step: int) -> None:
        if accelerator.is_main_process:
            weights = {"model": plain.state_dict(), "average": average.state_dict()}
            rest = {"optimiser": optimiser.state_dict(), "step": step, "history": history, "settings": settings}
            save_checkpoint(path, {**weights, **rest})

    batches = _batches(recipe, config, start, accelerator.process_index, accelerator.num_processes)
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not accelerator.is_main_process)
    model.train()
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, config)
        with accelerator.autocast():
            loss = recipe.loss(forward, next(batches).to(accelerator.device))
        optimiser.zero_grad()
        accelerator.backward(loss)
        optimiser.step()
        # The average forgets its start fast: its decay grows with the step up to `ema_decay`.
        _update_average(average, plain, min(config.ema_decay, (1 + step) / (10 + step)))
        done = step + 1
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3e}")
        if accelerator.is_main_process and (done % config.validate_every == 0 or done == config.steps):
            figures = recipe.validate(average)
            history.append({"step": done, "loss": loss.item(), **figures})
            bar.write("  ".join(f"{k} {v:.4g}" for k, v in history[-1].items()))
        if done % config.checkpoint_every == 0 or done == config.steps:
            checkpoint(done)
    return average, history
