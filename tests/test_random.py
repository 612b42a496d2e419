"""Torch's global random state inside and after `isolated_randomness`."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from purifier import OptionError, Purifier
from purifier._random import Unfilled, isolated_randomness


@pytest.mark.parametrize("seed", [None, 3])
def test_the_state_is_restored_after_the_context(seed: int | None) -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with isolated_randomness(torch.device("cpu"), seed=seed):
        torch.rand(7)
    assert torch.equal(torch.rand(4), expected)


def test_the_state_is_restored_after_an_error() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with pytest.raises(RuntimeError, match="stop"), isolated_randomness(seed=3):
        torch.rand(7)
        raise RuntimeError("stop")
    assert torch.equal(torch.rand(4), expected)


def test_a_seed_decides_what_is_drawn_inside() -> None:
    expected = torch.rand(4, generator=torch.Generator().manual_seed(3))
    with isolated_randomness(seed=3):
        assert torch.equal(torch.rand(4), expected)


def test_without_a_seed_the_state_inside_starts_as_outside() -> None:
    torch.manual_seed(5)
    with isolated_randomness():
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), inside)


def test_loading_in_one_thread_leaves_the_random_numbers_of_others_as_they_are() -> None:
    torch.manual_seed(3)
    expected = torch.stack([torch.rand(5) for _ in range(300)])
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            Purifier.from_pretrained("ncis").gated()

    thread = threading.Thread(target=load)
    torch.manual_seed(3)
    thread.start()
    drawn = torch.stack([torch.rand(5) for _ in range(300)])
    ended.set()
    thread.join()
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("name", ["nrp-resg", "ncis", "alloy-s", "gad-cifar10-resnet20", "gs"])
def test_loading_draws_no_random_numbers(name: str) -> None:
    before = torch.get_rng_state()
    Purifier.from_pretrained(name)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 4), lambda: nn.Conv2d(3, 4, 3), lambda: nn.PReLU(3)])
def test_modules_are_built_in_float32_on_the_device_without_filling_them(make: object) -> None:
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), Unfilled("cpu"):
            made = make()  # type: ignore[operator]
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert {(weight.dtype, weight.device.type) for weight in made.parameters()} == {(torch.float32, "cpu")}


def test_a_network_of_too_many_tensors_is_not_built() -> None:
    with pytest.raises(OptionError, match="expected a network of fewer layers"), Unfilled("meta", most=5):
        nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
