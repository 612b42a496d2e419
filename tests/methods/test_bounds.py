"""Options of methods have largest values, whose reason is told."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from purifier import OptionError, Purifier
from purifier.methods import METHODS
from purifier.methods.chain import Chain
from purifier.methods.gs import GaussianSmoothing
from tests.builders import small_method, small_purifier


def whole_numbers() -> list[tuple[str, str]]:
    """Every option of every method whose default is a whole number."""
    found = []
    for name, kind in METHODS.items():
        for option in inspect.signature(kind).parameters.values():
            if type(option.default) is int or option.annotation == "int":
                found.append((name, option.name))
    return found


@pytest.mark.parametrize(("name", "option"), whole_numbers())
@pytest.mark.parametrize("value", [10**6 + 1, 10**30, 1e23, float("inf"), "9" * 100, None, [[1] * 9] * 9], ids=repr)
def test_every_whole_number_has_a_largest_value(name: str, option: str, value: object) -> None:
    given: dict[str, Any] = {"method": small_method("gs"), "gate": 1} if name == "gated" else {}
    if option == "seed" and value == 10**6 + 1:
        return
    with pytest.raises(OptionError) as refused:
        METHODS[name](**{**given, option: value})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("iterations", [101, 10**9])
@pytest.mark.parametrize("name", ["alloy", "ncis"])
def test_iterations_cannot_be_set_beyond_their_largest_value(name: str, iterations: int) -> None:
    purify = small_purifier(name)
    with pytest.raises(OptionError, match=rf"iterations to be an integer from 0 to 100, got {iterations}; more would"):
        purify.iterations = iterations


def test_the_passes_of_a_wide_kernel_are_fewer() -> None:
    purify = Purifier(GaussianSmoothing(kernel_size=255, iterations=8))
    with pytest.raises(OptionError, match="from 0 to 8, got 9; more would take minutes"):
        purify.iterations = 9
    Purifier(GaussianSmoothing(kernel_size=3, iterations=1024))


def test_a_chain_of_too_many_methods_is_refused() -> None:
    link = small_method("gs")
    Chain([link] * 64)
    with pytest.raises(OptionError, match="number of methods in a chain to be an integer from 0 to 64, got 65"):
        Chain([link] * 65)
    chain = Chain([link])
    with pytest.raises(OptionError, match="number of methods in a chain"):
        for _ in range(100):
            chain = Chain([chain])


def test_the_largest_chain_is_saved_and_loaded(tmp_path: Any) -> None:
    chain = Chain([small_method("gs")])
    for _ in range(30):
        chain = Chain([chain])
    Purifier(Chain([chain, *[small_method("median")] * 30])).dynamic().save_pretrained(tmp_path)
    Purifier.from_pretrained(tmp_path)
