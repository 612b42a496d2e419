"""The threshold of a gate: an image whose score is no higher is returned unchanged, and skips the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, Purifier
from purifier._images import take_apart
from purifier.attacks.bpda import through_floors
from purifier.inference.pictures import purify_picture
from purifier.methods._gate import Gate
from purifier.methods.alloy import Alloy
from purifier.methods.gated import Gated
from tests.builders import pictures, small_method
from tests.methods.test_gate_floor import batches_of, images_in

IMAGES = pictures(3, 3, 40, 48)


def gate_of_score(score: float) -> Gate:
    """Makes a gate that gives every cell of every image the same probability."""
    gate = Gate(2)
    with torch.no_grad():
        last = gate.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.zero_()
        last.bias.fill_(torch.tensor(score).logit().item())
    return gate


def of_score(method: Alloy | Gated, score: float) -> Alloy | Gated:
    method.gate = gate_of_score(score)
    return method


def alloy(threshold: float, score: float) -> Alloy | Gated:
    return of_score(small_method("alloy", gate=2, iterations=1, gate_bias=3.0, gate_threshold=threshold), score)


def gated(threshold: float, score: float) -> Alloy | Gated:
    return of_score(Gated(small_method("nrp-resg"), gate=2, gate_bias=3.0, gate_threshold=threshold), score)


BOTH = pytest.mark.parametrize("build", [alloy, gated])


@pytest.mark.parametrize(
    ("score", "factor"), [(0.1, 0.0), (0.2, 0.0), (0.3, 0.5), (0.35, 0.75), (0.4, 1.0), (0.9, 1.0)]
)
def test_the_weights_rise_from_the_threshold_to_twice_its_value(score: float, factor: float) -> None:
    gate = gate_of_score(score)
    plain, weights = gate(IMAGES, 1.0), gate(IMAGES, 1.0, gate_threshold=0.2)
    torch.testing.assert_close(weights, factor * plain, rtol=1e-4, atol=1e-6)


@BOTH
def test_below_the_threshold_an_image_is_unchanged_and_costs_no_network(build: object) -> None:
    closed, opened = build(0.5, 0.4), build(0.5, 0.99)  # type: ignore[operator]
    shapes = batches_of(closed)
    with torch.no_grad():
        assert torch.equal(closed(IMAGES), IMAGES) and not shapes
        shapes = batches_of(opened)
        assert not torch.equal(opened(IMAGES), IMAGES) and images_in(shapes) == 3


@BOTH
def test_from_twice_the_threshold_on_it_changes_no_bit(build: object) -> None:
    method = build(0.4, 0.9)  # type: ignore[operator]
    with torch.no_grad():
        high = method(IMAGES)
        method.gate_threshold = 0.0
        assert torch.equal(high, method(IMAGES))


def test_the_score_is_that_of_attack_score() -> None:
    torch.manual_seed(0)
    method = small_method("alloy", gate=4, iterations=1)
    scores = Purifier(method).attack_score(IMAGES)
    weights = method.gate(IMAGES, gate_threshold=0.4) / method.gate(IMAGES)
    expected = ((scores - 0.4) / 0.4).clamp(0, 1).view(3, 1, 1, 1).expand_as(weights)
    torch.testing.assert_close(weights, expected)


def test_images_are_judged_one_by_one() -> None:
    torch.manual_seed(0)
    method = small_method("alloy", gate=4, iterations=1)
    scores = Purifier(method).attack_score(IMAGES)
    method.gate_threshold = scores.median().item()
    shapes = batches_of(method)
    with torch.no_grad():
        out = method(IMAGES)
    assert images_in(shapes) == 1
    below = scores <= scores.median()
    assert torch.equal(out[below], IMAGES[below]) and not torch.equal(out[~below], IMAGES[~below])


def test_an_aware_attack_gets_the_gradient_without_the_threshold() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 48, 4))
    torch.manual_seed(0)
    method = small_method("alloy", gate=4, iterations=1, gate_threshold=0.9)
    defended = Purifier(method.requires_grad_(False)).wrap(model)
    twin = through_floors(defended)

    def gradient(of: nn.Module) -> Tensor:
        images = IMAGES.clone().requires_grad_()
        (found,) = torch.autograd.grad(of(images).sum(), images)
        return found

    torch.testing.assert_close(twin(IMAGES), defended(IMAGES))
    assert torch.allclose(gradient(defended), gradient(model)) and not torch.allclose(gradient(twin), gradient(model))


def test_it_is_saved_tuned_and_copied_with_the_gate(tmp_path: Path) -> None:
    source = Purifier(alloy(0.25, 0.5), name="one")
    source.save_pretrained(tmp_path)
    assert Purifier.from_pretrained(tmp_path).method.options["gate_threshold"] == 0.25
    assert Purifier.from_pretrained(tmp_path, gate_threshold=0.0).method.options["gate_threshold"] == 0.0
    free = Purifier(small_method("ncis"))
    assert free.gated(source).method.options["gate_threshold"] == 0.25
    assert free.gated(source, gate_threshold=0.5).method.options["gate_threshold"] == 0.5


@pytest.mark.parametrize("threshold", [-0.1, 1.0, "low", True])
def test_a_threshold_out_of_its_range_is_refused(threshold: object) -> None:
    with pytest.raises(OptionError, match=r"expected gate_threshold to be a number from 0\.0 to 0\.99"):
        small_method("alloy", gate=1, gate_threshold=threshold)


def test_an_exported_graph_has_it() -> None:
    torch.manual_seed(0)
    method = small_method("alloy", gate=4, iterations=1, gate_threshold=0.45).requires_grad_(False).eval()
    exported = torch.export.export(method, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), method(IMAGES), rtol=0, atol=1e-6)


@BOTH
def test_tiles_and_blocks_have_the_score_of_the_whole_image(build: object, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    method = build(0.0, 0.5)  # type: ignore[operator]
    method.gate = Gate(2)
    # Grain in a corner: its tile alone would have a higher score.
    image = torch.full((1, 3, 256, 256), 0.5)
    image[..., :64, :64] = pictures(1, 3, 64, 64)
    purifier = Purifier(method.requires_grad_(False), name="one")
    score = purifier.attack_score(image).item()
    for threshold in (0.7 * score, 1.01 * score):
        method.gate_threshold = threshold
        whole = purifier(image)
        torch.testing.assert_close(purifier.tiled(64)(image), whole, rtol=0, atol=1e-5)
        assert torch.equal(whole, image) == (threshold > score)
        picture = take_apart((image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
        expected = purify_picture(purifier, picture)
        with monkeypatch.context() as small:
            small.setattr("purifier.inference.pictures.BLOCK", 64)
            small.setattr("purifier.inference.pictures.LARGE", 1)
            difference = np.abs(purify_picture(purifier, picture).astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
