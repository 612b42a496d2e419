"""Callbacks that get the attack scores of the images in each call of a defended model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from purifier._call import Selection, purify_call
from purifier._convention import Convention
from purifier._errors import OptionError
from purifier._tracing import leaves_a_graph

OnScore = Callable[[Tensor], object]


class Listeners:
    """The callbacks of one defended model. Copies of the model call the same ones; a saved model has none."""

    def __init__(self) -> None:
        self._callbacks: OrderedDict[int, OnScore] = OrderedDict()

    def add(self, callback: OnScore, purifier: Any) -> RemovableHandle:
        """Adds a callback for the scores of a purifier and returns the handle that removes it.

        Raises:
            OptionError: If it cannot be called, or the purifier has no gate.
        """
        if not callable(callback):
            raise OptionError(f"expected a function that takes the scores, got {callback!r}")
        find_gate = getattr(purifier, "gated_part", None)
        if find_gate is None:
            raise OptionError(
                f"expected a Purifier with a gate to score images, such as 'alloy-s', got {type(purifier).__name__}"
            )
        find_gate()
        handle = RemovableHandle(self._callbacks)
        self._callbacks[handle.id] = callback
        return handle

    def purify_call(
        self,
        purifier: Any,
        convention: Convention,
        images: Selection,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        model: Any,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Does `purifier._call.purify_call` and gives the scores of all images in the call to the callbacks.

        Args:
            purifier: Anything with `purify` and, if there are callbacks, `purify_and_score`.
            convention: See there.
            images: See there.
            args: See there.
            kwargs: See there.
            model: See there.
        """
        if not self._callbacks or leaves_a_graph():
            return purify_call(purifier.purify, convention, images, args, kwargs, model=model)
        scores: list[Tensor] = []

        def purify(batch: Tensor) -> Tensor:
            purified, found = purifier.purify_and_score(batch)
            scores.append(found.detach().flatten())
            return purified

        changed = purify_call(purify, convention, images, args, kwargs, model=model)
        if scores:
            # A compiler must not record what the callbacks do.
            tell = torch.compiler.disable(self._tell) if torch.compiler.is_compiling() else self._tell
            tell(torch.cat(scores))
        return changed

    def _tell(self, scores: Tensor) -> None:
        for callback in list(self._callbacks.values()):
            callback(scores)

    def __deepcopy__(self, memo: dict[int, Any]) -> Listeners:
        copied = Listeners()
        copied._callbacks.update(self._callbacks)
        return copied

    def __reduce__(self) -> tuple[type[Listeners], tuple[()]]:
        # Callbacks belong to a process.
        return type(self), ()
