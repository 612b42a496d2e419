"""Peak memory of a call, measured in a fresh process."""

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
    """Returns the result of a function in a process that has imported torch and done nothing else.

    Args:
        function: A function of a module, which can be pickled.
        *arguments: Its arguments, which can be pickled.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # The server imports once and never computes. Each process is a fork of it.
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "purifier"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def peak_extra_bytes(
    call: Callable[[], object], *, warm_up: Callable[[], object], device: str | torch.device = "cpu"
) -> int | None:
    """Returns how far the peak memory during a call exceeds the memory before it. The output counts.

    On the CPU this is the resident memory of the process. It is meaningful only in a fresh process, because memory
    that was freed earlier can be reused without a rise. On CUDA it is the memory of torch's allocator, relative to
    the time before the warm-up.

    Args:
        call: The call to measure.
        warm_up: A call that loads the kernels, such as the same one on a smaller image.
        device: The device of the call.

    Returns:
        Bytes, or None if the system does not report them (neither Linux nor CUDA).
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
        # Not ru_maxrss, which a process inherits from its parent.
        _CLEAR.write_text("5")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None


def _give_back() -> None:
    """Returns freed memory to the system, because the call could reuse it without a rise."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
