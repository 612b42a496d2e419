"""The floor of a gate: weights below it are 0, and images with such weights only skip the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, Purifier
from purifier.methods import Method
from purifier.methods._gate import Gate, purify_where_open
from purifier.methods.alloy import Alloy
from purifier.methods.gated import Gated, gate_of
from tests.builders import pictures, small_method

FLAT = torch.full((1, 3, 40, 48), 0.5)
GRAINED = pictures(1, 3, 40, 48)
BATCH = torch.cat((FLAT, GRAINED, FLAT, GRAINED.flip(-1)))


def opens_at_grain(method: Method, gate_floor: float = 0.1) -> Method:
    """Makes a method's gate open on random images and close to 0 on flat ones, with a floor."""
    gate = gate_of(method)
    assert gate is not None
    with torch.no_grad():
        for layer in gate.layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight.fill_(1 / layer.weight[0].numel())
                layer.bias.zero_()
        gate.layers[-1].bias.fill_(-5.0)
        gate.layers[-1].weight.fill_(100.0)
    method.gate_floor = gate_floor
    return method


def alloy(gate_floor: float = 0.1, **options: object) -> Alloy:
    made = opens_at_grain(small_method("alloy", gate=1, **{"iterations": 1, **options}), gate_floor)
    assert isinstance(made, Alloy)
    return made


def gated(gate_floor: float = 0.1) -> Gated:
    made = opens_at_grain(Gated(small_method("nrp-resg"), gate=1), gate_floor)
    assert isinstance(made, Gated)
    return made


BOTH = pytest.mark.parametrize("build", [alloy, gated])


def batches_of(method: Method) -> list[tuple[int, ...]]:
    """Returns a list that gets the shape of each input of the network."""
    shapes: list[tuple[int, ...]] = []
    network = method.method.conv_first if isinstance(method, Gated) else method.network
    network.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    return shapes


def images_in(shapes: list[tuple[int, ...]]) -> int:
    return sum(shape[0] for shape in shapes)


def test_weights_below_the_floor_are_zero_and_those_above_reach_one() -> None:
    torch.manual_seed(0)
    gate, images = Gate(4), pictures(1, 3, 40, 48)
    with torch.no_grad():
        gate.layers[-1].weight.mul_(20)
    plain = gate.logits(images).sigmoid()
    floor = plain.median().item()
    floored = gate(images, gate_floor=floor)[..., 4:-4:8, 4:-4:8]
    expected = gate.spread((plain - floor).clamp_min(0) / (1 - floor), 40, 48)[..., 4:-4:8, 4:-4:8]
    torch.testing.assert_close(floored, expected)
    assert (floored == 0).any() and floored.max() > 0


@BOTH
def test_only_images_with_an_open_gate_reach_the_network(build: object) -> None:
    method = build()  # type: ignore[operator]
    shapes = batches_of(method)
    with torch.no_grad():
        out = method(BATCH)
    assert images_in(shapes) == 2
    assert torch.equal(out[0::2], BATCH[0::2]) and not torch.equal(out[1::2], BATCH[1::2])


@BOTH
def test_a_batch_of_closed_images_only_reaches_no_network(build: object) -> None:
    method = build()  # type: ignore[operator]
    shapes = batches_of(method)
    with torch.no_grad():
        out = method(BATCH[0::2])
    assert not shapes and torch.equal(out, BATCH[0::2]) and out.data_ptr() != BATCH.data_ptr()


@BOTH
def test_skipping_changes_no_output(build: object) -> None:
    method = build()  # type: ignore[operator]
    with torch.no_grad():
        skipped = method(BATCH)
        singles = torch.cat([method(image[None]) for image in BATCH])
    whole = method(BATCH)
    assert whole.requires_grad
    torch.testing.assert_close(skipped, whole.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(skipped, singles, rtol=0, atol=1e-6)


@BOTH
def test_without_a_floor_and_with_gradients_the_network_always_runs(build: object) -> None:
    method = build(gate_floor=0.0)  # type: ignore[operator]
    shapes = batches_of(method)
    with torch.no_grad():
        method(BATCH)
    assert images_in(shapes) == 4
    method.gate_floor = 0.1
    method(BATCH)
    assert images_in(shapes) == 8


def test_a_purifier_skips_unless_a_gradient_is_needed() -> None:
    purifier = Purifier(alloy().requires_grad_(False))
    shapes = batches_of(purifier.method)
    purifier(BATCH)
    assert images_in(shapes) == 2
    purifier(BATCH.clone().requires_grad_())
    assert images_in(shapes) == 6


def test_each_application_skips_for_itself() -> None:
    method = alloy(iterations=3)
    shapes = batches_of(method)
    with torch.no_grad():
        out = method(BATCH)
    assert 2 <= images_in(shapes) <= 6
    torch.testing.assert_close(out, method(BATCH).detach(), rtol=0, atol=1e-6)


def test_closed_tiles_are_skipped() -> None:
    method = alloy()
    image = torch.full((1, 3, 384, 384), 0.5)
    image[..., :40, :48] = GRAINED
    purifier = Purifier(method.requires_grad_(False))
    shapes = batches_of(method)
    whole = purifier(image)
    assert images_in(shapes) == 1
    torch.testing.assert_close(purifier.tiled(64)(image), whole, rtol=0, atol=1e-6)
    assert 1 <= images_in(shapes) - 1 < 36 / 2


def test_images_with_open_gates_do_not_change_those_beside_them() -> None:
    method = alloy()
    with torch.no_grad():
        mixed = method(torch.cat((GRAINED, BATCH[2:])))
        alone = method(GRAINED)
    torch.testing.assert_close(mixed[:1], alone, rtol=0, atol=1e-6)


def test_a_small_floor_stays_within_its_bound() -> None:
    plain, images = alloy(gate_floor=0.0), pictures(2, 3, 40, 48)
    with torch.no_grad():
        before = plain(images)
        plain.gate_floor = 1 / 1021
        after = plain(images)
    assert not torch.equal(before, after)
    # w - (w - f) / (1 - f) = f (1 - w) / (1 - f), and the network's change of a pixel is at most 1.
    assert (before - after).abs().max() < 1 / 1020


def test_below_the_floor_the_gradient_is_that_of_the_unchanged_image() -> None:
    method, image = alloy(), FLAT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(method(image).sum(), image)
    assert torch.equal(gradient, torch.ones_like(image))


def test_a_gradient_that_ignores_the_floor_leaves_the_output_as_it_is() -> None:
    method, image = alloy(gate_floor=0.1), (FLAT + 0.01 * GRAINED).requires_grad_()
    exact = method(image)
    method.gate.gradient_ignores_floor = True
    out = method(image)
    assert torch.equal(out, exact)
    (gradient,) = torch.autograd.grad(method.gate(image, gate_floor=0.1).sum(), image)
    (expected,) = torch.autograd.grad(method.gate(image).sum(), image)
    assert gradient.any()
    torch.testing.assert_close(gradient, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_graphs_and_functional_transforms_always_run_the_network() -> None:
    method = alloy().requires_grad_(False).eval()
    with torch.no_grad():
        expected = method(BATCH)
        exported = torch.export.export(method, (BATCH,)).module()
        torch.testing.assert_close(exported(BATCH), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.jit.trace(method, (FLAT,))(GRAINED), expected[1:2], rtol=0, atol=1e-6)
        mapped = torch.func.vmap(lambda x: purify_where_open(torch.cos, lambda: x[:, :1], x, skip=True))(BATCH[:, None])
    torch.testing.assert_close(mapped[:, 0], BATCH + BATCH[:, :1] * (BATCH.cos() - BATCH))


@pytest.mark.slow
def test_a_compiled_purifier_has_the_same_output() -> None:
    method = alloy().requires_grad_(False)
    plain, compiled = Purifier(method), torch.compile(Purifier(method), backend="eager")
    torch.testing.assert_close(compiled(BATCH), plain(BATCH), rtol=0, atol=1e-6)


def test_the_floor_is_saved_and_can_be_set_at_loading(tmp_path: Path) -> None:
    Purifier(alloy(gate_floor=0.25), name="floored").save_pretrained(tmp_path)
    assert Purifier.from_pretrained(tmp_path).method.options["gate_floor"] == 0.25
    assert Purifier.from_pretrained(tmp_path, gate_floor=0.0).method.options["gate_floor"] == 0.0


def test_a_gate_that_is_copied_brings_its_floor() -> None:
    source, free = Purifier(alloy(gate_floor=0.25)), Purifier(small_method("ncis"))
    assert free.gated(source).method.options["gate_floor"] == 0.25
    assert free.gated(source, gate_floor=0.5).method.options["gate_floor"] == 0.5


@pytest.mark.parametrize("floor", [-0.1, 1.0, "low", True])
def test_a_floor_out_of_its_range_is_refused(floor: object) -> None:
    with pytest.raises(OptionError, match=r"expected gate_floor to be a number from 0\.0 to 0\.99"):
        small_method("alloy", gate=1, gate_floor=floor)
    with pytest.raises(OptionError, match="expected gate_floor to be a number"):
        Gated(small_method("gs"), gate=1, gate_floor=floor)  # type: ignore[arg-type]


def test_further_inputs_are_chosen_with_the_images() -> None:
    seen: list[Tensor] = []

    def purify(images: Tensor, more: Tensor) -> Tensor:
        seen.append(more)
        return images + more

    images, more = torch.zeros(3, 3, 2, 2), torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    weights = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    with torch.no_grad():
        out = purify_where_open(purify, lambda: weights, images, more, skip=True)
    assert torch.equal(seen[0], more[1:])
    assert torch.equal(out, weights * more)
