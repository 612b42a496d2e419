"""GAD's generator: its layers, its sizes, the missing skip, what its norm forgets."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from purifier import OptionError
from purifier.methods.gad import GAD
from tests.builders import pictures, small_method


def conv(state: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    reach = weight.shape[-1] // 2
    return F.conv2d(F.pad(features, (reach,) * 4, mode="reflect"), weight, state[f"{name}.bias"])


def norm(state: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    mean, variance = features.mean((1, 2, 3), keepdim=True), features.var((1, 2, 3), keepdim=True, correction=0)
    normed = (features - mean) / (variance + 1e-5).sqrt()
    return normed * state[f"{name}.weight"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)


def test_it_equals_a_computation_from_its_state_dict() -> None:
    method = small_method("gad", downsamples=1, blocks=1).double()
    images = pictures(2, 3, 8, 12, dtype=torch.float64)
    state = method.state_dict()
    features = norm(state, "stem.1", conv(state, "stem.0", images)).clamp_min(0)
    halved = F.conv2d(features, state["down.0.0.weight"], state["down.0.0.bias"], stride=2, padding=1)
    features = norm(state, "down.0.1", halved).clamp_min(0)
    inner = norm(state, "body.0.norm1", conv(state, "body.0.conv1", features)).clamp_min(0)
    features = features + norm(state, "body.0.norm2", conv(state, "body.0.conv2", inner))
    doubled = F.conv_transpose2d(
        features, state["up.0.0.weight"], state["up.0.0.bias"], stride=2, padding=1, output_padding=1
    )
    features = norm(state, "up.0.1", doubled).clamp_min(0)
    expected = 0.5 + 0.55 * conv(state, "head", features).tanh()
    torch.testing.assert_close(method(images), expected)


def test_its_size_is_that_of_pix2pixhd() -> None:
    with torch.device("meta"):
        method = GAD(filters=64, blocks=9, downsamples=4, norm="instance")
    # Its published generator "netG global, 64 filters, 4 down-samplings, 9 blocks", layer by layer.
    widths = [64, 128, 256, 512, 1024]
    ends = 2 * 3 * 49 * 64 + 64 + 3
    between = sum(2 * 9 * a * b + a + b for a, b in pairwise(widths))
    assert sum(p.numel() for p in method.parameters()) == ends + between + 9 * 2 * (9 * 1024**2 + 1024)


@pytest.mark.parametrize("downsamples", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 16), (17, 64)])
def test_any_size_is_kept(downsamples: int, size: tuple[int, int]) -> None:
    method = small_method("gad", filters=2, blocks=1, downsamples=downsamples)
    assert method(pictures(1, 3, *size)).shape == (1, 3, *size)


def test_padding_is_a_reflection_below_and_to_the_right() -> None:
    method, images = small_method("gad"), pictures(1, 3, 10, 13)
    padded = F.pad(images, (0, 3, 0, 2), mode="reflect")
    torch.testing.assert_close(method(images), method(padded)[..., :10, :13])


def test_no_skip_connection_runs_from_input_to_output() -> None:
    method, images = small_method("gad"), pictures(1, 3, 9, 8)
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)
    assert torch.equal(method(images), torch.full_like(images, 0.5))


def test_black_and_white_can_be_output() -> None:
    method = small_method("gad")
    torch.nn.init.zeros_(method.head.weight)
    for end in (-2.0, 2.0):
        torch.nn.init.constant_(method.head.bias, end)
        out = method(pictures(1, 3, 9, 8))
        assert (out < 0).all() if end < 0 else (out > 1).all()


@pytest.mark.parametrize(("kind", "same"), [("instance", True), ("layer", False), ("none", False)])
def test_only_instance_norm_forgets_how_bright_a_picture_is(kind: str, same: bool) -> None:
    method, images = small_method("gad", norm=kind), pictures(1, 3, 16, 16, low=0.2, high=0.4)
    assert torch.allclose(method(images), method(images + 0.4), atol=1e-5) == same


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"blocks": 0}, "expected blocks to be an integer of at least 1, got 0"),
        ({"downsamples": 9}, "expected downsamples to be an integer from 1 to 8, got 9"),
        ({"norm": "batch"}, "expected norm='layer', 'instance' or 'none', got 'batch'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        GAD(**options)
