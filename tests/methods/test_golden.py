"""Outputs do not change between versions of this library and of torch."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.golden.make import FOLDER, OPTIONS, picture, purifier


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_output_is_the_stored_one(name: str) -> None:
    stored = load_file(FOLDER / f"{name}.safetensors")["out"]
    torch.testing.assert_close(purifier(name)(picture()), stored, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_stored_output_is_not_trivial(name: str) -> None:
    stored = load_file(FOLDER / f"{name}.safetensors")["out"]
    assert stored.std() > 0.01
    assert ((stored > 0) & (stored < 1)).float().mean() > 0.5
    assert not torch.equal(stored, picture())
