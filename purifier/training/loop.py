"""The training loop that all methods share: seeded, resumable to the same bits, mixed precision, several GPUs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from purifier._errors import OptionError, WeightsError, shown
from purifier._purifier import Purifier
from purifier.inference.precision import resolve_device
from purifier.training.checkpoints import (
    check_resumed,
    common_facts,
    load_checkpoint,
    prepare_folder,
    samples_sha256,
    save_checkpoint,
)
from purifier.training.outputs import TIMED_STEPS, Log, expected_time, write_settings
from purifier.training.processes import (
    Stopping,
    any_process,
    check_same,
    from_main,
    ignore_interrupts,
    losing_none,
    make_accelerator,
    mean_of_processes,
    share_gradients,
    to_device,
)
from purifier.training.settings import LoopConfig


@dataclass(frozen=True)
class Losses:
    """The losses of a batch.

    Attributes:
        total: Scalar that the model's optimiser minimises.
        parts: Its terms before weighting, detached, for the log.
        critic: Computes the critic's scalar loss on the same batch; None if no critic learns at this step.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    critic: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Fitted:
    """The state of a training.

    Attributes:
        model: The averaged model.
        history: The validations so far.
        step: Steps done.
        seconds: Time of these steps, over all runs.
        main: Whether this process is the one that validates and writes files.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    step: int
    seconds: float
    main: bool


class Recipe(Protocol):
    """What a method adds to the loop."""

    @property
    def model(self) -> nn.Module:
        """The network that is trained."""

    @property
    def critic(self) -> nn.Module | None:
        """A network that is trained against the model by its own loss and optimiser, or None."""

    @property
    def crops(self) -> Dataset[Any]:
        """The samples. Sample number k is used from step k // batch_size * steps_per_batch on.

        A data set whose samples torch cannot collate has a method `collate`, which makes a batch from a list of
        samples: tensors, also in lists, tuples and dicts.
        """

    def to(self, device: torch.device) -> None:
        """Moves fixed networks to the device of the model."""

    def losses(self, model: Callable[[Tensor], Any], batch: Any, step: int) -> Losses:
        """Losses of a batch, such as clean crops (N, 3, H, W). Random numbers come from torch's global generator."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measures the averaged model."""

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows of sample pictures (N, 3, H, W), such as clean, attacked and purified."""

    def purifier(self, fitted: Fitted) -> Purifier:
        """Makes the trained purifier, with its model card."""


def train_purifier(
    make: Callable[[], Recipe], config: LoopConfig, out: str | Path, *, minutes: float | None = None
) -> Path:
    """Trains a purifier and writes a folder that `Purifier.from_pretrained` loads.

    `out` receives the checkpoint and the purifier. The next call with the same settings resumes from the checkpoint. A
    training that `minutes` stopped early also leaves a purifier; its card states the steps done.

    Args:
        make: Makes the recipe. It is called after the device and `out` were checked.
        config: The settings.
        out: The output folder.
        minutes: Stop after about that time. None means no limit.

    Returns:
        The purifier's folder in `out`, with config.json, weights, a model card and training.yaml.

    Raises:
        OptionError: If settings do not fit together, or `out` holds a run with other settings.
    """
    resolve_device(config.device)
    prepare_folder(Path(out))
    recipe = make()
    fitted = fit(recipe, config, Path(out), minutes=minutes)
    purifier = recipe.purifier(fitted)
    assert purifier.name is not None
    folder = Path(out) / purifier.name
    if fitted.main:
        purifier.save_pretrained(folder)
        write_settings(folder, config)
    return folder


def fit(recipe: Recipe, config: LoopConfig, out: Path, *, minutes: float | None = None) -> Fitted:
    """Trains `recipe.model`.

    `out/checkpoint.pt` is rewritten regularly. If it exists, the training resumes from it and ends with the same bits
    as an unbroken run on the same machine.

    Args:
        recipe: The model, its samples and losses.
        config: The settings of the loop.
        out: The output folder.
        minutes: Stop after about that time, with a checkpoint. None means no limit.

    Raises:
        OptionError: If the checkpoint in `out` was made with other settings, the batch cannot be split evenly, or a
            loss or weight becomes NaN or infinite.
        KeyboardInterrupt: After a Ctrl-C, once the step is done and the checkpoint written. SIGTERM ends the process
            in the same way.
    """
    return _Training(recipe, config, out).run(minutes)


class _Training:
    """The state of a training: networks, optimisers, average, and progress."""

    def __init__(self, recipe: Recipe, config: LoopConfig, out: Path) -> None:
        from accelerate.utils import set_seed

        self.recipe, self.config, self.path = recipe, config, out / "checkpoint.pt"
        self.accelerator = make_accelerator(config)
        state = from_main(self.accelerator, self._read)
        check_same(self.accelerator, common_facts(config, recipe.crops))
        set_seed(config.seed)
        self.average = copy.deepcopy(recipe.model).requires_grad_(False)
        self.optimisers = {"model": torch.optim.Adam(recipe.model.parameters(), lr=config.learning_rate)}
        if recipe.critic is not None:
            self.optimisers["critic"] = torch.optim.Adam(recipe.critic.parameters(), lr=config.learning_rate)
        self.step, self.seconds, self._saved = 0, 0.0, 0
        self.history: list[dict[str, Any]] = []
        if state is not None:
            try:
                self._restore(state)
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise WeightsError(
                    f"expected {self.path} to be a checkpoint of this network, got another one or a damaged one "
                    f"({shown(error)}); delete it, or choose another folder"
                ) from None
        device = self.accelerator.device
        recipe.to(device)
        self.average.to(device)
        if recipe.critic is not None:
            recipe.critic.to(device)
        # Moves the optimiser's state together with the weights.
        self.model, self.optimisers["model"] = self.accelerator.prepare(recipe.model, self.optimisers["model"])
        if "critic" in self.optimisers:
            self.optimisers["critic"] = self.accelerator.prepare(self.optimisers["critic"])
        self.plain = self.accelerator.unwrap_model(self.model)
        self.forward: Callable[[Tensor], Any] = torch.compile(self.model) if config.compile else self.model
        self.log = Log(out, config.tensorboard and self.accelerator.is_main_process, self.step)

    def _read(self) -> dict[str, Any] | None:
        state = load_checkpoint(self.path)
        if state is not None:
            check_resumed(self.path, state, self.config, samples_sha256(self.recipe.crops))
        return state

    def run(self, minutes: float | None) -> Fitted:
        with losing_none(self.accelerator):
            return self._run(minutes)

    def _run(self, minutes: float | None) -> Fitted:
        config, main = self.config, self.accelerator.is_main_process
        started, before, begun = time.monotonic(), self.seconds, self.step
        batches = self._batches()
        bar = tqdm(total=config.steps, initial=self.step, disable=not main, unit="step")
        self.model.train()
        ends = config.is_over(self.step, self.seconds)
        with Stopping() as stopping:
            while not ends:
                figures = self._advance(self._next(batches))
                self.seconds = self._clock(before + time.monotonic() - started)
                bar.update()
                if main and self.step == begun + TIMED_STEPS:
                    bar.write(expected_time(self.seconds - before, config.steps - self.step, config.cosine_minutes))
                ends = config.is_over(self.step, self.seconds)
                late = minutes is not None and self.seconds - before > 60 * minutes
                stops = any_process(self.accelerator, late or stopping.asked is not None) and self._between_batches
                self._report(figures, bar, ends=ends, saves=ends or stops)
                if stops:
                    break
            self.log.close()
            if main and not ends:
                bar.write(
                    f"stopped after {self.step:,} of {config.steps:,} steps: the purifier is not trained yet; the same "
                    "call resumes from there"
                )
            bar.close()
            stopping.obey()
        return Fitted(self.average, self.history, self.step, self.seconds, main)

    @property
    def _between_batches(self) -> bool:
        """Whether the next step has a new batch. Only then can a run resume."""
        return self.step % self.config.steps_per_batch == 0

    def _report(self, figures: dict[str, Tensor], bar: Any, *, ends: bool, saves: bool) -> None:
        """Logs, validates, draws samples and saves, if it is time for it at this step."""
        config, main = self.config, self.accelerator.is_main_process
        due = self.step // config.checkpoint_every > self._saved // config.checkpoint_every
        saves = saves or (due and self._between_batches)
        validates = ends or self.step % config.validate_every == 0
        logs = self.step % 20 == 0
        if logs or saves or validates:
            values = self._finite(figures)
            bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
            if main and (logs or ends):
                self.log.scalars("train", values, self.step)
        if main and validates:
            found = self.recipe.validate(self.average)
            self.history.append({"step": self.step, "loss": figures["loss"].item(), **found})
            self.log.scalars("validation", found, self.step)
            bar.write("  ".join(f"{k} {v:.4g}" for k, v in self.history[-1].items()))
        if main and config.sample_every and self.step % config.sample_every == 0:
            self.log.pictures(self.recipe.samples(self.average), self.step)
        if saves:
            self._checkpoint()

    def _next(self, batches: Iterator[list[Any]]) -> list[Any]:
        """Returns the next batch. If it cannot be read, the steps before it are saved first."""
        try:
            return next(batches)
        except Exception:
            if self.step > self._saved and self._between_batches:
                self._checkpoint()
            raise

    def _finite(self, figures: dict[str, Tensor]) -> dict[str, float]:
        """Returns the last step's figures as numbers, or raises an error if they or the weights are not finite."""
        values = {name: value.item() for name, value in figures.items()}
        broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if not torch.stack([weight.isfinite().all() for weight in self.plain.parameters()]).all():
            broken.append("NaN or infinite weights")
        if broken:
            kept = f"; the checkpoint of step {self._saved} is kept" if self._saved else ""
            raise OptionError(
                f"expected a training whose losses stay finite, got {', '.join(broken)} by step {self.step}{kept}; "
                "train at a lower learning_rate, or with gradient_norm, in another folder"
            )
        return values

    def _advance(self, parts: list[Any]) -> dict[str, Tensor]:
        """Does one step of the model's optimiser, and of the critic's."""
        config, critic = self.config, self.recipe.critic
        # Every random number is a function of the seed, the step and the process.
        torch.manual_seed((config.seed * 1_000_003 + self.step) * 1009 + self.accelerator.process_index)
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate_at(self.step, self.seconds)
        found: list[dict[str, Tensor]] = []
        for number, part in enumerate(parts):
            # Gradients are exchanged between processes once, with the last part.
            waits = number + 1 < len(parts)
            with self.accelerator.no_sync(self.model) if waits else nullcontext():
                found.append(self._backward(to_device(part, self.accelerator.device), len(parts)))
        if config.gradient_norm:
            self.accelerator.clip_grad_norm_(self.recipe.model.parameters(), config.gradient_norm)
        self.optimisers["model"].step()
        if critic is not None and "critic" in found[0]:
            share_gradients(self.accelerator, critic)
            self.optimisers["critic"].step()
        # The decay grows to `ema_decay` with the steps, so that the average forgets the initial weights.
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        for kept, new in zip(self.average.parameters(), self.plain.parameters(), strict=True):
            kept.data.lerp_(new.data, 1 - decay)
        for statistic, latest in zip(self.average.buffers(), self.plain.buffers(), strict=True):
            # Those of batch norms. Constants stay as they are, to the bit.
            if statistic.is_floating_point():
                statistic.lerp_(latest, 1 - decay)
        self.step += 1
        return {name: torch.stack([values[name] for values in found]).mean() for name in found[0]}

    def _backward(self, batch: Any, parts: int) -> dict[str, Tensor]:
        critic = self.recipe.critic
        if critic is not None:
            critic.requires_grad_(False)
        with self.accelerator.autocast():
            losses = self.recipe.losses(self.forward, batch, self.step)
        self.accelerator.backward(losses.total / parts)
        figures = {"loss": losses.total.detach(), **losses.parts}
        if critic is not None and losses.critic is not None:
            critic.requires_grad_(True)
            with self.accelerator.autocast():
                loss = losses.critic()
            self.accelerator.backward(loss / parts)
            figures["critic"] = loss.detach()
        return figures

    def _batches(self) -> Iterator[list[Any]]:
        """Yields this process's share of each batch from the current step on, in `accumulate` parts."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        size, parts = config.batch_size, config.accumulate
        if size % (world * parts):
            raise OptionError(
                f"expected a batch size that {world} processes can share in {parts} parts each, got {size}"
            )
        share = size // (world * parts)
        starts = (
            step // config.steps_per_batch * size + part * world * share
            for step in range(self.step, config.steps)
            for part in range(parts)
        )
        indices = [list(range(start + rank * share, start + (rank + 1) * share)) for start in starts]
        loader: Iterable[Any] = DataLoader(
            self.recipe.crops,
            batch_sampler=indices,
            num_workers=config.workers,
            collate_fn=getattr(self.recipe.crops, "collate", None),
            worker_init_fn=ignore_interrupts,
        )
        crops = iter(loader)
        for _ in range(self.step, config.steps):
            yield [next(crops) for _ in range(parts)]

    def _clock(self, seconds: float) -> float:
        """Returns the same time in all processes if the learning rate depends on it."""
        return mean_of_processes(self.accelerator, seconds) if self.config.cosine_minutes else seconds

    def _restore(self, state: dict[str, Any]) -> None:
        self.recipe.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if self.recipe.critic is not None:
            self.recipe.critic.load_state_dict(state["critic"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.step, self.history, self.seconds = state["step"], state["history"], state["seconds"]
        self._saved = self.step

    def _checkpoint(self) -> None:
        self._saved = self.step
        if not self.accelerator.is_main_process:
            return
        state: dict[str, Any] = {"model": self.plain.state_dict(), "average": self.average.state_dict()}
        if self.recipe.critic is not None:
            state["critic"] = self.recipe.critic.state_dict()
        state["optimisers"] = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        rest = {"step": self.step, "history": self.history, "seconds": self.seconds, "settings": asdict(self.config)}
        save_checkpoint(self.path, {**state, **rest, "data": samples_sha256(self.recipe.crops)})
