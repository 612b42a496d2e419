"""Torch's global random state, set for a while and restored afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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


def seed_of(*parts: object) -> int:
    """Returns a seed that depends on all the parts, so that every step of a run that resumes has its own.

    Example:
        >>> seed_of(0, "attack", 16) == seed_of(0, "attack", 16) != seed_of(0, "attack", 17)
        True
    """
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:7])
