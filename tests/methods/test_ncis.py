"""NCIS: its size, its blind spot, its masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from purifier import OptionError, Purifier, WeightsError
from purifier.methods.gs import GaussianSmoothing
from purifier.methods.ncis import FBIE, NCIS, FBINet, MaskedConv2d
from tests.builders import enliven, pictures, rehash, small_method, small_purifier


def masked(module: nn.Module) -> dict[str, Tensor]:
    """The weights of missing taps of every masked convolution."""
    found = {
        name: part.weight.detach()[:, :, part.mask == 0]
        for name, part in module.named_modules()
        if isinstance(part, MaskedConv2d)
    }
    assert found
    return found


def test_the_default_network_has_the_published_size() -> None:
    assert sum(parameter.numel() for parameter in NCIS().parameters()) == 408_844


def test_the_taps_of_the_masks_are_the_published_ones() -> None:
    masks = [part.mask.int().tolist() for part in FBINet(3, 4, 4).context]
    assert masks[0] == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    assert masks[1] == [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]
    assert masks[2] == masks[3] == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("layers", [2, 3, 4, 8])
def test_no_output_pixel_of_the_network_depends_on_its_own_input_pixel(layers: int) -> None:
    torch.manual_seed(layers)
    net = FBINet(3, 6, layers).double()
    enliven(net)
    size = 2 * net.halo + 3
    centre = size // 2
    image = pictures(1, 3, size, size, dtype=torch.float64).requires_grad_()
    for channel in range(3):
        (gradient,) = torch.autograd.grad(net(image)[0, channel, centre, centre], image)
        seen = gradient[0].abs().sum(0)
        assert seen[centre, centre] == 0
        for row, column in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]:
            assert seen[centre + row, centre + column] > 0


def test_the_farthest_dependency_of_the_network_is_at_its_halo() -> None:
    net = FBINet(3, 6, 4).double()
    enliven(net)
    halo = net.halo
    size = 2 * halo + 5
    image = pictures(1, 3, size, size, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(net(image)[0, :, size // 2, size // 2].sum(), image)
    rows = gradient[0].abs().sum((0, 2)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (size // 2 - halo, size // 2 + halo)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_no_output_patch_depends_on_its_own_input_patch(patch: int) -> None:
    net = FBIE(patch, 6, 4).double()
    enliven(net)
    image = pictures(1, 3, 7 * patch, 7 * patch, dtype=torch.float64).requires_grad_()
    own = slice(3 * patch, 4 * patch)
    for row in range(3 * patch, 4 * patch):
        for column in range(3 * patch, 4 * patch):
            (gradient,) = torch.autograd.grad(net(image)[0, :, row, column].sum(), image)
            assert not gradient[..., own, own].any()
            assert gradient.any()


def test_masked_weights_are_zero_when_new_after_training_and_in_the_file(tmp_path: Path) -> None:
    method = small_method("ncis")
    assert not any(weights.any() for weights in masked(method).values())
    optimiser = torch.optim.Adam(method.parameters(), lr=0.01, weight_decay=0.01)
    before = method.network.net.context[0].weight.detach().clone()
    images = pictures(2, 3, 16, 16)
    for _ in range(20):
        optimiser.zero_grad()
        (method.reconstruct(images) - images).square().mean().backward()
        optimiser.step()
    assert not torch.equal(method.network.net.context[0].weight, before)
    assert not any(weights.any() for weights in masked(method).values())
    Purifier(method).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for name, part in method.named_modules():
        if isinstance(part, MaskedConv2d):
            assert not state[f"{name}.weight"][:, :, part.mask == 0].any()


def test_training_lowers_the_loss() -> None:
    method, images = small_method("ncis"), pictures(2, 3, 16, 16)
    optimiser = torch.optim.Adam(method.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = (method.reconstruct(images) - images).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_file_with_a_weight_at_a_masked_tap_is_refused(tmp_path: Path) -> None:
    small_purifier("ncis").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    state["network.net.context.0.weight"][2, 1, 1, 1] = 1e-8
    save_file(state, file)
    rehash(tmp_path)
    with pytest.raises(WeightsError, match="expected zero weights at the masked taps, got others"):
        Purifier.from_pretrained(tmp_path)


def test_a_weight_at_a_masked_tap_has_no_effect_on_a_forward_pass() -> None:
    layer, features = MaskedConv2d(2, 3, 3, [(0, 0)]), pictures(1, 2, 6, 6)
    out = layer(features)
    with torch.no_grad():
        layer.weight[:, :, 1, 1] = 5
    assert torch.equal(layer(features), out)


def test_the_taps_alone_are_the_masked_convolution() -> None:
    for layer in FBINet(5, 6, 3).context:
        features, weights = pictures(2, 5 if layer.in_channels == 5 else 6, 9, 8), pictures(2, 6, 9, 8, seed=1)
        results = []
        for taps_only in (True, False):
            leaf, layer.grids = features.clone().requires_grad_(), layer.grids if taps_only else ()
            out = layer(leaf)
            results.append([out, *torch.autograd.grad((out * weights).sum(), [leaf, layer.weight, layer.bias])])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert not results[0][2][:, :, layer.mask == 0].any()
        layer.weight.data[:, :, layer.mask == 0] = 3
        with torch.no_grad():
            torch.testing.assert_close(layer(features), results[0][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_the_grids_hold_the_taps_of_the_mask_but_the_centre(layer: int) -> None:
    part = FBINet(3, 4, 3).context[layer]
    held = torch.zeros_like(part.mask)
    held[part.kernel_size[0] // 2, part.kernel_size[1] // 2] = 1
    for rows, columns in part.grids:
        held[rows, columns] += 1
    assert torch.equal(held, part.mask)


def test_one_iteration_is_the_network_plus_one_gaussian_pass() -> None:
    method, images = small_method("ncis", iterations=1), pictures(1, 3, 10, 12)
    expected = method.network(images) + GaussianSmoothing(kernel_size=5, iterations=1)(images)
    torch.testing.assert_close(method(images), expected.clamp(0, 1))


def test_iterations_are_the_number_of_steps() -> None:
    purify, images = small_purifier("ncis"), pictures(1, 3, 10, 12)
    step = purify.method.step
    for iterations, expected in [(0, images), (1, step(images)), (3, step(step(step(images))))]:
        purify.iterations = iterations
        torch.testing.assert_close(purify(images), expected)


def test_without_the_clamp_values_leave_the_range_between_iterations_only() -> None:
    method = small_method("ncis", clamp=False)
    with torch.no_grad():
        method.network.net.out_conv.bias.add_(torch.linspace(-1, 1, 12))
    images = pictures(1, 3, 10, 12)
    assert method.step(images).min() < 0 and method.step(images).max() > 1
    assert Purifier(method)(images).min() >= 0 and Purifier(method)(images).max() <= 1
    assert not torch.equal(Purifier(method)(images), Purifier(_clamped(method))(images))


def _clamped(method: NCIS) -> NCIS:
    twin = NCIS(**{**method.options, "clamp": True})
    twin.load_state_dict(method.state_dict())
    return twin


@pytest.mark.parametrize("size", [(7, 10), (10, 7), (9, 11), (1, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_an_odd_size_equals_the_reflected_even_size_cropped_back(size: tuple[int, int]) -> None:
    net, (height, width) = small_method("ncis").network, size
    images = pictures(1, 3, *size)
    even = torch.cat((images, images[..., -2:-1, :] if height > 1 else images), -2) if height % 2 else images
    even = torch.cat((even, even[..., -2:-1] if width > 1 else even), -1) if width % 2 else even
    torch.testing.assert_close(net(images), net(even)[..., :height, :width])


def test_the_model_card_size_is_what_repr_says() -> None:
    assert "parameters=408,844" in repr(Purifier(NCIS()))


def test_a_clamp_that_is_not_a_bool_is_refused() -> None:
    with pytest.raises(OptionError, match="expected clamp to be True or False, got 'false'"):
        NCIS(clamp="false")  # type: ignore[arg-type]


def test_without_a_kernel_only_the_blind_spot_network_is_left() -> None:
    method, images = small_method("ncis", kernel_size=0), pictures(1, 3, 16, 16)
    assert method.options["kernel_size"] == 0
    torch.testing.assert_close(method.reconstruct(images), method.network(images))
