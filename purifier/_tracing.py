"""Whether torch is recording a graph."""

from __future__ import annotations

import torch


def is_tracing() -> bool:
    """Returns True while torch.compile, torch.export or torch.jit.trace records the calling code."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
