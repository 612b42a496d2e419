"""Torch's global random state, set for a while and restored afterwards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from purifier._errors import OptionError

# Names of the functions that fill a tensor with random numbers: those of torch.nn.init and the methods of tensors.
_FILLS = re.compile(
    r"(xavier_|kaiming_|trunc_|log_)?(uniform|normal)_|(random|orthogonal|sparse|bernoulli|exponential|cauchy)_"
)
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full}


@contextmanager
def isolated_randomness(*devices: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restores torch's global random state on exit, on the CPU and on the given CUDA devices.

    Args:
        *devices: Devices whose state is restored; all but CUDA devices are ignored.
        seed: The seed inside the context. None means that the state inside starts as it was outside.

    Example:
        >>> with isolated_randomness(seed=0):
        ...     first = torch.rand(3)
        >>> with isolated_randomness(seed=0):
        ...     torch.equal(torch.rand(3), first)
        True
    """
    with torch.random.fork_rng(devices={device for device in devices if device.type == "cuda"}):
        if seed is not None:
            torch.manual_seed(seed)
        yield


class Unfilled(TorchFunctionMode):
    """A context in which modules are built on a device in float32, without filling their weights with random numbers.

    Neither torch's random state nor its default dtype, which all threads share, is touched. The caller's
    `torch.device(...)` context and `torch.set_default_dtype` have no effect.

    Args:
        device: Where tensors are made.
        most: How many tensors may be made, because a module of very many takes minutes to build.

    Raises:
        OptionError: If more are made.

    Example:
        >>> before = torch.get_rng_state()
        >>> with Unfilled("cpu"):
        ...     layer = torch.nn.Linear(3, 4)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """

    def __init__(self, device: str, *, most: int | None = None) -> None:
        super().__init__()
        self._device, self._left = device, most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if _FILLS.fullmatch(getattr(func, "__name__", "")):
            return args[0] if args else given["tensor"]
        if func in _FACTORIES:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise OptionError("expected a network of fewer layers, got one that would take minutes to build")
            given = {**given, "device": self._device, "dtype": given.get("dtype") or torch.float32}
        return func(*args, **given)


def seed_of(*parts: object) -> int:
    """Returns a seed that depends on all the parts, so that every step of a run that resumes has its own.

    Example:
        >>> seed_of(0, "attack", 16) == seed_of(0, "attack", 16) != seed_of(0, "attack", 17)
        True
    """
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:7])
