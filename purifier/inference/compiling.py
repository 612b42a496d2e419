"""Runs a purifier's methods through torch.compile, which compiles on the first call.

If compiling fails (no C++ compiler, an unsupported Python or platform), the methods run uncompiled after one warning.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, shown, warn_once
from purifier._tracing import is_tracing
from purifier.methods import Method, innermost

_BACKEND = "inductor"

_Apply = Callable[[nn.Module, Tensor], Tensor]


class Compiler:
    """Runs methods compiled. A copy shares no compiled code with the original.

    torch.compile recompiles for new sizes, dtypes, devices, options and grad modes. Methods that cannot be captured as
    a graph (a codec, noise) run uncompiled.

    Args:
        mode: Mode of torch.compile: "default" or "reduce-overhead", which replays CUDA graphs. With gradients it is
            always "default", because the next replay would overwrite values that the backward pass needs.
    """

    def __init__(self, mode: str = "default") -> None:
        self.mode = mode
        self._calls: dict[tuple[int, str], _Apply] = {}
        self._failed = False

    def __reduce__(self) -> tuple[type[Compiler], tuple[str]]:
        return type(self), (self.mode,)

    @property
    def option(self) -> bool | str:
        """The value of the option `compile` for this mode."""
        return True if self.mode == "default" else self.mode

    def run(self, method: Method, images: Tensor) -> Tensor:
        """Applies a method to images (N, 3, H, W), with the same output up to rounding. Gradients flow.

        Read the output before the next call, which may overwrite it.
        """
        # Inside another graph, that graph's compiler does the work.
        if self._failed or is_tracing():
            return method(images)
        for number, part in enumerate(method.sequence):
            if number:
                images = images.clamp(0, 1)
            plain = any(leaf.export_obstacle is not None for leaf in innermost(part))
            images = part(images) if plain else self._run_part(number, part, images)
        return images

    def _run_part(self, number: int, part: Method, images: Tensor) -> Tensor:
        if self._failed:
            return part(images)
        mode = "default" if torch.is_grad_enabled() else self.mode
        try:
            if (number, mode) not in self._calls:
                self._calls[number, mode] = torch.compile(_own_code(_apply), backend=_BACKEND, mode=mode)
            return self._calls[number, mode](part, images)
        except Exception as error:  # compilers raise many kinds of errors
            # An error of the method itself, such as out of memory, is raised again here.
            out = part(images)
            self._failed = True
            self._calls.clear()
            _warn(error)
            return out


def make_compiler(compile: Any) -> Compiler | None:
    """Returns the compiler for the option `compile` of `Purifier.from_pretrained`.

    Args:
        compile: True compiles on the first call, which takes longer. On a CPU it gains little, and the first call and
            every new size take up to a minute or more. The output differs by rounding only. Tiles always run
            uncompiled. "reduce-overhead" also replays CUDA graphs while no gradient is recorded, which helps with small
            batches of one size on a GPU. False returns None.

    Raises:
        OptionError: If it is something else.
    """
    if isinstance(compile, bool):
        return Compiler() if compile else None
    if not isinstance(compile, str) or compile != "reduce-overhead":
        raise OptionError(f"expected compile to be True, False or 'reduce-overhead', got {shown(compile)}")
    return Compiler(compile)


def _apply(method: nn.Module, images: Tensor) -> Tensor:
    out: Tensor = method(images)
    return out


def _own_code(function: _Apply) -> _Apply:
    """Returns the function with its own code object, because torch limits the recompilations of each code object."""
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _warn(error: Exception) -> None:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
    warn_once(
        f"expected to compile the purifier, got {type(error).__name__}: {reason[:200]}; it runs uncompiled, with the "
        "same output. Leave compile out, or install what torch.compile needs. Shown once",
        stacklevel=2,
    )
