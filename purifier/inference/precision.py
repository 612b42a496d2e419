"""Which precision to compute in."""

from __future__ import annotations

import torch

from purifier._errors import OptionError

_NAMES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Returns the device; "auto" is the accelerator where there is one, None the CPU.

    Raises:
        OptionError: Where there is no such device.
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        resolved = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"expected a device such as 'cpu', 'cuda' or 'auto', got {device!r}") from error
    if not _is_here(resolved):
        raise OptionError(
            f"expected a device that is here, got {device!r}, but torch sees no {resolved.type.upper()} device; use "
            "'cpu'"
        )
    return resolved


def _is_here(device: torch.device) -> bool:
    # A tensor would start CUDA, which a process that forks afterwards must not.
    if device.type == "cuda":
        return torch.cuda.is_available()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError):
        return False
    return True


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Returns the dtype; None is float32, "auto" is bfloat16 where the device computes it fast, else float32.

    Raises:
        OptionError: Where it is not one of the four that purifiers compute in.
    """
    if dtype == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    resolved = torch.float32 if dtype is None else _NAMES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(resolved, torch.dtype) or resolved not in _NAMES.values():
        raise OptionError(
            f"expected dtype to be 'auto', {', '.join(map(repr, _NAMES))} or such a torch dtype, got {dtype!r}"
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
