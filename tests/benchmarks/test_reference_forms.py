"""The plain forms compute what our methods compute."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.reference_forms import form_names, reference
from purifier import Purifier
from tests.builders import pictures, small_method

FORMS = [(method, form) for method in ("gs", "ncis", "nrp", "nrp-resg") for form in form_names(method)]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_reference_form_equals_ours(name: str, form: str) -> None:
    method = small_method(name)
    images = pictures(2, 3, 22, 18)
    with torch.inference_mode():
        assert torch.allclose(reference(method, form)(images), method(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gs", "ncis"])
def test_a_reference_form_equals_the_shipped_purifier(name: str) -> None:
    method = Purifier.from_pretrained(name, iterations=7).method
    images = pictures(1, 3, 24, 32)
    with torch.inference_mode():
        expected = method(images)
        for form in form_names(name):
            assert torch.allclose(reference(method, form)(images), expected, atol=1e-4, rtol=0)


def test_a_reference_form_multiplies_its_mask_in_every_forward() -> None:
    method = small_method("ncis")
    plain = reference(method, "module by module")
    images = pictures(1, 3, 24, 24)
    with torch.inference_mode():
        expected = plain(images)
        for conv in plain.network.net.context:
            conv.weight.copy_(torch.where(conv.mask == 0, 1e3, conv.weight))
        assert torch.equal(plain(images), expected)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_the_gradient_of_a_reference_form_is_ours(name: str, form: str) -> None:
    method = small_method(name)
    images, weights = pictures(2, 3, 22, 18), pictures(2, 3, 22, 18, seed=1)
    leaves = [images.clone().requires_grad_() for _ in range(2)]
    gradients = [
        torch.autograd.grad((call(leaf) * weights).sum(), leaf)[0]
        for call, leaf in zip((reference(method, form), method), leaves, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
