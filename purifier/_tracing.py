"""Whether torch is recording a graph."""

from __future__ import annotations

import torch
from torch import Tensor


def is_tracing() -> bool:
    """Returns True while torch.compile, torch.export or torch.jit.trace records the calling code."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def is_plain(images: Tensor) -> bool:
    """Whether images are outside of every graph capture and `torch.func` transform."""
    return type(images) is Tensor and not is_tracing() and not torch._C._functorch.is_functorch_wrapped_tensor(images)


def leaves_a_graph() -> bool:
    """Returns whether torch.export or torch.jit.trace records the caller into a graph that holds for other images too.

    Such a graph has no control flow of Python, and no callbacks. torch.compile goes back to Python for both.
    """
    return is_exporting() or torch._C._get_tracing_state() is not None


def is_exporting() -> bool:
    """Returns whether torch.export, or an exporter built on it, records the caller; False in torch.compile.

    In code that torch 2.11 compiles, `torch.compiler.is_exporting()` is True too. Newer versions read this flag there.
    """
    flag: bool = torch.compiler._is_exporting_flag
    return flag
