"""From the content of a purifier's folder to a method with its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from purifier._errors import OptionError, WeightsError
from purifier._format import Package
from purifier._purified_model import PurifiedModel
from purifier._random import Unfilled
from purifier.methods import Method, build, check_extent, innermost, tune

# A purifier has at most this many weights, six times those of the largest one that is bundled, in so many tensors.
_MOST_NUMBERS, _MOST_TENSORS = 100_000_000, 10_000
# Side of the image, in pixels, on which loaded weights are tried.
_PROBE = 16


def expected_shapes(config: dict[str, Any], source: str) -> dict[str, torch.Size]:
    """Returns the shape of every tensor that a configuration needs, without taking memory for them.

    Args:
        config: A config.json, which may hold anything.
        source: Where it came from, for messages.

    Raises:
        WeightsError: If the configuration is not valid, or of a purifier that is too large.
    """
    check_extent(config, source)
    try:
        with Unfilled("meta", most=_MOST_TENSORS):
            state = build(_description(config)).state_dict()
    except OptionError as error:
        raise WeightsError(f"the configuration of {source!r} is not valid: {error}") from None
    numbers = sum(tensor.numel() for tensor in state.values())
    if numbers > _MOST_NUMBERS:
        raise WeightsError(
            f"expected a purifier of at most {_MOST_NUMBERS:,} weights, got a configuration of {numbers:,} in "
            f"{source!r}; more would not fit the memory of most machines"
        )
    return {key: tensor.shape for key, tensor in state.items()}


def load_method(package: Package, options: dict[str, Any]) -> Method:
    """Builds the method of a package, with its weights, frozen.

    Args:
        package: The content of the folder, whose tensors have the `expected_shapes`. They become those of the
            method, so that memory holds the weights once.
        options: Changes to the method's options.

    Raises:
        WeightsError: If the weights are not finite, or make the output so.
        OptionError: If an option is unknown, fixed by the weights, or out of its range.
    """
    description = _description(package.config)
    if options:
        description = tune(description, options, package.source)
    with Unfilled("cpu"):
        method = build(description)
    _leave_meta(method)
    _fill(method, package.state)
    for part in method.modules():
        check = getattr(part, "check_weights", None)
        if check is not None:
            check()
    _check_finite(method, package.source)
    # Freeze the weights; otherwise each call stores gigabytes of activations that inference never needs.
    return method.requires_grad_(False)


def _fill(method: Method, state: dict[str, Tensor]) -> None:
    """Makes the tensors of a state dict those of a method, without copies."""
    for key, value in method.state_dict(keep_vars=True).items():
        value.data = state.pop(key).to(value.dtype)


def _description(config: dict[str, Any]) -> dict[str, Any]:
    return {"method": config.get("method"), "options": config.get("options")}


def _check_finite(method: Method, source: str) -> None:
    """Checks the weights, and the output for a small image, which weights that are finite but huge overflow."""
    broken = next((key for key, value in method.state_dict().items() if not value.isfinite().all()), None)
    if broken is not None:
        raise WeightsError(
            f"expected finite weights in {source!r}, got infinity or NaN in {broken}; the training diverged, or the "
            "file is damaged"
        )
    if next(method.parameters(), None) is None:
        return
    image = torch.linspace(0, 1, 3 * _PROBE**2, dtype=torch.float32, device="cpu").view(1, 3, _PROBE, _PROBE)
    with _tried(method), torch.no_grad():
        finite = bool(method(image).isfinite().all())
    if not finite:
        raise WeightsError(
            f"expected weights in {source!r} that keep images finite, got infinity or NaN for a plain image; the "
            "training diverged, or the file is damaged"
        )


@contextmanager
def _tried(method: Method) -> Iterator[None]:
    """Applies iterated methods at most twice, and draws noise from a generator that is not torch's global one."""
    changes: list[tuple[Any, str, Any]] = []
    for leaf in innermost(method):
        if leaf.random:
            changes.append((leaf, "generator", torch.Generator().manual_seed(0)))
        if "iterations" in leaf.tunable:
            changes.append((leaf, "iterations", min(2, leaf.options["iterations"])))
    before = [(leaf, name, getattr(leaf, name)) for leaf, name, _ in changes]
    for leaf, name, value in changes:
        setattr(leaf, name, value)
    yield
    for leaf, name, value in before:
        setattr(leaf, name, value)


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
    elif isinstance(source, nn.Module):
        advice = "make it a purifier.Method, as docs/extending.md shows; wrap takes the model first, then the purifier"
    else:
        advice = "give one of purifier.list_purifiers(); wrap takes the model first, then the purifier"
    raise OptionError(
        f"expected a purifier, or the name, folder or hub repository of one, got {type(source).__name__}; {advice}"
    )
