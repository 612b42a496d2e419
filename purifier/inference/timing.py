"""How long calls take beside one another, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from purifier._errors import OptionError

# Rounds that are measured however little time there is: fewer have no spread.
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
    """Returns median and quartiles; of one value, three times that value.

    Example:
        >>> spread([3.0, 1.0, 2.0, 5.0, 4.0])
        Spread(low=2.0, median=3.0, high=4.0)
    """
    measured = list(values)
    if not measured:
        raise OptionError("expected measurements to take the median of, got none; run at least once")
    if len(measured) == 1:
        return Spread(*measured * 3)
    return Spread(*statistics.quantiles(measured, n=4, method="inclusive"))


def speedup(reference: Iterable[float], other: Iterable[float]) -> Spread:
    """Returns how many times faster the other is: the spread of reference / other over the rounds.

    Each round gives one ratio, of calls that came one after the other, so that a machine that is slow for a while
    slows both sides of it.

    Args:
        reference: Seconds of the reference, round by round.
        other: Seconds of the other in the same rounds.
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
    """Times calls against one another: each once a round, every other round backwards.

    Args:
        calls: What to time, by name.
        device: Where they compute; an accelerator is waited for before and after each call.
        runs: Rounds that count.
        warmup: Rounds before them that do not.
        seconds: No round begins after this time in all, once three were measured; no limit where None.
        clock: Gives the time in seconds.

    Returns:
        Seconds of each call, round by round, the same number for all.

    Raises:
        OptionError: Where `runs` is less than 1 or `warmup` less than 0.
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
    """Waits until an accelerator has done what it was given; the CPU is never behind."""
    accelerator = None if device.type == "cpu" else torch.accelerator.current_accelerator()
    if accelerator is not None and device.type == accelerator.type:
        torch.accelerator.synchronize(device)
