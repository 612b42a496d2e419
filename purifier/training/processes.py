"""The processes of a training: starting and leaving a group of them, what they agree on, and signals that stop them."""

from __future__ import annotations

import atexit
import gc
import importlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, PurifierError
from purifier.inference.precision import resolve_device, resolve_dtype
from purifier.training.settings import LoopConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What errors of torch.distributed say if another process does not answer.
_LOST = ("gloo", "nccl", "connection", "distributed")


def make_accelerator(config: LoopConfig) -> Accelerator:
    """Returns the accelerator of a training, with the settings' device and precision.

    Raises:
        OptionError: If there is no such device.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    device = resolve_device(config.device)
    precision: str = config.precision
    if precision == "auto":
        precision = "bf16" if resolve_dtype("auto", device) == torch.bfloat16 else "no"
    # An earlier training in the same process may have chosen another precision.
    AcceleratorState._reset_state()
    if torch.distributed.is_available():
        # Imported while a process group exists, this module would keep the group alive in its functions' defaults.
        importlib.import_module("torch.distributed.nn")
    alone = not _grouped()
    accelerator = Accelerator(mixed_precision=precision, cpu=config.device == "cpu")
    if alone and _grouped():
        # At the end of the process, because another training may follow this one.
        atexit.register(_disband)
    return accelerator


def _grouped() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _disband() -> None:
    """Ends the process group and waits for its threads.

    Python aborts if one of these threads still frees a tensor while the interpreter shuts down. Destroying the group
    waits for them only if nothing else refers to the group.
    """
    if _grouped():
        gc.collect()
        torch.distributed.destroy_process_group()


def from_main(accelerator: Accelerator, make: Callable[[], Result]) -> Result:
    """Calls a function in the main process. Every process gets its result, or its error.

    Files are read in this way, because the processes may be on hosts with file systems of their own.
    """
    if accelerator.num_processes == 1:
        return make()
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = make()
        except PurifierError as error:
            box[1] = error
    torch.distributed.broadcast_object_list(box, device=accelerator.device)
    if box[1] is not None:
        raise box[1]
    result: Result = box[0]
    return result


def check_same(accelerator: Accelerator, facts: Mapping[str, Any]) -> None:
    """Checks that all processes were started alike.

    Args:
        accelerator: The accelerator.
        facts: Settings and other facts, by name.

    Raises:
        OptionError: If a fact differs from the main process's in any process.
    """
    if accelerator.num_processes == 1:
        return
    everyone: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(everyone, dict(facts))
    for rank, theirs in enumerate(everyone):
        for name in facts:
            if theirs.get(name) != everyone[0].get(name):
                raise OptionError(
                    "expected the same settings and images in all processes, got "
                    f"{name} {theirs.get(name)!r} in process {rank}, {everyone[0].get(name)!r} in 0; start all alike"
                )


@contextmanager
def losing_none(accelerator: Accelerator) -> Iterator[None]:
    """A context in which the loss of another process is an error that says so.

    Raises:
        PurifierError: If another process has ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if accelerator.num_processes == 1 or not any(word in text.lower() for word in _LOST):
            raise
        raise PurifierError(
            f"expected all {accelerator.num_processes} processes to train on, got one that ended or does not answer "
            f"({text[:200]}); its own output says why. The same command in all of them resumes from the checkpoint"
        ) from error


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all of them act at the same step."""
    if accelerator.num_processes == 1:
        return flag
    number = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(number, reduction="sum").item() > 0)


def mean_of_processes(accelerator: Accelerator, value: float) -> float:
    """Returns the mean of a number over all processes."""
    if accelerator.num_processes == 1:
        return value
    mean: Tensor = accelerator.reduce(torch.tensor(value, device=accelerator.device), reduction="mean")
    return mean.item()


def share_gradients(accelerator: Accelerator, network: nn.Module) -> None:
    """Averages a network's gradients over all processes. DDP would allow it only one forward pass per step."""
    if accelerator.num_processes > 1:
        for weight in network.parameters():
            weight.grad = accelerator.reduce(weight.grad, reduction="mean")


def to_device(batch: Any, device: torch.device) -> Any:
    """Moves every tensor of a batch of nested lists, tuples and dicts."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    return type(batch)(to_device(value, device) for value in batch) if isinstance(batch, list | tuple) else batch


class Stopping:
    """A context in which the first SIGINT or SIGTERM only sets `asked`. The second one acts as usual.

    Outside the main thread, where Python handles no signals, nothing changes.

    Attributes:
        asked: The signal that arrived, or None.
    """

    asked: int | None = None

    def __enter__(self) -> Self:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # signal.signal returns None for a handler that was not set by Python.
            self._before = {number: signal.signal(number, self._note) or signal.SIG_DFL for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def obey(self) -> None:
        """Does what the signal that arrived does by default, such as raising KeyboardInterrupt."""
        self._restore()
        if self.asked is not None:
            signal.raise_signal(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            self.obey()
        self.asked = number

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def ignore_interrupts(worker: int) -> None:
    """Makes a data-loading process ignore Ctrl-C. A terminal sends it to all processes; only the trainer handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
