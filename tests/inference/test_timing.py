"""Timing, on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from purifier import OptionError
from purifier.evaluation.defences import Defences, Variant
from purifier.inference.memory import peak_extra_bytes
from purifier.inference.timing import Spread, interleave, speedup, spread, wait_for


class Clock:
    """Time that passes only in calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, *seconds: float) -> Callable[[], None]:
        """Returns a call that takes the given times in turn, and then always the last one."""
        times = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return call


def test_calls_take_turns_and_every_other_round_runs_backwards() -> None:
    clock = Clock()
    calls = {name: clock.taking(name, 1.0) for name in "abc"}
    interleave(calls, runs=3, warmup=1, clock=clock)
    assert "".join(clock.calls) == "cba" + "abc" + "cba" + "abc"


def test_warm_up_rounds_do_not_count() -> None:
    clock = Clock()
    taken = interleave({"a": clock.taking("a", 100.0, 50.0, 2.0)}, runs=4, warmup=2, clock=clock)
    assert taken == {"a": [2.0, 2.0, 2.0, 2.0]}


def test_each_call_has_its_own_time() -> None:
    clock = Clock()
    taken = interleave(
        {"slow": clock.taking("slow", 4.0, 6.0, 4.0), "fast": clock.taking("fast", 1.0)}, runs=3, warmup=0, clock=clock
    )
    assert taken == {"slow": [4.0, 6.0, 4.0], "fast": [1.0, 1.0, 1.0]}


def test_a_time_limit_leaves_three_rounds_at_least() -> None:
    clock = Clock()
    assert len(interleave({"a": clock.taking("a", 10.0)}, runs=9, warmup=1, seconds=5, clock=clock)["a"]) == 3
    assert len(interleave({"a": clock.taking("a", 10.0)}, runs=9, warmup=1, seconds=55, clock=clock)["a"]) == 5


def test_any_accelerator_is_waited_for_and_the_cpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr("torch.accelerator.synchronize", waited.append)
    interleave({"a": lambda: None}, device="mps", runs=1, warmup=0)
    assert waited == [torch.device("mps")] * 2
    interleave({"a": lambda: None}, device="cpu", runs=1, warmup=0)
    wait_for(torch.device("meta"))
    assert len(waited) == 2


def test_an_evaluation_waits_for_the_accelerator_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("meta"))
    monkeypatch.setattr("torch.accelerator.synchronize", waited.append)
    images = torch.empty(2, 3, 8, 8, device="meta")
    Defences(torch.nn.Identity(), {}).timed("none", Variant(), images)
    assert waited == [images.device] * 2


def test_median_and_quartiles_of_known_values() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(2.0, 3.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    with pytest.raises(OptionError, match="expected at least one measurement, got none"):
        spread([])


def test_a_speedup_is_taken_round_by_round() -> None:
    # The machine is four times slower in the last round; both sides are.
    assert speedup([2.0, 2.0, 8.0], [1.0, 1.0, 4.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("runs", "warmup"), [(0, 1), (1, -1)])
def test_impossible_counts_are_refused(runs: int, warmup: int) -> None:
    with pytest.raises(OptionError, match=f"expected runs of at least 1 .* got runs={runs}, warmup={warmup}"):
        interleave({"a": lambda: None}, runs=runs, warmup=warmup)


def test_peak_memory_sees_what_a_call_takes_and_gives_back() -> None:
    def call() -> None:
        torch.ones(64, 1 << 20, dtype=torch.uint8)

    peak = peak_extra_bytes(call, warm_up=lambda: None)
    assert peak is None or 48 << 20 < peak < 120 << 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_cuda_is_what_the_allocator_held() -> None:
    def call() -> None:
        torch.ones(64, 1 << 20, dtype=torch.uint8, device="cuda")

    assert peak_extra_bytes(call, warm_up=lambda: None, device="cuda") == 64 << 20
