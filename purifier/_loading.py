"""From the content of a purifier's folder to a method with its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from purifier._errors import OptionError, WeightsError
from purifier._format import Package
from purifier._purified_model import PurifiedModel
from purifier._random import isolated_randomness
from purifier.methods import Method, build, tune


@contextmanager
def on_cpu_in_float32() -> Iterator[None]:
    """Undoes the caller's `torch.device(...)` context and `torch.set_default_dtype`, which would change the weights."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def load_method(package: Package, options: dict[str, Any]) -> Method:
    """Builds the method of a package, with its weights, frozen.

    Args:
        package: The content of the folder.
        options: Changes to the method's options.

    Raises:
        WeightsError: If the weights do not fit the configuration or are not finite.
        OptionError: If an option is unknown, fixed by the weights, or out of its range.
    """
    description = {"method": package.config.get("method"), "options": package.config.get("options")}
    if options:
        description = tune(description, options, package.source)
    # The random initial weights are replaced; drawing them must not change the caller's random state.
    with isolated_randomness():
        method = build(description)
    _leave_meta(method)
    try:
        method.load_state_dict(package.state, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights of {package.source!r} do not fit its configuration: {' '.join(str(error).split())}"
        ) from None
    broken = next((key for key, value in method.state_dict().items() if not value.isfinite().all()), None)
    if broken is not None:
        raise WeightsError(
            f"expected finite weights in {package.source!r}, got infinity or NaN in {broken}; the training diverged, "
            "or the file is damaged"
        )
    for part in method.modules():
        check = getattr(part, "check_weights", None)
        if check is not None:
            check()
    # Freeze the weights; otherwise each call stores gigabytes of activations that inference never needs.
    return method.requires_grad_(False)


def _leave_meta(method: Method) -> None:
    """Gives memory to the parameters that accelerate's `init_empty_weights` moved to "meta"."""
    for part in method.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.is_meta:
                part._parameters[name] = nn.Parameter(torch.empty_like(weight, device="cpu"))


def check_source(source: Any) -> None:
    """Checks that a purifier is given by a name or a path.

    Raises:
        OptionError: If it is given as anything else.
    """
    if isinstance(source, str | os.PathLike):
        return
    if isinstance(source, Method):
        advice = "make it one with Purifier(method)"
    elif isinstance(source, PurifiedModel):
        advice = "give its .purifier"
    elif isinstance(source, list | tuple):
        advice = "give several to chain one by one: Purifier.chain(*purifiers)"
    else:
        advice = "give one of purifier.list_purifiers(); wrap takes the model first, then the purifier"
    raise OptionError(
        f"expected a purifier, or the name, folder or hub repository of one, got {type(source).__name__}; {advice}"
    )
