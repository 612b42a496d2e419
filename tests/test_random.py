"""Torch's global random state inside and after `isolated_randomness`."""

import pytest
import torch

from purifier._random import isolated_randomness


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
