"""Timing of calls against each other, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from purifier._errors import OptionError

# Rounds that are measured even without time left. Fewer have no quartiles.
_FEWEST_RUNS = 3


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some measurements.

    Attributes:
        low: First quartile.
        median: Median.
        high: Third quartile.
    """

    low: float
    median: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Returns the median and quartiles of some values. All three equal the value if there is only one.

    Example:
        >>> spread([3.0, 1.0, 2.0, 5.0, 4.0])
        Spread(low=2.0, median=3.0, high=4.0)
    """
    measured = list(values)
    if not measured:
        raise OptionError("expected at least one measurement, got none; run at least once")
    if len(measured) == 1:
        return Spread(*measured * 3)
    return Spread(*statistics.quantiles(measured, n=4, method="inclusive"))


def speedup(reference: Iterable[float], other: Iterable[float]) -> Spread:
    """Returns how many times faster the other is: the spread of reference / other over the rounds.

    Each round gives one ratio of consecutive calls, so that a temporarily slow machine slows both of them.

    Args:
        reference: Seconds of the reference, per round.
        other: Seconds of the other call in the same rounds.
    """
    return spread([slow / fast for slow, fast in zip(reference, other, strict=True)])


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    device: str | torch.device = "cpu",
    runs: int = 10,
    warmup: int = 2,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times calls against each other: each once per round, in reverse order in every other round.

    Args:
        calls: The calls, by name.
        device: Their device. An accelerator is synchronised before and after each call.
        runs: Number of measured rounds.
        warmup: Number of rounds before them that are not measured.
        seconds: After this time no further round begins, except for the first three. None means no limit.
        clock: Returns the time in seconds.

    Returns:
        Seconds of each call, per round, the same number for all.

    Raises:
        OptionError: If `runs` is less than 1 or `warmup` less than 0.
    """
    if runs < 1 or warmup < 0:
        raise OptionError(f"expected runs of at least 1 and warmup of at least 0, got runs={runs}, warmup={warmup}")
    wait = partial(wait_for, torch.device(device))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names, begin = list(calls), clock()
    for number in range(-warmup, runs):
        if seconds is not None and number >= _FEWEST_RUNS and clock() - begin > seconds:
            break
        for name in names[::-1] if number % 2 else names:
            wait()
            start = clock()
            calls[name]()
            wait()
            stop = clock()
            if number >= 0:
                taken[name].append(stop - start)
    return taken


def wait_for(device: torch.device) -> None:
    """Waits until an accelerator has finished its work. Does nothing for the CPU."""
    accelerator = None if device.type == "cpu" else torch.accelerator.current_accelerator()
    if accelerator is not None and device.type == accelerator.type:
        torch.accelerator.synchronize(device)
