"""How much memory a call needs beyond what is held before it, and processes that are fresh enough to tell."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_fresh_process(function: Callable[..., _T], *arguments: Any) -> _T:
    """Returns what a function gives in a process that has imported torch and done nothing else yet.

    Args:
        function: One of a module, so that it can be sent.
        *arguments: What can be sent too.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # The server imports once and never computes; every process is forked off it.
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "purifier"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def peak_extra_bytes(
    call: Callable[[], object], *, warm_up: Callable[[], object], device: str | torch.device = "cpu"
) -> int | None:
    """Returns the rise of the peak memory while a call runs, over what was held before it, its output included.

    On the CPU this is resident memory of the process, so it means something only in a process that has done nothing
    of the kind before: memory that was freed there is taken again unseen. On CUDA it is what torch's allocator holds,
    over what it held before the warm-up.

    Args:
        call: What to measure.
        warm_up: Loads the kernels: the same on a smaller image, say.
        device: Where the call computes.

    Returns:
        Bytes; None where this system does not tell (no Linux, no CUDA).
    """
    place = torch.device(device)
    return _cuda(call, warm_up, place) if place.type == "cuda" else _resident(call, warm_up)


def _cuda(call: Callable[[], object], warm_up: Callable[[], object], device: torch.device) -> int:
    before = torch.cuda.memory_allocated(device)
    warm_up()
    torch.cuda.synchronize(device)
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _resident(call: Callable[[], object], warm_up: Callable[[], object]) -> int | None:
    warm_up()
    gc.collect()
    _give_back()
    try:
        # Not ru_maxrss, which a process inherits from the one that started it.
        _CLEAR.write_text("5")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None


def _give_back() -> None:
    """Has the allocator return what it keeps of freed memory, which the call would take again unseen."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
