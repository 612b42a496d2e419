"""PurifiedModel: a model behind a purifier, called like the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self
from weakref import WeakValueDictionary

from torch import nn
from torch.utils.hooks import RemovableHandle

from purifier._call import Selection, check_selection
from purifier._convention import Convention
from purifier._errors import WrapError
from purifier._listening import Listeners, OnScore


class _Bound:
    """The `forward` of a wrapped model: called like a method, with the signature of the model's own."""

    def __init__(self, wrapped: PurifiedModel) -> None:
        self.__self__ = wrapped
        self.__doc__ = PurifiedModel._forward.__doc__

        # torch.export names it by its code.
        self.__func__ = PurifiedModel._forward
        self.__code__ = PurifiedModel._forward.__code__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__self__._forward(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        model = self.__self__.model
        return inspect.signature(model.forward if isinstance(model, nn.Module) else model)


class _Forward:
    def __get__(self, wrapped: PurifiedModel | None, kind: type[PurifiedModel]) -> Any:
        return kind._forward if wrapped is None else _Bound(wrapped)


class PurifiedModel(nn.Module):
    """A model behind a purifier.

    The call is the model's own. Its images are `pixel_values=` if that is given, else the first argument that is a
    tensor of images or a list of such; they are purified in [0, 1]. Everything else goes through untouched, and so does
    the output. The model's mode, device, dtype and parameters are never changed. Gradients flow exactly.

    Attributes of the model that are not functions (`config`, `device`, `classes`, ...) can be read here too. Its
    methods and submodules cannot, because a call of them would skip the purifier; they are at `.model`.

    Args:
        model: A module or a function.
        purifier: A `Purifier`.
        mean: Mean of each channel of the normalisation that the incoming images have; None for images in [0, 1].
        std: Standard deviation of each channel, likewise.
        channels: "RGB" or "BGR": the order of the channels of the incoming images.
        images: Positions or keywords of the arguments that are images, for models that take several; None finds one.
        out_of_range: "auto" clamps values a little outside [0, 1], with one warning, and refuses others; "clamp" always
            clamps; "refuse" always refuses. Images that are clamped have no gradient where they were outside.

    Raises:
        WrapError: If the model cannot be called.
        OptionError: If an option is out of its range.
    """

    forward = _Forward()

    def __init__(
        self,
        model: Callable[..., Any],
        purifier: nn.Module,
        *,
        mean: Any = None,
        std: Any = None,
        channels: str = "RGB",
        images: Any = None,
        out_of_range: str = "auto",
    ) -> None:
        super().__init__()
        if not callable(model):
            raise WrapError(f"expected a model that can be called, got {type(model).__name__}")
        if isinstance(model, type):
            raise WrapError(f"expected a model, got the class {model.__name__}; make one: {model.__name__}(...)")
        self.purifier: Any = purifier
        self.model: Any = model
        # The mode of the model. An assignment here does not change the children's modes, as train() would.
        self.training = getattr(model, "training", False)
        # Numbers, not buffers: half() would round those, and to_empty() lose them.
        self.convention = Convention.of(mean, std, channels=channels, out_of_range=out_of_range)
        self.images = check_selection(images)
        self._listeners = Listeners()

    @classmethod
    def of(cls, model: Any, purifier: nn.Module, convention: Convention, images: Selection) -> Self:
        """Returns a model behind a purifier, with options that were checked already."""
        wrapped = cls(model, purifier)
        wrapped.convention, wrapped.images = convention, images
        return wrapped

    @property
    def mean(self) -> list[float] | None:
        """Mean of each channel of the incoming images, or None for images in [0, 1]."""
        return None if self.convention.mean is None else list(self.convention.mean)

    @property
    def std(self) -> list[float] | None:
        """Standard deviation of each channel of the incoming images, or None for images in [0, 1]."""
        return None if self.convention.std is None else list(self.convention.std)

    @property
    def normalisation(self) -> tuple[list[float], list[float]] | None:
        """The pair (mean, std) of the incoming images, or None for images in [0, 1]."""
        return self.convention.normalisation

    def on_score(self, callback: OnScore) -> RemovableHandle:
        """Calls a function with the attack scores of the images in every call, for counters and alarms.

        See `Purifier.attack_score`. The gate is computed once for purifying and scoring, and twice if the purifier is
        tiled or compiled. Several images in one call, such as a list, are scored together. A callback breaks the graph
        of torch.compile and is left out of exported and traced graphs. DataParallel calls it once for each replica,
        from several threads. Copies of the model keep it; a saved model loses it.

        Args:
            callback: Gets the scores (N,), detached, before the model is called. What it returns is ignored; what it
                raises ends the call.

        Returns:
            A handle, whose `remove()` takes the callback away.

        Raises:
            OptionError: If it cannot be called, or the purifier does not have exactly one gate.
        """
        return self._listeners.add(callback, self.purifier)

    def unwrap(self) -> Any:
        """Returns the model."""
        return self.model

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model with its images purified.

        Raises:
            InputError: If the images have a wrong kind, shape or range.
            WrapError: If no images are found in the call.
        """
        args, kwargs = self._listeners.purify_call(
            self.purifier, self.convention, self.images, args, kwargs, model=self.model
        )
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "model" not in {**vars(self), **self.__dict__.get("_modules", {})}:
                raise
        found = getattr(self.model, name)
        if callable(found):
            raise AttributeError(
                f"{name!r} is at .model: a call of it skips the purifier; purifier.attach(model) keeps the model's own "
                "methods"
            )
        return found


# What `wrap` returned in this process, by its identity.
wrappers: WeakValueDictionary[int, PurifiedModel] = WeakValueDictionary()
