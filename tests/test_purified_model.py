"""PurifiedModel in front of models that record their calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import purifier
from purifier import InputError, PurifiedModel, Purifier, WrapError
from tests.builders import pictures, seeded, small_purifier, unchanged
from tests.recorders import MEAN, STD, Recorder, classifier, normalise

IMAGES = pictures(2, 3, 12, 10)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


WAYS: dict[str, Callable[[Any, Tensor], object]] = {
    "first": lambda model, images: model(images),
    "first of several": lambda model, images: model(images, torch.ones(2), None),
    "after what is no tensor": lambda model, images: model(None, {"a": 1}, "text", images),
    "pixel_values": lambda model, images: model(pixel_values=images),
    "pixel_values beside a positional tensor": lambda model, images: model(torch.ones(2, 4), pixel_values=images),
    "images": lambda model, images: model(images=images),
    "x": lambda model, images: model(x=images, labels=torch.ones(2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_images_are_found_and_purified(way: str) -> None:
    model, purify = Recorder(), small_purifier("gs")
    WAYS[way](purify.wrap(model), IMAGES)
    WAYS[way](model, purify(IMAGES))
    (args, kwargs), (by_hand_args, by_hand_kwargs) = model.calls
    got, expected = [*args, *kwargs.values()], [*by_hand_args, *by_hand_kwargs.values()]
    assert kwargs.keys() == by_hand_kwargs.keys()
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_different_sizes_is_purified_one_by_one(kind: type) -> None:
    model, purify = Recorder(), small_purifier("gs")
    images = kind([pictures(3, 9, 8), pictures(3, 17, 5)])
    purify.wrap(model)(images)
    ((got,), _) = model.calls[0]
    assert type(got) is kind
    assert [image.shape for image in got] == [image.shape for image in images]
    assert all(torch.equal(one, purify(other)) for one, other in zip(got, images, strict=True))


def test_a_named_tuple_of_images_stays_one() -> None:
    model, purify = Recorder(), small_purifier("gs")
    images = Pair(pictures(3, 9, 8), pictures(3, 17, 5))
    purify.wrap(model)(images)
    ((got,), _) = model.calls[0]
    assert type(got) is Pair
    assert torch.equal(got.left, purify(images.left)) and torch.equal(got.right, purify(images.right))


@pytest.mark.filterwarnings("ignore:argument 1 of the call looks like images")
def test_every_other_argument_is_passed_on_as_the_same_object() -> None:
    model = Recorder()
    others: list[Any] = [
        torch.rand(2, 3, 12, 9),
        torch.ones(2, dtype=torch.long),
        {"a": 1},
        [torch.rand(3, 4, 4)],
        object(),
    ]
    images = IMAGES.clone()
    small_purifier("gs").wrap(model)(images, *others, pixel_mask=others[0], labels=others[3])
    args, kwargs = model.calls[0]
    assert all(one is other for one, other in zip(args[1:], others, strict=True))
    assert kwargs["pixel_mask"] is others[0] and kwargs["labels"] is others[3]
    assert args[0] is not images and torch.equal(images, IMAGES)


def test_the_output_is_the_same_object() -> None:
    model = Recorder()
    assert small_purifier("gs").wrap(model)(IMAGES) is model.output


def test_a_single_image_and_an_empty_batch_go_through() -> None:
    model, purify = Recorder(), small_purifier("gs")
    purify.wrap(model)(IMAGES[0])
    purify.wrap(model)(IMAGES[:0])
    assert torch.equal(model.calls[0][0][0], purify(IMAGES[0]))
    assert model.calls[1][0][0].shape == (0, 3, 12, 10)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: m(), "got a call with no arguments; pass the images as the first argument"),
        (lambda m: m("photo.png", labels=None), "got a call with str, labels=NoneType"),
        (lambda m: m(Image.new("RGB", (8, 8))), "got a call with Image"),
        (lambda m: m([]), "got a call with empty list"),
    ],
    ids=["nothing", "path", "PIL", "empty list"],
)
def test_a_call_without_images_is_refused(call: Callable[[Any], object], text: str) -> None:
    with pytest.raises(WrapError, match=text):
        call(small_purifier("gs").wrap(Recorder()))


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(2, 8, 8, 3), r"got \(2, 8, 8, 3\); permute channels first"),
        ((IMAGES * 255).byte(), r"got torch\.uint8; divide by 255"),
        (torch.zeros(4, 7), r"expected images of shape \(N, 3, H, W\) or \(3, H, W\), got \(4, 7\)"),
    ],
    ids=["NHWC", "uint8", "features"],
)
def test_images_of_a_wrong_form_are_refused(images: Tensor, text: str) -> None:
    model = Recorder()
    with pytest.raises(InputError, match=text):
        small_purifier("gs").wrap(model)(images)
    assert not model.calls


def test_pixel_values_of_a_wrong_kind_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected a float tensor of images in .*, got ndarray"):
        small_purifier("gs").wrap(Recorder())(pixel_values=np.zeros((1, 3, 8, 8), np.float32))


def test_normalised_images_are_purified_in_the_unit_range() -> None:
    model, purify = Recorder(), small_purifier("gs")
    purify.wrap(model, mean=MEAN, std=STD)(normalise(IMAGES))
    torch.testing.assert_close(model.calls[0][0][0], normalise(purify(IMAGES)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mean", [0.5, [0.5], [0.5, 0.5, 0.5], (0.5, 0.5, 0.5), torch.full((3, 1, 1), 0.5)], ids=str)
def test_mean_and_std_come_as_numbers_lists_or_tensors(mean: Any) -> None:
    model, purify = Recorder(), small_purifier("gs")
    purify.wrap(model, mean=mean, std=mean)(IMAGES * 2 - 1)
    torch.testing.assert_close(model.calls[0][0][0], purify(IMAGES) * 2 - 1, rtol=0, atol=1e-5)


def test_normalised_images_are_refused_with_advice() -> None:
    model = Recorder()
    text = (
        r"got values from -.*; if they are normalised, pass their mean=\.\.\. and std=\.\.\. "
        r"\(or processor=\.\.\.\)"
    )
    with pytest.raises(InputError, match=text):
        small_purifier("gs").wrap(model)(normalise(IMAGES))
    assert not model.calls


@pytest.mark.parametrize(("mean", "std"), [([0, 0, 0], [1, 1, 1]), (MEAN, [0.9] * 3), ([0.9] * 3, STD)])
def test_a_wrong_mean_or_std_is_refused(mean: list[float], std: list[float]) -> None:
    text = r"the values after undoing mean=\[.*\] and std=\[.*\]; pass the mean and std of the images"
    with pytest.raises(InputError, match=text):
        small_purifier("gs").wrap(Recorder(), mean=mean, std=std)(normalise(IMAGES))


def test_a_cast_of_the_wrapper_does_not_round_the_normalisation() -> None:
    model = Recorder()
    wrapped = Purifier.from_pretrained("gs", iterations=0).wrap(model, mean=MEAN, std=STD).to(torch.bfloat16)
    assert (wrapped.mean, wrapped.std) == (pytest.approx(MEAN, abs=0), pytest.approx(STD, abs=0))


@pytest.mark.parametrize("training", [True, False])
def test_wrapping_and_calling_change_nothing_of_the_model(training: bool) -> None:
    model = classifier().train(training)
    model.layers[1].requires_grad_(False)
    model.layers[0].register_forward_hook(lambda *_: None)
    if training:
        model.layers[1].momentum = 0.0  # batch norm counts its calls in training mode, which is the model's own doing
        model.layers[1].track_running_stats = False
    with unchanged(model):
        wrapped = purifier.wrap(model, "gs")
        wrapped(IMAGES.clone().requires_grad_()).sum()
    assert wrapped.training is training
    assert wrapped.model.training is training


def test_a_mixed_mode_is_kept() -> None:
    model = classifier().train()
    model.layers[1].eval()
    purifier.wrap(model, "gs")(IMAGES)
    assert model.training and model.layers[0].training and not model.layers[1].training


def test_grad_mode_stays_the_callers_choice() -> None:
    wrapped = purifier.wrap(classifier(), "gs")
    assert wrapped(IMAGES).requires_grad
    with torch.no_grad():
        assert not wrapped(IMAGES).requires_grad
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert wrapped(IMAGES).is_inference()
    assert torch.is_grad_enabled()


def test_unwrap_returns_the_same_model() -> None:
    model = classifier()
    wrapped = purifier.wrap(model, "gs")
    assert wrapped.unwrap() is model
    assert wrapped.model is model


@pytest.mark.parametrize("case", ["gs", "ncis", "nrp", "tvm"])
@pytest.mark.parametrize("normalised", [False, True])
def test_the_gradient_at_the_input_equals_finite_differences(case: str, normalised: bool) -> None:
    model = classifier(5, 4).double().requires_grad_(False)
    purify = small_purifier(case).double()
    images = pictures(1, 3, 5, 4, low=0.3, high=0.7, dtype=torch.float64)
    if normalised:
        wrapped, images = purify.wrap(model, mean=MEAN, std=STD), normalise(images)
    else:
        wrapped = purify.wrap(model)
    assert torch.autograd.gradcheck(wrapped, images.requires_grad_())


def test_the_gradient_is_that_of_purifier_and_model_in_sequence() -> None:
    model, purify, images = classifier(), small_purifier("ncis"), IMAGES.clone().requires_grad_()
    (through,) = torch.autograd.grad(purify.wrap(model)(images).square().sum(), images)
    (by_hand,) = torch.autograd.grad(model(purify(images)).square().sum(), images)
    assert torch.equal(through, by_hand)


def test_a_model_that_takes_views_of_its_images_works() -> None:
    wrapped = small_purifier("nrp").wrap(lambda images: images.view(len(images), -1))
    assert wrapped(IMAGES).shape == (2, 360)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("normalised", [False, True])
def test_a_model_in_half_precision_gets_images_in_half_precision(dtype: torch.dtype, normalised: bool) -> None:
    model, purify = classifier().to(dtype), small_purifier("gs")
    with unchanged(model):
        if normalised:
            images = normalise(IMAGES).to(dtype)
            out = purify.wrap(model, mean=MEAN, std=STD)(images)
            by_hand = model(normalise(purify(IMAGES)).to(dtype))
        else:
            out, by_hand = purify.wrap(model)(IMAGES.to(dtype)), model(purify(IMAGES.to(dtype)))
    assert out.dtype == dtype
    torch.testing.assert_close(out, by_hand, rtol=0.05, atol=0.05)


def test_a_whole_cast_of_the_wrapper_casts_both() -> None:
    wrapped = purifier.wrap(classifier(), small_purifier("ncis")).to(torch.bfloat16)
    assert wrapped.purifier.dtype == torch.bfloat16
    assert wrapped(IMAGES.to(torch.bfloat16)).dtype == torch.bfloat16


def test_a_state_dict_can_be_saved_and_restored() -> None:
    wrapped = small_purifier("ncis").wrap(classifier())
    state = copy.deepcopy(wrapped.state_dict())
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.zero_()
    broken = wrapped(IMAGES)
    wrapped.load_state_dict(state)
    expected = small_purifier("ncis").wrap(classifier())(IMAGES)
    assert torch.equal(wrapped(IMAGES), expected)
    assert not torch.equal(broken, expected)
    assert {key.split(".")[0] for key in state} == {"purifier", "model"}


def test_a_deep_copy_gives_the_same_output_and_shares_nothing() -> None:
    wrapped = small_purifier("ncis").wrap(classifier(), mean=MEAN, std=STD)
    twin = copy.deepcopy(wrapped)
    images = normalise(IMAGES)
    assert torch.equal(twin(images), wrapped(images))
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in wrapped.parameters()}


@pytest.mark.parametrize("case", ["alloy", "gs", "ncis", "nrp", "nrp-resg", "median", "bit-depth", "resize-pad"])
def test_a_wrapped_model_compiles_without_a_graph_break(case: str) -> None:
    torch._dynamo.reset()  # torch limits the recompilations of the wrapper's code
    wrapped = small_purifier(case).wrap(classifier(), mean=MEAN, std=STD)
    images = normalise(IMAGES)
    compiled = torch.compile(wrapped, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), wrapped(images))


@pytest.mark.parametrize("case", ["tvm", "jpeg", "dynamic"])
def test_methods_that_cannot_be_traced_run_in_a_compiled_model(case: str) -> None:
    wrapped = seeded(small_purifier(case).wrap(classifier()))
    compiled = seeded(torch.compile(small_purifier(case).wrap(classifier()), backend="eager"))
    with torch.no_grad():  # with gradients, torch warns of its own look at .grad after a graph break
        torch.testing.assert_close(compiled(IMAGES), wrapped(IMAGES))


@pytest.mark.parametrize("case", ["gs", "ncis"])
def test_a_wrapped_model_exports(case: str) -> None:
    wrapped = small_purifier(case).wrap(classifier(), mean=MEAN, std=STD).eval()
    images = normalise(IMAGES)
    program = torch.export.export(wrapped, (images,))
    torch.testing.assert_close(program.module()(images), wrapped(images))


def test_the_wrapper_is_a_module_with_its_parts_as_children() -> None:
    wrapped = purifier.wrap(classifier(), "gs")
    assert isinstance(wrapped, PurifiedModel)
    assert [name for name, _ in wrapped.named_children()] == ["purifier", "model"]
