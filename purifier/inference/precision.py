"""The device, the precision and the memory format of computations."""

from __future__ import annotations

import torch
from torch import Tensor

from purifier._errors import OptionError
from purifier._tracing import is_exporting

_NAMES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Returns the device: "auto" means the accelerator if there is one, None means the CPU.

    Raises:
        OptionError: If there is no such device.
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        resolved = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"expected a device such as 'cpu', 'cuda' or 'auto', got {device!r}") from error
    if resolved.type == "meta":
        raise OptionError("expected a device that computes, got 'meta', which holds no values; use 'cpu'")
    if not _is_available(resolved):
        raise OptionError(
            f"expected an available device, got {device!r}, but torch finds no {resolved.type.upper()} device; use "
            "'cpu'"
        )
    return resolved


def _is_available(device: torch.device) -> bool:
    # A tensor would initialise CUDA, which a process that forks later must not do.
    if device.type == "cuda":
        return torch.cuda.is_available()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError):
        return False
    return True


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Returns the dtype: None means float32, "auto" means bfloat16 if the device computes it fast, else float32.

    Raises:
        OptionError: If purifiers do not compute in that dtype.
    """
    if dtype == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    resolved = torch.float32 if dtype is None else _NAMES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(resolved, torch.dtype) or resolved not in _NAMES.values():
        raise OptionError(
            f"expected dtype to be 'auto', {', '.join(map(repr, _NAMES))} or one of these torch dtypes, got {dtype!r}"
        )
    return resolved


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()
    return False


def _cpu_flags() -> set[str]:
    get = getattr(torch.cpu, "get_capabilities", None)
    return {name for name, has in get().items() if has is True} if get is not None else set()


def memory_format(images: Tensor) -> torch.memory_format:
    """Returns channels last for images in that format, else contiguous: a model may take views of its images."""
    if is_exporting() or images.ndim != 4 or images.is_contiguous():
        return torch.contiguous_format
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
