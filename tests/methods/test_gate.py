"""The gate of Alloy: its arithmetic, halo, sizes and effect on the output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from purifier import Purifier
from purifier.methods._gate import Gate
from purifier.methods.alloy import Alloy
from purifier.methods.gs import GaussianSmoothing
from tests.builders import pictures, small_method


def gate(filters: int = 3, blocks: int = 0) -> Gate:
    torch.manual_seed(0)
    made = Gate(filters, blocks).double()
    with torch.no_grad():
        for block in made.layers[3 : 3 + blocks]:
            # A block begins as the identity.
            torch.nn.init.kaiming_normal_(block.conv2.weight)
        # So that no weight is all but 0 or 1.
        made.layers[-1].weight.mul_(0.2)
    return made


def without_gate(gated: Alloy) -> Alloy:
    free = Alloy(**{**gated.options, "gate": 0})
    free.load_state_dict({name: value for name, value in gated.state_dict().items() if not name.startswith("gate.")})
    return free


@pytest.mark.parametrize("blocks", [0, 2])
def test_it_equals_a_computation_from_its_state_dict(blocks: int) -> None:
    made, images = gate(blocks=blocks), pictures(1, 3, 24, 80, dtype=torch.float64)
    state = made.state_dict()

    def conv(number: int | str, features: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = state[f"layers.{number}.weight"], state[f"layers.{number}.bias"]
        return F.conv2d(features, weight, bias, stride=stride, padding=weight.shape[-1] // 2)

    features = F.pixel_unshuffle(16 * (images - GaussianSmoothing(kernel_size=5, iterations=1)(images)), 2)
    features = conv(1, features).clamp_min(0)
    for number in range(3, 3 + blocks):
        change = conv(f"{number}.conv2", conv(f"{number}.conv1", features).clamp_min(0))
        assert change.std() > 0.1
        features = features + change
    for number, stride in [(3, 2), (5, 2), (7, 1)]:
        features = conv(number + blocks, features, stride).clamp_min(0)
    cells = conv(9 + blocks, features)[0, 0].numpy()
    assert cells.shape == (3, 10)
    means = np.array([[cells[:, max(0, x - 4) : x + 5].mean() for x in range(10)]] * 3)
    np.testing.assert_allclose(made.logits(images)[0, 0].detach().numpy(), means)
    weights = 1 / (1 + np.exp(-means[0]))
    assert np.ptp(weights) > 0.01
    # Between the middles of two cells the weights lie on a line.
    expected = np.interp(np.arange(80) + 0.5, 8 * np.arange(10) + 4, weights)
    np.testing.assert_allclose(made(images)[0, 0, 11].detach().numpy(), expected)


@pytest.mark.parametrize("blocks", [0, 2])
def test_its_farthest_dependency_is_at_its_halo(blocks: int) -> None:
    made = gate(blocks=blocks)
    cells = 2 * (made.halo // Gate.cell) + 5
    image = pictures(1, 3, cells * Gate.cell, cells * Gate.cell, dtype=torch.float64).requires_grad_()
    first = cells // 2 * Gate.cell
    farthest = 0
    for row in range(first, first + Gate.cell):
        (gradient,) = torch.autograd.grad(made(image)[0, :, row, row].sum(), image)
        seen = gradient[0].abs().sum((0, 2)).nonzero().flatten()
        farthest = max(farthest, row - int(seen.min()), int(seen.max()) - row)
    assert farthest == made.halo
    (stage,) = Alloy(filters=2, blocks=1, iterations=1, patch=3, gate=2, gate_blocks=blocks).stages()
    assert (stage.halo, stage.align) == (made.halo, 24)


def test_untrained_blocks_are_the_identity() -> None:
    images = pictures(1, 3, 24, 24)
    torch.manual_seed(0)
    plain = Gate(3)
    deep = Gate(3, blocks=2)
    kept = {name: value for name, value in deep.state_dict().items() if "conv" not in name}
    plain.load_state_dict(dict(zip(plain.state_dict(), kept.values(), strict=True)))
    torch.testing.assert_close(deep(images), plain(images))


@pytest.mark.parametrize("size", [(1, 2), (7, 10), (9, 16)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_an_odd_size_equals_the_reflected_whole_size_cropped_back(size: tuple[int, int]) -> None:
    made, (height, width) = gate(), size
    images = pictures(1, 3, *size, dtype=torch.float64)
    bottom, right = (-side % 8 for side in size)

    def whole(part: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.pad(part.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="reflect"))

    weights = made(images)
    assert weights.shape == (1, 1, height, width)
    expected = made(whole(images), smoothed=whole(GaussianSmoothing(kernel_size=5, iterations=1)(images)))
    torch.testing.assert_close(weights, expected[..., :height, :width])


def test_blur_and_gate_combine_to_the_gated_output() -> None:
    gated, images = small_method("alloy", iterations=1, blur=1, gate=3), pictures(1, 3, 18, 21)
    weights, expected = gated.gate(images), Alloy.reconstruct(without_gate(gated), images)
    torch.testing.assert_close(gated.reconstruct(images), images + weights * (expected - images))


@pytest.mark.parametrize(("bias", "share"), [(-1000.0, 0.0), (0.0, 0.5), (1000.0, 1.0)])
def test_the_change_of_the_image_is_weighted_by_the_gate(bias: float, share: float) -> None:
    gated, images = small_method("alloy", iterations=1, gate=3), pictures(2, 3, 18, 21)
    last = gated.gate.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, bias)
    free = without_gate(gated)
    assert free.options["gate"] == 0 and gated.options["gate"] == 3
    torch.testing.assert_close(gated.reconstruct(images), images + share * (free.reconstruct(images) - images))


def test_each_position_has_its_own_weight() -> None:
    # The gate is open where the picture is grained, in its left half.
    gated = small_method("alloy", iterations=1, gate=1)
    with torch.no_grad():
        for layer in gated.gate.layers:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.fill_(1.0)
                layer.bias.zero_()
        gated.gate.layers[-1].bias.fill_(-300.0)
    images = torch.zeros(1, 3, 160, 160)
    images[..., :80] = torch.rand(1, 3, 160, 80, generator=torch.Generator().manual_seed(0))
    purified = Purifier(gated)(images)
    assert torch.equal(purified[..., 144:], images[..., 144:])
    assert (purified[..., :40] - images[..., :40]).abs().mean() > 0.1


def test_a_higher_gate_bias_purifies_more_and_can_be_set_at_loading(tmp_path: Path) -> None:
    saved, images = Purifier(small_method("alloy", iterations=1, gate=3), name="gated"), pictures(2, 3, 18, 24)
    saved.save_pretrained(tmp_path)
    outputs = [Purifier.from_pretrained(tmp_path, gate_bias=gate_bias)(images) for gate_bias in (-20, -1, 0, 1, 20)]
    saved.method.gate = None
    torch.testing.assert_close(outputs[0], images, rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs[-1], saved(images), rtol=0, atol=1e-4)
    done = [(output - images).abs().mean() for output in outputs]
    assert done == sorted(done) and len(set(done)) == 5
    odds = [Gate(2)(images, gate_bias).logit().mean() for gate_bias in (0.0, 3.0) for _ in [torch.manual_seed(0)]]
    torch.testing.assert_close(odds[1] - odds[0], torch.tensor(3.0), rtol=0.01, atol=0)


def test_gradients_pass_the_gate() -> None:
    gated, images = small_method("alloy", iterations=1, gate=3), pictures(1, 3, 16, 16)
    gated(images).square().sum().backward()
    assert not [name for name, weight in gated.named_parameters() if weight.grad is None or not weight.grad.any()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_no_more_than_the_image(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made, images = Gate(8), pictures(2, 3, 32, 32).to(dtype).float()
    exact = made.logits(images)
    assert exact.std() > 0.1
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(made.logits(images).float(), exact, rtol=0.05, atol=0.05)
        assert torch.equal(made.smoothed(images.to(dtype)), made.smoothed(images))
    half = made.to(dtype).logits(images.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
