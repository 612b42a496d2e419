"""Alloy: its size and cost, the arithmetic, patches, iterations, the missing skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from purifier import OptionError, Purifier
from purifier.methods.alloy import Alloy
from purifier.methods.gs import GaussianSmoothing
from tests.builders import pictures, small_method, small_purifier

# The two sizes that are to ship; what one 224 x 224 image costs, and what it may cost, at their default iterations, in
# 1e9 multiply-accumulates. The smaller one's limit is what a ResNet-50 costs.
SIZES: dict[str, tuple[dict[str, int], float, float]] = {
    "alloy": (
        {"patch": 2, "filters": 64, "blocks": 4, "levels": 3, "blur": 2, "gate": 32, "iterations": 1},
        22.97,
        25,
    ),
    "alloy-s": (
        {"patch": 2, "filters": 32, "blocks": 2, "levels": 4, "blur": 1, "gate": 32, "iterations": 1},
        4.09,
        4.1,
    ),
}


def cost(**options: int) -> float:
    """Multiply-accumulates of one 224 x 224 image on a CPU, those of the passes of GS among them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Alloy(**options)(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops() / 2


def test_a_network_of_the_default_options_has_the_intended_size_and_cost() -> None:
    with torch.device("meta"):
        method = Alloy()
    assert sum(parameter.numel() for parameter in method.parameters()) == 900_172
    weights = sum(parameter.numel() for parameter in method.parameters() if parameter.ndim == 4)
    assert cost() == method.iterations * weights * (224 // method.patch) ** 2


@pytest.mark.parametrize("name", sorted(SIZES))
def test_one_image_costs_no_more_than_intended(name: str) -> None:
    options, stated, most = SIZES[name]
    assert round(cost(**options) / 1e9, 2) == stated < most


def test_a_coarser_scale_costs_what_a_finer_one_does() -> None:
    more, fewer = (cost(blocks=blocks, levels=3) - cost(blocks=blocks, levels=2) for blocks in (3, 2))
    one = cost(blocks=2) - cost(blocks=1)
    # Of each scale, a block on the way down and one on the way up.
    assert more - fewer == 2 * one


def test_it_equals_a_computation_from_its_state_dict() -> None:
    method, images = small_method("alloy", blocks=1, iterations=1).double(), pictures(1, 3, 6, 8, dtype=torch.float64)
    state = method.state_dict()

    def conv(name: str, features: torch.Tensor) -> torch.Tensor:
        return F.conv2d(features, state[f"network.{name}.weight"], state[f"network.{name}.bias"], padding=1)

    # Channel 4 c + 2 y + x of a patch is channel c of its pixel (y, x).
    patches = images.view(1, 3, 3, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 12, 3, 4)
    features = conv("0", patches)
    features = features + conv("1.conv2", conv("1.conv1", features).clamp_min(0))
    expected = conv("2", features).view(1, 3, 2, 2, 3, 4).permute(0, 1, 4, 2, 5, 3).reshape(1, 3, 6, 8)
    assert expected.std() > 0.01
    torch.testing.assert_close(method.reconstruct(images), expected)


def test_several_scales_equal_a_computation_from_their_state_dict() -> None:
    method = small_method("alloy", blocks=1, levels=3, iterations=1).double()
    images = pictures(1, 3, 16, 24, dtype=torch.float64)
    state = {name.removeprefix("network."): value for name, value in method.state_dict().items()}

    def conv(name: str, features: torch.Tensor, **options: int) -> torch.Tensor:
        return F.conv2d(features, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def residual(name: str, features: torch.Tensor) -> torch.Tensor:
        return features + conv(f"{name}.conv2", conv(f"{name}.conv1", features, padding=1).clamp_min(0), padding=1)

    def raised(name: str, features: torch.Tensor) -> torch.Tensor:
        # Channel 4 c + 2 y + x is channel c of the finer position (y, x).
        _, _, height, width = features.shape
        parts = conv(name, features).view(1, -1, 2, 2, height, width)
        return parts.permute(0, 1, 4, 2, 5, 3).reshape(1, -1, 2 * height, 2 * width)

    fine = residual("before.0.0", conv("first", F.pixel_unshuffle(images, 2), padding=1))
    half = residual("before.1.0", conv("down.0", fine, stride=2))
    quarter = residual("coarsest.1", residual("coarsest.0", conv("down.1", half, stride=2)))
    half = residual("after.1.0", half + raised("up.1", quarter))
    fine = residual("after.0.0", fine + raised("up.0", half))
    expected = F.pixel_shuffle(conv("last", fine, padding=1), 2)
    assert quarter.shape == (1, 24, 2, 3)
    assert expected.std() > 0.01
    torch.testing.assert_close(method.reconstruct(images), expected)


def test_every_scale_takes_part() -> None:
    method, images = small_method("alloy", blocks=1, levels=4, iterations=1), pictures(1, 3, 16, 16)
    method.reconstruct(images).square().sum().backward()
    assert not [name for name, weight in method.named_parameters() if weight.grad is None or not weight.grad.any()]


@pytest.mark.parametrize("levels", [1, 3])
def test_no_skip_connection_runs_from_input_to_output(levels: int) -> None:
    method, images = small_method("alloy", iterations=1, levels=levels), pictures(1, 3, 9, 8)
    assert method.reconstruct(images).any()
    last = [part for part in method.modules() if isinstance(part, torch.nn.Conv2d)][-1]
    for weight in last.parameters():
        torch.nn.init.zeros_(weight)
    assert not method.reconstruct(images).any()


@pytest.mark.parametrize(
    ("patch", "levels", "blur"),
    [(1, 1, 0), (2, 1, 0), (3, 1, 0), (1, 1, 1), (2, 1, 2), (1, 2, 0), (2, 2, 1), (1, 3, 0)],
)
def test_its_farthest_dependency_is_at_its_halo(patch: int, levels: int, blur: int) -> None:
    method = small_method("alloy", blocks=1, iterations=1, patch=patch, levels=levels, clamp=False, blur=blur).double()
    (stage,) = method.stages()
    assert stage.halo is not None
    assert stage.align == patch * 2 ** (levels - 1)
    cells = 2 * (stage.halo // stage.align) + 5
    image = pictures(1, 3, cells * stage.align, cells * stage.align, dtype=torch.float64).requires_grad_()
    first = cells // 2 * stage.align
    farthest = 0
    for row in range(first, first + stage.align):
        (gradient,) = torch.autograd.grad(method(image)[0, :, row, row].sum(), image)
        seen = gradient[0].abs().sum((0, 2)).nonzero().flatten()
        assert row - stage.halo <= seen.min() and seen.max() <= row + stage.halo
        farthest = max(farthest, row - int(seen.min()), int(seen.max()) - row)
    assert farthest == stage.halo


@pytest.mark.parametrize("size", [(7, 10), (10, 7), (9, 11), (1, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("levels", [1, 2])
def test_an_odd_size_equals_the_reflected_whole_size_cropped_back(size: tuple[int, int], levels: int) -> None:
    method, (height, width) = small_method("alloy", iterations=1, levels=levels), size
    images = pictures(1, 3, *size)
    bottom, right = (-side % (2 * levels) for side in size)
    whole = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="reflect"))
    assert not any(side % (2 * levels) for side in whole.shape[-2:])
    torch.testing.assert_close(method(images), method(whole)[..., :height, :width])


def test_the_network_sees_a_blurred_image_at_every_iteration() -> None:
    sharp, images = small_method("alloy", iterations=2), pictures(1, 3, 10, 12)
    blurred = small_method("alloy", iterations=2, blur=2)
    blurred.load_state_dict(sharp.state_dict())
    smooth = GaussianSmoothing(iterations=2)
    once = sharp.step(smooth(images))
    torch.testing.assert_close(blurred.step(images), once)
    torch.testing.assert_close(blurred(images), sharp.step(smooth(once)))
    assert (once - sharp.step(images)).abs().max() > 1e-3


def test_iterations_are_the_number_of_steps() -> None:
    purify, images = small_purifier("alloy"), pictures(1, 3, 10, 12)
    step = purify.method.step
    assert purify.iterations == 2
    for iterations, expected in [(0, images), (1, step(images)), (3, step(step(step(images))))]:
        purify.iterations = iterations
        torch.testing.assert_close(purify(images), expected)


def test_iterations_are_chosen_when_a_folder_is_loaded(tmp_path: Path) -> None:
    saved = small_purifier("alloy")
    saved.save_pretrained(tmp_path)
    loaded, images = Purifier.from_pretrained(tmp_path, iterations=4), pictures(1, 3, 10, 12)
    saved.iterations = 4
    assert torch.equal(loaded(images), saved(images))
    with pytest.raises(
        OptionError,
        match=r"expected the options iterations, clamp, gate_bias, gate_floor, .* got 'patch', which is fixed",
    ):
        Purifier.from_pretrained(tmp_path, patch=4)


def test_the_clamp_is_between_the_iterations() -> None:
    clamped, free = (small_method("alloy", clamp=clamp) for clamp in (True, False))
    for method in (clamped, free):
        with torch.no_grad():
            method.network[-1].bias.add_(torch.linspace(-1, 1, 12))
    images = pictures(1, 3, 10, 12)
    once = free.step(images)
    assert once.min() < 0 and once.max() > 1
    assert torch.equal(clamped.step(images), once.clamp(0, 1))
    torch.testing.assert_close(free(images), free.reconstruct(once))
    torch.testing.assert_close(clamped(images), free.reconstruct(once.clamp(0, 1)).clamp(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "expected patch to be an integer of at least 1, got 0"),
        ({"filters": 0}, "expected filters to be an integer of at least 1, got 0"),
        ({"blocks": 0}, "expected blocks to be an integer of at least 1, got 0"),
        ({"levels": 0}, "expected levels to be an integer of at least 1, got 0"),
        ({"gate": -1}, "expected gate to be an integer of at least 0, got -1"),
        ({"gate_blocks": -1}, "expected gate_blocks to be an integer of at least 0, got -1"),
        ({"gate_bias": 21.0}, r"expected gate_bias to be a number from -20\.0 to 20\.0, got 21\.0"),
        ({"blur": -1}, "expected blur to be an integer of at least 0, got -1"),
        ({"iterations": -1}, "expected iterations to be an integer of at least 0, got -1"),
        ({"iterations": 1.5}, r"expected iterations to be an integer of at least 0, got 1\.5"),
    ],
)
def test_options_out_of_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Alloy(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_shipped_network_has_the_intended_size(name: str) -> None:
    purifier = Purifier.from_pretrained(name)
    assert purifier.name == name
    options = purifier.method.options
    assert {key: options[key] for key in SIZES[name][0]} == SIZES[name][0]


def test_a_clamp_that_is_not_a_bool_is_refused() -> None:
    with pytest.raises(OptionError, match="expected clamp to be True or False, got 'false'"):
        Alloy(clamp="false")  # type: ignore[arg-type]
