"""What a purifier is and where it computes: the part of `Purifier` that the rest of it is built on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, shown
from purifier._tracing import is_tracing
from purifier.inference.compiling import Compiler
from purifier.methods import FORMER, Method, innermost


class Facts(nn.Module):
    """Facts of a purifier: its method, place and kind."""

    method: Method
    name: str
    _tile: int | None
    _compiler: Compiler | None
    # Holds the device and the dtype of a method without weights.
    _anchor: Tensor

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "method" and not isinstance(value, Method):
            raise OptionError(f"expected a purifier.Method as the method of a purifier, got {shown(value)}")
        if not name.startswith("_") and not hasattr(type(self), name):
            self._refuse_option(name)
        if isinstance(getattr(type(self), name, None), property):
            # Its setter checks the value; torch would register a parameter or module under that name.
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _refuse_option(self, name: str) -> None:
        """Refuses an assignment to an option, or to nearly the name of one, which would change nothing in silence."""
        method = vars(self).get("_modules", {}).get("method")
        if method is None:
            return
        options = {option for part in method.modules() if isinstance(part, Method) for option in part.options}
        meant = FORMER.get(name, name)
        if meant in options:
            raise OptionError(
                f"expected {meant} as an argument of from_pretrained, got an assignment, which would change nothing; "
                f"load the purifier with {meant}=..."
            )
        if name != "method" and difflib.get_close_matches(name, ["iterations"], cutoff=0.85):
            raise OptionError(f"expected an attribute of a purifier, got {name!r}; did you mean 'iterations'?")

    @property
    def device(self) -> torch.device:
        """The device of its computations."""
        return self._place.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its computations."""
        return self._place.dtype

    @property
    def _place(self) -> Tensor:
        # Weights that are shared with another purifier move with it; the anchor does not.
        return next(self.method.parameters(), self._anchor)

    @property
    def differentiable(self) -> bool:
        """False if the exact gradient is zero almost everywhere, so that an honest attack needs BPDA."""
        return all(leaf.differentiable for leaf in innermost(self.method))

    @property
    def random(self) -> bool:
        """True if two calls on the same images differ, so that an honest attack needs EOT."""
        return any(leaf.random for leaf in innermost(self.method))

    def extra_repr(self) -> str:
        weights = sum(p.numel() for p in self.parameters())
        tile = f", tile={self._tile}" if self._tile else ""
        compiled = f", compile={self._compiler.option!r}" if self._compiler else ""
        place = f"dtype={self.dtype}, device={str(self.device)!r}"
        return f"name={self.name!r}, parameters={weights:,}, {place}{tile}{compiled}"

    def _grad_mode(self, batch: Tensor) -> AbstractContextManager[object]:
        """The block to compute in: without gradients, methods can work in place, in chunks and on a part of a batch."""
        return nullcontext() if self._needs_graph(batch) else torch.no_grad()

    def _needs_graph(self, batch: Tensor) -> bool:
        """Whether a gradient of the images or the weights may be needed, or torch is recording a graph."""
        return is_tracing() or (
            torch.is_grad_enabled() and (batch.requires_grad or any(weight.requires_grad for weight in self._weights()))
        )

    def _weights(self) -> Iterator[Tensor]:
        if not getattr(self, "_is_replica", False):
            return self.method.parameters()
        # DataParallel's replicas for other GPUs have copies instead of parameters.
        return (weight for part in self.method.modules() for weight in vars(part)["_former_parameters"].values())
