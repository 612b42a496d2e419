"""The candidates to take the place of our forms compute what ours compute."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.candidate_forms import candidate, candidates, sort, unsort
from tests.builders import pictures, small_method


@pytest.mark.parametrize("size", [(22, 18), (24, 36), (20, 22)])
@pytest.mark.parametrize("name", ["ncis", "nrp"])
def test_a_candidate_equals_ours(name: str, size: tuple[int, int]) -> None:
    method = small_method(name)
    images = pictures(2, 3, *size)
    (form,) = candidates(name)
    other = candidate(method, form)
    assert other.options == method.options
    with torch.inference_mode():
        assert torch.allclose(other(images), method(images), atol=1e-5, rtol=0)


def test_sorted_pixels_go_back_to_their_places() -> None:
    features = torch.arange(2 * 4 * 7 * 11.0).reshape(2, 4, 7, 11)
    apart = sort(features, 3)
    assert apart.shape == (18, 4, 3, 4)
    assert torch.equal(apart[0, :, :3, :4], features[0, :, ::3, ::3])
    assert torch.equal(unsort(apart, 3, 7, 11), features)


def test_an_unknown_candidate_is_an_error() -> None:
    assert candidates("gs") == []
    with pytest.raises(ValueError, match="expected one of"):
        candidate(small_method("ncis"), "as fast as light")
