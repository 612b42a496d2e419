"""The training loop that every method shares: seeded, resumable bit for bit, mixed precision, several GPUs."""

from __future__ import annotations

import atexit
import copy
import gc
import hashlib
import importlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from purifier._errors import OptionError, PurifierWarning
from purifier._options import check_integer, check_number
from purifier.inference.precision import resolve_device, resolve_dtype
from purifier.training._checkpoint import load_checkpoint, prepare_folder, save_checkpoint
from purifier.training._log import Log
from purifier.training._stopping import Stopping, leave_interrupts

if TYPE_CHECKING:
    from accelerate import Accelerator


# Settings that decide what is seen of a training, and how fast it is, but not what comes out.
_FREE = {"checkpoint_every", "validate_every", "sample_every", "tensorboard", "workers"}


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train, the same for every method.

    Attributes:
        steps: Optimiser steps.
        batch_size: Crops a step, over all processes.
        accumulate: Parts that a batch is worked off in, so that a large one fits the memory.
        learning_rate: Adam's peak learning rate.
        warmup_steps: Steps of linear warm-up, after which a cosine falls to 0.
        cosine_minutes: Where above 0, the cosine follows the clock: it falls to 0 within that many minutes of training,
            over all runs, and the training ends there, if its steps are not done before. For a machine that is at hand
            for a given time; such a run has no second one of the same bits.
        gradient_norm: Largest L2 norm of a step's gradient of the model; a longer one is shortened to it. 0 for none.
        seed: Decides initial weights, every crop and every random number of a step.
        precision: "bf16" runs the networks in bfloat16 (weights and loss stay float32); "no" is float32; "auto" is
            bf16 where the device computes it fast.
        ema_decay: Decay of the running average of the weights that is validated and kept; 0 keeps the last.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations.
        sample_every: Steps between sample pictures (`samples/` in the output folder); 0 for none.
        tensorboard: Whether to write losses and figures for TensorBoard (`tensorboard/` in the output folder).
        compile: Whether to compile the network; the first step then takes a minute, later ones about 0.6 of the time.
        workers: Processes that prepare crops.
        device: "auto", "cpu" or "cuda"; which GPU is CUDA_VISIBLE_DEVICES' or torchrun's to say.
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


@dataclass(frozen=True)
class Losses:
    """What a recipe makes of a batch.

    Attributes:
        total: Scalar that the model descends.
        parts: Its terms before weighting, detached, for the log.
        critic: Gives the critic's scalar loss on the same batch, where there is a critic at work.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    critic: Callable[[], Tensor] | None = None


class Recipe(Protocol):
    """What a method adds to the loop."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def critic(self) -> nn.Module | None:
        """A network that is trained against the model by its own loss and optimiser, or None."""
        ...

    @property
    def crops(self) -> Dataset[Any]:
        """Crop number k, or whatever a sample is, is used at step k // batch_size.

        A dataset whose samples torch cannot put together has a method `collate` that makes a batch of a list of them:
        tensors, in lists, tuples and dicts if need be.
        """
        ...

    def to(self, device: torch.device) -> None:
        """Moves fixed networks to where the model trains."""
        ...

    def losses(self, model: Callable[[Tensor], Any], batch: Any, step: int) -> Losses:
        """Losses of a batch, such as clean crops (N, 3, H, W); random numbers come from torch's global generator."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of merit of the averaged model."""
        ...

    def samples(self, model: nn.Module) -> list[Tensor]:
        """Rows of pictures (N, 3, H, W) to look at, such as clean, attacked and purified."""
        ...


@dataclass(frozen=True)
class Fitted:
    """Where a training stands.

    Attributes:
        model: The averaged model.
        history: The validations so far.
        step: Steps done.
        seconds: Time that they took, over all runs.
        main: Whether this process is the one that writes files, and knows all of the history.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    step: int
    seconds: float
    main: bool


def learning_rate_at(step: int, config: LoopConfig, seconds: float = 0.0) -> float:
    """Linear warm-up, then a cosine to 0: of the step alone, or, with `cosine_minutes`, of the seconds so far too."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.cosine_minutes:
        progress = max(progress, seconds / (60 * config.cosine_minutes))
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def is_over(config: LoopConfig, step: int, seconds: float) -> bool:
    """Whether a training is done after so many steps and seconds, over all runs."""
    return step >= config.steps or (config.cosine_minutes > 0 and seconds >= 60 * config.cosine_minutes)


def fit(recipe: Recipe, config: LoopConfig, out: Path, *, minutes: float | None = None) -> Fitted:
    """Trains `recipe.model`.

    `out/checkpoint.pt` is rewritten as it goes; where it exists, training goes on from it and ends with the same
    bits as an unbroken run on the same machine.

    Args:
        recipe: What to train, on what, by which losses.
        config: For how long and how fast.
        out: The folder.
        minutes: Stop after about that time, with a checkpoint; the next call goes on. No limit where None.

    Raises:
        OptionError: Where the checkpoint in `out` was made with other settings, `out` cannot be written, the batch
            cannot be shared out, a setting is out of its range, or the losses become infinite.
        KeyboardInterrupt: After a Ctrl-C, when the step is done and the checkpoint written. SIGTERM ends the process
            in the same way.
    """
    check_start(config, out)
    return _Training(recipe, config, out).run(minutes)


def check_start(config: LoopConfig, out: Path) -> None:
    """Sees that a training can begin, before anything is loaded for it; `fit` does so too.

    Raises:
        OptionError: Where a setting is out of its range, or `out` cannot be written.
    """
    _check(config)
    prepare_folder(out)


def _check(config: LoopConfig) -> None:
    for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "validate_every"):
        check_integer(name, getattr(config, name), low=1)
    for name in ("warmup_steps", "seed", "sample_every", "workers"):
        check_integer(name, getattr(config, name), low=0)
    if not 0 < config.learning_rate < math.inf:
        raise OptionError(f"expected a learning_rate above 0, got {config.learning_rate}")
    check_number("ema_decay", config.ema_decay, low=0, high=1)
    if config.precision not in ("auto", "no", "bf16"):
        raise OptionError(f"expected precision to be auto, no or bf16, got {config.precision!r}")
    if not 0 <= config.cosine_minutes < math.inf:
        raise OptionError(
            f"expected cosine_minutes of at least 0, with 0 for a cosine over the steps, got {config.cosine_minutes}"
        )
    if not 0 <= config.gradient_norm < math.inf:
        raise OptionError(f"expected gradient_norm of at least 0, with 0 for no limit, got {config.gradient_norm}")
    if config.device not in ("auto", "cpu", "cuda"):
        raise OptionError(
            f"expected device to be auto, cpu or cuda, got {config.device!r}; choose a GPU by CUDA_VISIBLE_DEVICES"
        )
    resolve_device(config.device)


class _Training:
    """The state of a training: networks, optimisers, average, and how far it is."""

    def __init__(self, recipe: Recipe, config: LoopConfig, out: Path) -> None:
        from accelerate.utils import set_seed

        self.recipe, self.config, self.path = recipe, config, out / "checkpoint.pt"
        self.accelerator = _accelerator(config)
        state = self._read()
        set_seed(config.seed)
        self.average = copy.deepcopy(recipe.model).requires_grad_(False)
        self.optimisers = {"model": torch.optim.Adam(recipe.model.parameters(), lr=config.learning_rate)}
        if recipe.critic is not None:
            self.optimisers["critic"] = torch.optim.Adam(recipe.critic.parameters(), lr=config.learning_rate)
        self.step, self.seconds, self._saved = 0, 0.0, 0
        self.history: list[dict[str, Any]] = []
        if state is not None:
            self._restore(state)
        device = self.accelerator.device
        recipe.to(device)
        self.average.to(device)
        if recipe.critic is not None:
            recipe.critic.to(device)
        # Moves the optimiser's state along with the weights.
        self.model, self.optimisers["model"] = self.accelerator.prepare(recipe.model, self.optimisers["model"])
        if "critic" in self.optimisers:
            self.optimisers["critic"] = self.accelerator.prepare(self.optimisers["critic"])
        self.plain = self.accelerator.unwrap_model(self.model)
        self.forward: Callable[[Tensor], Any] = torch.compile(self.model) if config.compile else self.model
        self.log = Log(out, config.tensorboard and self.accelerator.is_main_process, self.step)

    def run(self, minutes: float | None) -> Fitted:
        config, main = self.config, self.accelerator.is_main_process
        started, before = time.monotonic(), self.seconds
        batches = self._batches()
        bar = tqdm(total=config.steps, initial=self.step, disable=not main, unit="step")
        self.model.train()
        ends = self._over()
        with Stopping() as stopping:
            while not ends:
                figures = self._advance(self._next(batches))
                self.seconds = self._clock(before + time.monotonic() - started)
                bar.update()
                ends = self._over()
                late = minutes is not None and self.seconds - before > 60 * minutes
                stops = self._agreed(late or stopping.asked is not None)
                saves = self.step % config.checkpoint_every == 0 or ends or stops
                validates = self.step % config.validate_every == 0 or ends
                if self.step % 20 == 0 or saves or validates:
                    values = self._finite(figures)
                    bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
                    if main and (self.step % 20 == 0 or ends):
                        self.log.scalars("train", values, self.step)
                if main and validates:
                    self._validate(figures["loss"].item(), bar)
                if main and config.sample_every and self.step % config.sample_every == 0:
                    self.log.pictures(self.recipe.samples(self.average), self.step)
                if saves:
                    self._checkpoint()
                if stops:
                    break
            self.log.close()
            if main and not ends:
                bar.write(f"stopped after {self.step} of {config.steps} steps; the same call goes on from there")
            bar.close()
            stopping.obey()
        return Fitted(self.average, self.history, self.step, self.seconds, main)

    def _next(self, batches: Iterator[list[Any]]) -> list[Any]:
        """The next batch; the steps before it are kept where it cannot be had, for a broken picture, say."""
        try:
            return next(batches)
        except Exception:
            if self.step > self._saved:
                self._checkpoint()
            raise

    def _finite(self, figures: dict[str, Tensor]) -> dict[str, float]:
        """What the last step's figures are; an error where they or the weights are no numbers any more."""
        values = {name: value.item() for name, value in figures.items()}
        broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if not torch.stack([weight.isfinite().all() for weight in self.plain.parameters()]).all():
            broken.append("weights that are no numbers")
        if broken:
            kept = f"; the checkpoint of step {self._saved} is as it was" if self._saved else ""
            raise OptionError(
                f"expected a training whose losses stay finite, got {', '.join(broken)} by step {self.step}{kept}; "
                "train at a lower learning_rate, or with gradient_norm, in another folder"
            )
        return values

    def _advance(self, parts: list[Any]) -> dict[str, Tensor]:
        """One step of the model's optimiser, and of the critic's."""
        config, critic = self.config, self.recipe.critic
        # So that every random number is a function of the seed, the step and the process.
        torch.manual_seed((config.seed * 1_000_003 + self.step) * 1009 + self.accelerator.process_index)
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(self.step, config, self.seconds)
        found: list[dict[str, Tensor]] = []
        for number, part in enumerate(parts):
            # Gradients cross the processes once, with the last part.
            waits = number + 1 < len(parts)
            with self.accelerator.no_sync(self.model) if waits else nullcontext():
                found.append(self._backward(to_device(part, self.accelerator.device), len(parts)))
        if config.gradient_norm:
            self.accelerator.clip_grad_norm_(self.recipe.model.parameters(), config.gradient_norm)
        self.optimisers["model"].step()
        if critic is not None and "critic" in found[0]:
            self._share_gradients(critic)
            self.optimisers["critic"].step()
        # The average forgets its start fast: its decay grows with the step up to `ema_decay`.
        _update_average(self.average, self.plain, min(config.ema_decay, (1 + self.step) / (10 + self.step)))
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

    def _share_gradients(self, critic: nn.Module) -> None:
        # By hand and not by DDP, which takes one forward a step and would get three.
        if self.accelerator.num_processes > 1:
            for weight in critic.parameters():
                weight.grad = self.accelerator.reduce(weight.grad, reduction="mean")

    def _batches(self) -> Iterator[list[Any]]:
        """Yields this process's share of each batch from the current step on, in `accumulate` parts."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        size, parts = config.batch_size, config.accumulate
        if parts < 1 or size % (world * parts):
            raise OptionError(
                f"expected a batch size that {world} processes can share in {parts} parts each, got {size}"
            )
        share = size // (world * parts)
        starts = (
            step * size + part * world * share for step in range(self.step, config.steps) for part in range(parts)
        )
        indices = [list(range(start + rank * share, start + (rank + 1) * share)) for start in starts]
        loader: Iterable[Any] = DataLoader(
            self.recipe.crops,
            batch_sampler=indices,
            num_workers=config.workers,
            collate_fn=getattr(self.recipe.crops, "collate", None),
            worker_init_fn=leave_interrupts,
        )
        crops = iter(loader)
        for _ in range(self.step, config.steps):
            yield [next(crops) for _ in range(parts)]

    def _validate(self, loss: float, bar: Any) -> None:
        figures = self.recipe.validate(self.average)
        self.history.append({"step": self.step, "loss": loss, **figures})
        self.log.scalars("validation", figures, self.step)
        bar.write("  ".join(f"{k} {v:.4g}" for k, v in self.history[-1].items()))

    def _over(self) -> bool:
        return is_over(self.config, self.step, self.seconds)

    def _clock(self, seconds: float) -> float:
        """The same time for all processes where the learning rate is a function of it."""
        if not self.config.cosine_minutes or self.accelerator.num_processes == 1:
            return seconds
        mean: Tensor = self.accelerator.reduce(torch.tensor(seconds, device=self.accelerator.device), reduction="mean")
        return mean.item()

    def _agreed(self, late: bool) -> bool:
        """Whether any process is late, so that all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return late
        flag = torch.tensor(float(late), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item() > 0)

    def _read(self) -> dict[str, Any] | None:
        state, settings = load_checkpoint(self.path), asdict(self.config)
        if state is None:
            return None
        # A setting that there was none of when the run began had what is its default now.
        known = {one.name: one.default for one in fields(self.config) if one.default is not MISSING}
        known |= state["settings"]
        changed = sorted(k for k in settings if known.get(k) != settings[k] and k not in _FREE)
        if changed:
            raise OptionError(
                f"expected the settings that {self.path} was trained with, got others: "
                + ", ".join(f"{name} {settings[name]!r} for {known.get(name)!r}" for name in changed)
                + "; choose another folder or give the old settings"
            )
        if state.get("data", self._data()) != self._data():
            warnings.warn(
                f"the samples are not those that {self.path} was trained on so far: it goes on with these, and what "
                "validates now may have been trained on before",
                PurifierWarning,
                stacklevel=6,
            )
        return state

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
        save_checkpoint(self.path, {**state, **rest, "data": self._data()})

    def _data(self) -> str:
        """What tells the samples of this training from others: how many there are, and what is read for each."""
        crops = self.recipe.crops
        items: Any = getattr(crops, "paths", None) or getattr(crops, "items", ())
        return hashlib.sha256("\n".join(map(_named, items)).encode(errors="surrogateescape")).hexdigest()


def _accelerator(config: LoopConfig) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # A training before this one in the same process may have chosen another precision.
    AcceleratorState._reset_state()
    if torch.distributed.is_available():
        # Imported while there is a group of processes, it would hold on to that for good: its functions' defaults do.
        importlib.import_module("torch.distributed.nn")
    alone = not _grouped()
    accelerator = Accelerator(mixed_precision=_precision(config), cpu=config.device == "cpu")
    if alone and _grouped():
        # When the process leaves, and not after this training, which another one may follow.
        atexit.register(_disband)
    return accelerator


def _grouped() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _disband() -> None:
    """Ends the group of processes and waits for its threads.

    Python aborts where one of them is still letting go of the last tensor that was exchanged when it has begun to
    leave. They are waited for when nothing refers to the group any more.
    """
    if _grouped():
        gc.collect()
        torch.distributed.destroy_process_group()


def _precision(config: LoopConfig) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16" if resolve_dtype("auto", resolve_device(config.device)) == torch.bfloat16 else "no"


def to_device(batch: Any, device: torch.device) -> Any:
    """Moves every tensor of a batch, however nested."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    return type(batch)(to_device(value, device) for value in batch) if isinstance(batch, list | tuple) else batch


def _named(item: Any) -> str:
    """An item of plain values as text; of any other kind, whose text may be another each time, the kind."""
    if isinstance(item, list | tuple):
        return " ".join(map(_named, item))
    return str(item) if isinstance(item, str | int | float | Path) else type(item).__name__


def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.data.lerp_(new.data, 1 - decay)
