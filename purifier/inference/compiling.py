"""Compiling: a purifier's methods through torch.compile, made when they are first called.

Where compiling fails (no C++ compiler, an unsupported Python or platform), the methods run as they are, and one warning
a process says so.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, PurifierWarning
from purifier.methods import Method, innermost, leaves
from purifier.methods._no_grad import makes_graph

_BACKEND = "inductor"
_warned = False

_Apply = Callable[[nn.Module, Tensor], Tensor]


class Compiler:
    """Runs methods compiled. It knows nothing of them that a copy would need, so a copy starts afresh.

    torch.compile itself sees to it that new sizes, dtypes, devices, options and modes of gradients get code of their
    own. Methods that no graph holds (a codec, noise) run as they are.

    Args:
        mode: Of torch.compile: "default", or "reduce-overhead", which on a GPU replays CUDA graphs. Where gradients are
            on it is the default one, because a graph's next call overwrites what a backward pass would read.
    """

    def __init__(self, mode: str = "default") -> None:
        self.mode = mode
        self._calls: dict[tuple[int, str], _Apply] = {}
        self._failed = False

    def __reduce__(self) -> tuple[type[Compiler], tuple[str]]:
        return type(self), (self.mode,)

    @property
    def option(self) -> bool | str:
        """The option `compile` that asks for it."""
        return True if self.mode == "default" else self.mode

    def run(self, method: Method, images: Tensor) -> Tensor:
        """Applies a method to images (N, 3, H, W), as the method itself does but for rounding; gradients flow.

        The output is to be read before the next call, which may overwrite it.
        """
        # Within another graph there is nothing left to compile.
        if self._failed or makes_graph():
            return method(images)
        for number, leaf in enumerate(leaves(method)):
            if number:
                images = images.clamp(0, 1)
            plain = any(part.export_obstacle is not None for part in innermost(leaf))
            images = leaf(images) if plain else self._run_leaf(number, leaf, images)
        return images

    def _run_leaf(self, number: int, leaf: Method, images: Tensor) -> Tensor:
        if self._failed:
            return leaf(images)
        mode = "default" if torch.is_grad_enabled() else self.mode
        try:
            if (number, mode) not in self._calls:
                self._calls[number, mode] = torch.compile(_own_code(_apply), backend=_BACKEND, mode=mode)
            return self._calls[number, mode](leaf, images)
        except Exception as error:  # compilers raise all kinds of errors
            # An error of the method itself, such as too little memory, comes again here.
            out = leaf(images)
            self._failed = True
            self._calls.clear()
            _warn_once(error)
            return out


def make_compiler(compile: Any) -> Compiler | None:
    """Returns what the option `compile` asks for, None where it is False.

    Raises:
        OptionError: Where it is no mode and no bool.
    """
    if isinstance(compile, bool):
        return Compiler() if compile else None
    if compile != "reduce-overhead":
        raise OptionError(f"expected compile to be True, False or 'reduce-overhead', got {compile!r}")
    return Compiler(compile)


def _apply(method: nn.Module, images: Tensor) -> Tensor:
    out: Tensor = method(images)
    return out


def _own_code(function: _Apply) -> _Apply:
    """Returns the function with code of its own: torch limits how often one piece of code is compiled anew."""
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _warn_once(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
        warnings.warn(
            f"expected to compile the purifier, got {type(error).__name__}: {reason[:200]}; it runs uncompiled, with "
            "the same output. Leave compile out, or install what torch.compile needs. Shown once",
            PurifierWarning,
            stacklevel=2,
        )
