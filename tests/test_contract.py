"""The contract of every purifier, whatever its method."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from purifier import InputError, OptionError, Purifier
from purifier.methods import METHODS, build, describe
from tests.builders import CASES, pictures, seeded, small_method, small_purifier, unchanged

HALVES = [torch.float16, torch.bfloat16]
SIZES = [(1, 1), (1, 7), (2, 3), (5, 5), (33, 47), (64, 64)]
RANDOM = [case for case in CASES if small_purifier(case).random]
FIXED = [case for case in CASES if case not in RANDOM]
SMOOTH = [case for case in CASES if small_purifier(case).differentiable]
STEPPED = [case for case in CASES if case not in SMOOTH]
LARGE = {
    **dict.fromkeys(sorted(METHODS)),
    "alloy": {"filters": 4, "blocks": 1, "iterations": 1},
    "gad": {"filters": 2, "blocks": 1},
    "gad-residual": {"filters": 2, "blocks": 1},
    "ncis": {"iterations": 1},
    "nrp": {"filters": 2, "blocks": 1, "growth": 1},
    "nrp-resg": {"filters": 4, "blocks": 1},
    "tvm": {"steps": 2},
    "wavelet-sr": {"filters": 4, "growth": 2, "layers": 1},
}

every = pytest.mark.parametrize("case", CASES)
fixed = pytest.mark.parametrize("case", FIXED)


@every
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_size_keeps_shape_dtype_and_range_and_gives_a_finite_gradient(case: str, size: tuple[int, int]) -> None:
    images = pictures(2, 3, *size).requires_grad_()
    out = small_purifier(case)(images)
    assert (out.shape, out.dtype, out.device) == (images.shape, images.dtype, images.device)
    assert out.detach().min() >= 0 and out.detach().max() <= 1
    assert out.is_contiguous()
    (gradient,) = torch.autograd.grad(out.sum(), images)
    assert gradient.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(set(METHODS) - {"chain"}))
def test_a_full_hd_picture_keeps_shape_and_range(case: str) -> None:
    out = Purifier(small_method(case, **(LARGE[case] or {})))(pictures(1, 3, 1080, 1920))
    assert out.shape == (1, 3, 1080, 1920)
    assert out.min() >= 0 and out.max() <= 1


@every
def test_images_change_and_stay_on_their_device(case: str, device: str) -> None:
    images = pictures(2, 3, 17, 20).to(device)
    out = small_purifier(case).to(device)(images)
    assert out.device == images.device
    assert not torch.equal(out, images)


@every
def test_a_purifier_on_one_device_serves_images_on_another(case: str, device: str) -> None:
    images = pictures(1, 3, 9, 8)
    assert small_purifier(case).to(device)(images).device == images.device


@every
@pytest.mark.parametrize("dtype", [*HALVES, torch.float64], ids=str)
def test_the_float_dtype_of_the_images_is_kept(case: str, dtype: torch.dtype) -> None:
    purify, images = seeded(small_purifier(case)), pictures(1, 3, 12, 15).to(dtype)
    out = purify(images)
    assert out.dtype == dtype
    torch.testing.assert_close(out, purify(images.float()).to(dtype))


@every
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_purifier_cast_to_half_precision_stays_near_its_single_precision(case: str, dtype: torch.dtype) -> None:
    images = pictures(1, 3, 12, 15)
    out = seeded(small_purifier(case).to(dtype))(images)
    assert out.dtype == images.dtype
    assert out.min() >= 0 and out.max() <= 1
    if case in FIXED:
        torch.testing.assert_close(out, small_purifier(case)(images), rtol=0, atol=0.1)


@fixed
def test_a_batch_equals_its_images_one_by_one(case: str) -> None:
    purify, images = small_purifier(case), pictures(3, 3, 11, 14)
    singles = torch.cat([purify(image[None]) for image in images])
    torch.testing.assert_close(purify(images), singles, rtol=0, atol=1e-6)


@fixed
def test_equal_calls_give_equal_bits(case: str) -> None:
    purify, images = small_purifier(case), pictures(2, 3, 11, 14)
    assert torch.equal(purify(images), purify(images))


@pytest.mark.parametrize("case", RANDOM)
def test_two_calls_of_a_random_purifier_differ_and_repeat_with_the_seed(case: str) -> None:
    purify, images = small_purifier(case), pictures(2, 3, 11, 14)
    assert not torch.equal(purify(images), purify(images))
    assert torch.equal(seeded(purify)(images), seeded(purify)(images))


@every
def test_a_single_image_needs_no_batch_dimension(case: str) -> None:
    purify, image = seeded(small_purifier(case)), pictures(3, 10, 13)
    assert torch.equal(purify(image), purify(image[None])[0])


@every
def test_an_empty_batch_comes_back_empty(case: str) -> None:
    assert small_purifier(case)(torch.empty(0, 3, 10, 13)).shape == (0, 3, 10, 13)


@every
def test_images_that_are_not_contiguous_give_the_same_output(case: str) -> None:
    purify, images = seeded(small_purifier(case)), pictures(2, 3, 10, 13)
    strided = images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    torch.testing.assert_close(purify(strided), purify(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", SMOOTH)
def test_the_gradient_equals_finite_differences(case: str) -> None:
    purify = seeded(small_purifier(case).double())
    images = pictures(1, 3, 4, 5, low=0.3, high=0.7, dtype=torch.float64).requires_grad_()
    out = purify(images)
    assert out.min() > 0 and out.max() < 1  # otherwise the clamp would hide a wrong gradient
    assert torch.autograd.grad(out.square().sum(), images)[0].any()
    assert torch.autograd.gradcheck(purify, images, fast_mode=False)


@pytest.mark.parametrize("case", STEPPED)
def test_the_gradient_of_a_stepped_method_is_exactly_zero(case: str) -> None:
    images = pictures(1, 3, 9, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(small_purifier(case)(images).sum(), images)
    assert not gradient.any()


@every
@pytest.mark.parametrize("training", [True, False])
def test_a_call_changes_neither_weights_nor_modes(case: str, training: bool) -> None:
    purify = small_purifier(case).train(training)
    with unchanged(purify):
        out = purify(pictures(1, 3, 9, 8).requires_grad_())
    assert torch.is_grad_enabled()
    assert out.requires_grad


@every
def test_the_training_mode_does_not_change_the_output(case: str) -> None:
    images = pictures(1, 3, 9, 8)
    train, evaluate = seeded(small_purifier(case).train()), seeded(small_purifier(case).eval())
    assert torch.equal(train(images), evaluate(images))


@every
def test_grad_mode_stays_the_callers_choice(case: str) -> None:
    purify, images = small_purifier(case), pictures(1, 3, 9, 8).requires_grad_()
    with torch.no_grad():
        assert not purify(images).requires_grad
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert purify(images).is_inference()
        assert torch.is_inference_mode_enabled()


@every
def test_the_input_is_not_modified(case: str) -> None:
    images = pictures(2, 3, 9, 8)
    before = images.clone()
    small_purifier(case)(images)
    assert torch.equal(images, before)


@every
def test_saving_and_loading_gives_the_same_bits(case: str, tmp_path: Path) -> None:
    saved = small_purifier(case)
    saved.save_pretrained(tmp_path)
    loaded = Purifier.from_pretrained(tmp_path)
    images = pictures(2, 3, 13, 18)
    assert loaded.name == saved.name
    assert torch.equal(seeded(loaded)(images), seeded(saved)(images))
    assert loaded.state_dict().keys() == saved.state_dict().keys()


@every
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["deepcopy", "pickle"])
def test_a_copy_gives_the_same_bits_and_shares_nothing(case: str, copied: object) -> None:
    original = small_purifier(case)
    twin = copied(original)  # type: ignore[operator]
    images = pictures(2, 3, 13, 18)
    assert torch.equal(seeded(twin)(images), seeded(original)(images))
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in original.parameters()}


@every
def test_a_call_without_gradients_stores_no_activations(case: str) -> None:
    purifier, images, kept = seeded(frozen := small_purifier(case).requires_grad_(False)), pictures(2, 3, 18, 13), []
    before = images.clone()
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        out = purifier(images)
        assert not kept and not out.requires_grad
        recorded = purifier(images.clone().requires_grad_())
    assert recorded.requires_grad and torch.equal(images, before)
    torch.testing.assert_close(out, recorded.detach(), rtol=0, atol=1e-6)
    assert not any(weight.requires_grad for weight in frozen.parameters())


# torch's own, on the first use of its forward mode.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:FutureWarning")
@pytest.mark.parametrize("case", ["gs", "ncis", "alloy", "gated"])
def test_functional_gradients_are_those_of_autograd(case: str) -> None:
    purify = small_purifier(case).double().requires_grad_(False)
    images, weights, change = (pictures(1, 3, 16, 12, seed=seed, dtype=torch.float64) for seed in range(3))
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad((purify(leaf) * weights).sum(), leaf)
    found = torch.func.grad(lambda x: (purify(x) * weights).sum())(images)
    torch.testing.assert_close(found, expected)
    _, moved = torch.func.jvp(purify, (images,), (change,))
    torch.testing.assert_close((moved * weights).sum(), (expected * change).sum())


@every
def test_an_unknown_option_is_refused(case: str, tmp_path: Path) -> None:
    small_purifier(case).save_pretrained(tmp_path)
    with pytest.raises(OptionError, match="'itterations', which is unknown"):
        Purifier.from_pretrained(tmp_path, itterations=3)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_options_build_an_equal_twin(name: str) -> None:
    method = small_method(name)
    assert type(method)(**method.options).options == method.options
    described = describe(method)
    assert json.loads(json.dumps(described)) == described
    assert describe(build(described)) == described


@every
@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"got torch\.uint8; divide by 255: images\.float\(\) / 255"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), r"got torch\.int64; divide by 255"),
        (torch.zeros(1, 1, 8, 8), r"got \(1, 1, 8, 8\); repeat the grey channel"),
        (torch.zeros(1, 4, 8, 8), r"got \(1, 4, 8, 8\); set the alpha channel aside"),
        (torch.zeros(1, 5, 8, 8), r"expected images of shape \(N, 3, H, W\) or \(3, H, W\), got \(1, 5, 8, 8\)$"),
        (torch.zeros(8, 9, 3), r"got \(8, 9, 3\); permute channels first with images\.permute\(2, 0, 1\)"),
        (torch.zeros(2, 8, 9, 3), r"got \(2, 8, 9, 3\); permute channels first with images\.permute\(0, 3, 1, 2\)"),
        (torch.zeros(8, 8), r"got \(8, 8\); add the colour channels with images\.expand\(3, -1, -1\)"),
        (torch.zeros(1, 3, 0, 8), r"got \(1, 3, 0, 8\)$"),
        (torch.full((1, 3, 8, 8), 200.0), r"expected images in \[0, 1\], got values from 200 to 200; divide by 255"),
        (torch.full((1, 3, 8, 8), -1.0), r"got values from -1 to -1; .* undo your model's normalisation"),
        (torch.full((1, 3, 8, 8), torch.nan), r"got NaN values; find their cause"),
        (torch.full((1, 3, 8, 8), torch.inf), r"got values from inf to inf"),
        (Image.new("RGB", (8, 8)), r"got Image; for PIL images, uint8 arrays and paths use purify_image"),
        (torch.zeros(3, 8, 8).numpy(), r"got ndarray; for PIL images, uint8 arrays and paths use purify_image"),
        ([torch.zeros(3, 8, 8)], r"expected a float tensor of images in \[0, 1\], got list"),
    ],
    ids=["uint8", "int64", "grey", "alpha", "five", "HWC", "NHWC", "HW", "no-rows", "0..255", "negative", "nan",
         "inf", "PIL", "numpy", "list"],
)  # fmt: skip
def test_a_wrong_input_is_refused(case: str, images: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        small_purifier(case)(images)


def test_rounding_errors_outside_the_range_are_accepted() -> None:
    out = small_purifier("gs")(pictures(1, 3, 8, 8, low=-0.04, high=1.04))
    assert out.min() >= 0 and out.max() <= 1


def test_one_nan_pixel_is_enough_to_be_refused() -> None:
    images = pictures(2, 3, 8, 8)
    images[1, 2, 3, 4] = torch.nan
    with pytest.raises(InputError, match="got NaN values"):
        small_purifier("gs")(images)
