"""Where the images of a call are, and the forms that they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import purifier
from purifier import InputError, OptionError, PurifiedModel, Purifier, PurifierWarning, WrapError, _errors, _wrapping
from tests.builders import pictures

FIRST, SECOND = pictures(1, 3, 20, 20), pictures(1, 3, 20, 20, seed=1)


class Echo(nn.Module):
    """Gives back its arguments."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


def wrapped(purify: Purifier, **options: Any) -> PurifiedModel:
    return purifier.wrap(Echo(), purify, **options)


def test_a_second_image_is_warned_of_and_purified_if_it_is_named(
    purify: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    with pytest.warns(PurifierWarning, match=r"argument 1 .* looks like images.* not purified; pass images=\(0, 1\)"):
        (one, two), _ = wrapped(purify)(FIRST, SECOND)
    assert torch.equal(one, purify(FIRST)) and two is SECOND
    (one, two), _ = wrapped(purify, images=(0, 1))(FIRST, SECOND)
    assert torch.equal(one, purify(FIRST)) and torch.equal(two, purify(SECOND))
    _, named = wrapped(purify, images=("left", "right"))(left=FIRST, right=SECOND, mask=FIRST)
    assert torch.equal(named["left"], purify(FIRST)) and torch.equal(named["right"], purify(SECOND))
    assert named["mask"] is FIRST
    (_, two), _ = wrapped(purify, images=1)(FIRST, SECOND)
    assert torch.equal(two, purify(SECOND))


class Flow(nn.Module):
    """Takes two frames."""

    def forward(self, frame1: Tensor, frame2: Tensor) -> tuple[Tensor, Tensor]:
        return frame1, frame2


@pytest.mark.parametrize("images", [("frame1", "frame2"), (0, 1), ("frame1", 1)], ids=str)
@pytest.mark.parametrize("call", [lambda m: m(FIRST, SECOND), lambda m: m(frame1=FIRST, frame2=SECOND)])
@pytest.mark.parametrize("way", ["wrap", "attach"])
def test_selected_images_are_found_by_position_and_by_name(images: Any, call: Any, way: str, purify: Purifier) -> None:
    model = Flow()
    if way == "attach":
        purifier.attach(model, purify, images=images)
    defended = model if way == "attach" else purifier.wrap(model, purify, images=images)
    assert all(torch.equal(found, purify(given)) for found, given in zip(call(defended), (FIRST, SECOND), strict=True))


@pytest.mark.parametrize("first", ["image", "pixel_values"])
def test_a_second_image_that_is_passed_by_name_is_warned_of(
    first: str, purify: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    with pytest.warns(PurifierWarning, match=f"argument 'second' .* pass images=\\('{first}', 'second'\\)"):
        _, found = wrapped(purify)(second=SECOND, **{first: FIRST})
    assert torch.equal(found[first], purify(FIRST)) and found["second"] is SECOND


@pytest.mark.parametrize("images", [(), 1.5, (0, None), {"a": 1}])
def test_a_selection_of_another_kind_is_refused(images: Any, purify: Purifier) -> None:
    with pytest.raises(OptionError, match="expected images as positions or names"):
        wrapped(purify, images=images)


def test_a_call_without_the_selected_argument_is_refused(purify: Purifier) -> None:
    with pytest.raises(WrapError, match="expected the images of the call at 'frame', got a call with Tensor"):
        wrapped(purify, images="frame")(FIRST)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": FIRST}, r"got a call with dict; pass the values of a dictionary by name: model\(\*\*batch\)"),
        ([{"image": FIRST}], "got a call with list of dict; pass the values of a dictionary by name"),
        (np.zeros((1, 3, 8, 8)), "got a call with ndarray; turn arrays and PIL images into tensors first"),
        ([Image.new("RGB", (8, 8))], "got a call with list of Image; turn arrays and PIL images into tensors first"),
    ],
)
def test_a_call_with_something_else_says_what_to_pass(given: Any, said: str, purify: Purifier) -> None:
    with pytest.raises(WrapError, match=said):
        wrapped(purify)(given)


def test_a_list_of_batches_is_purified_batch_by_batch(purify: Purifier) -> None:
    crops = [pictures(2, 3, 20, 20), pictures(2, 3, 12, 12)]
    (found,), _ = wrapped(purify)(crops)
    assert [torch.equal(one, purify(crop)) for one, crop in zip(found, crops, strict=True)] == [True, True]


def test_tokens_before_the_picture_are_left_alone(purify: Purifier) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    (found_ids, image), _ = wrapped(purify)(ids, FIRST)
    assert found_ids is ids and torch.equal(image, purify(FIRST))


@pytest.mark.parametrize(
    "call",
    [
        lambda model, ids: model(input_ids=ids, pixel_values=None),
        lambda model, ids: model(input_ids=ids, attention_mask=ids),
        lambda model, ids: model(ids),
        lambda model, ids: model(ids, ((torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)),)),
    ],
    ids=["pixel_values=None", "text by name", "text by position", "with a cache"],
)
def test_a_call_of_text_alone_passes_through(call: Any, purify: Purifier) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    args, kwargs = call(wrapped(purify), ids)
    assert next(value for value in (*args, *kwargs.values()) if value is not None) is ids


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda model, ids: model(img=FIRST, labels=ids), "img"),
        (lambda model, ids: model(ids, frames=[FIRST[0]]), "frames"),
        (lambda model, ids: model(ids, {"image": FIRST}), 1),
        (lambda model, ids: model(ids, [{"image": FIRST[0]}]), 1),
        (lambda model, ids: model(input_ids=ids, batch={"pixels": FIRST[0]}), "batch"),
        (lambda model, ids: model(pixel_values=None, images=FIRST), "images"),
        (lambda model, ids: model(FIRST, pixel_values=None), 0),
        (lambda model, ids: model(ids, pixel_values_videos=FIRST[None]), "pixel_values_videos"),
        (lambda model, ids: model(ids, img=FIRST.mul(255).to(torch.uint8)), "img"),
        (lambda model, ids: model(ids, frames=FIRST.movedim(1, -1)), "frames"),
    ],
)
def test_images_beside_text_in_a_place_that_is_not_searched_are_refused(
    call: Any, place: int | str, purify: Purifier
) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    with pytest.raises(WrapError, match=f"of which argument {place!r} seems to hold images"):
        call(wrapped(purify), ids)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ({"images": [Image.new("RGB", (20, 20))]}, "turn arrays and PIL images into tensors"),
        ({"image": np.zeros((20, 20, 3), np.uint8)}, "turn arrays and PIL images into tensors"),
        ({"flattened_patches": torch.rand(2, 64, 770)}, "purify the picture before the processor cuts it up"),
        ({"image_patches": [torch.rand(64, 2700)]}, "purify the picture before the processor cuts it up"),
    ],
)
def test_images_in_another_form_beside_text_are_refused_with_what_to_do(
    images: dict[str, Any], text: str, purify: Purifier
) -> None:
    with pytest.raises(WrapError, match=text):
        wrapped(purify)(labels=torch.ones(2, 5, dtype=torch.long), **images)


def test_a_second_image_of_another_form_is_warned_of(purify: Purifier, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = pictures(6, 3, 20, 20).view(2, 3, 3, 20, 20)
    for args, kwargs in [
        ((), {"pixel_values": FIRST, "pixel_values_videos": clip}),
        ((FIRST, pictures(1, 3, 40, 40)), {}),
        (([FIRST[0]], [SECOND[0]]), {}),
    ]:
        monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
        with pytest.warns(PurifierWarning, match="looks like images, as argument .* does, and is not purified"):
            wrapped(purify)(*args, **kwargs)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model(
            [FIRST[0]], [{"boxes": torch.rand(3, 4), "masks": torch.rand(3, 20, 20), "image_id": np.int64(3)}]
        ),
        lambda model: model(pixel_values=FIRST, labels=[{"masks": torch.rand(3, 20, 20), "boxes": torch.rand(3, 4)}]),
        lambda model: model(pixel_values=FIRST, labels=SECOND, pixel_mask=torch.ones(1, 20, 20, dtype=torch.long)),
        lambda model: model(pixel_values=FIRST, input_points=torch.rand(1, 1, 2, 2), input_boxes=torch.rand(1, 1, 4)),
        lambda model: model(
            pixel_values=FIRST, image_sizes=np.array([[20, 20]]), image_grid_thw=torch.ones(1, 3).int()
        ),
        lambda model: model(FIRST, pictures(1, 1, 20, 20)),
        lambda model: model(FIRST, gtMask=SECOND),
        lambda model: model([FIRST[0]], []),
        lambda model: model([FIRST[0]], masks=[torch.rand(1, 20, 20)]),
    ],
)
def test_ordinary_calls_give_no_warning(call: Any, purify: Purifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    args, kwargs = call(wrapped(purify))
    image = args[0] if args else kwargs["pixel_values"]
    assert torch.equal(
        image[0] if isinstance(image, list) else image, purify(FIRST[0] if isinstance(image, list) else FIRST)
    )


@pytest.mark.parametrize(
    "others",
    [
        {"image_sizes": np.array([[336, 336]])},
        {"hx": (torch.rand(1, 9, 64), torch.rand(1, 9, 64))},
        {"layers": [torch.rand(1, 9, 64)] * 3},
        {"stack": [(torch.rand(1, 3, 9, 64), torch.rand(1, 3, 9, 64))]},
        {"numbers": list(range(100))},
    ],
)
def test_ordinary_calls_of_text_are_not_refused(others: dict[str, Any], purify: Purifier) -> None:
    ids = torch.ones(1, 16, dtype=torch.long)
    (found,), named = wrapped(purify)(ids, **others)
    assert found is ids and all(named[name] is value for name, value in others.items())


def test_a_picture_of_whole_numbers_beside_a_mask_is_refused(purify: Purifier) -> None:
    with pytest.raises(InputError, match="divide by 255"):
        wrapped(purify)(FIRST.mul(255).to(torch.uint8), torch.rand(1, 1, 20, 20))


def test_an_image_is_found_behind_tensors_that_are_none(purify: Purifier) -> None:
    _, named = wrapped(purify)(torch.tensor([0.1, 0.7]), x=FIRST)
    assert torch.equal(named["x"], purify(FIRST))
    boxes = torch.ones(2, 5, 4, dtype=torch.long)
    args, _ = wrapped(purify)(torch.ones(2, 5, dtype=torch.long), boxes)
    assert args[1] is boxes


def test_a_selected_image_may_be_left_out_of_a_call_of_text(purify: Purifier) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    (found,), _ = wrapped(purify, images="img")(ids)
    assert found is ids
    with pytest.raises(WrapError, match="of which argument 'frames' seems to hold images"):
        wrapped(purify, images="img")(ids, frames=FIRST)
    with pytest.raises(WrapError, match="expected the images of the call at 'img'"):
        wrapped(purify, images="img")(frames=FIRST)


@pytest.mark.parametrize("patches", [torch.rand(1, 16, 768), torch.rand(3, 16, 768)])
def test_flat_patches_of_one_or_three_pictures_are_refused(patches: Tensor, purify: Purifier) -> None:
    with pytest.raises(InputError, match="purify the picture before the processor cuts it up"):
        wrapped(purify, mean=0.5, std=0.5)(pixel_values=patches)
    with pytest.raises(InputError, match="purify the picture before the processor cuts it up"):
        wrapped(purify)(patches, spatial_shapes=torch.tensor([[4, 4]]))


def test_the_named_argument_of_the_advice_is_purified(purify: Purifier) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    _, named = wrapped(purify, images="img")(img=FIRST, labels=ids)
    assert torch.equal(named["img"], purify(FIRST)) and named["labels"] is ids


@pytest.mark.parametrize(
    "name",
    [
        "inputs_embeds",
        "attention_mask",
        "position_bias",
        "past_key_values",
        "encoder_hidden_states",
        "image_features",
        "memory",
        "kv",
        "rel_pos",
        "mel_features",
        "input_values",
        "audio",
    ],
)
@pytest.mark.parametrize("value", [torch.rand(1, 3, 16, 32), (torch.rand(1, 1, 16, 32),)])
def test_other_tensors_beside_text_are_left_alone(name: str, value: Any, purify: Purifier) -> None:
    ids = torch.ones(1, 16, dtype=torch.long)
    _, named = wrapped(purify)(input_ids=ids, **{name: value})
    assert named[name] is value


def test_an_argument_that_is_named_twice_is_purified_once(purify: Purifier) -> None:
    frame, _ = purifier.wrap(Flow(), purify, images=("frame1", 0))(FIRST, SECOND)
    assert torch.equal(frame, purify(FIRST))


def test_embedded_text_alone_passes_through(purify: Purifier) -> None:
    text = {"inputs_embeds": torch.rand(1, 16, 32), "attention_mask": torch.ones(1, 16)}
    assert wrapped(purify)(**text)[1] == text


def test_clips_of_a_video_come_back_as_clips(purify: Purifier) -> None:
    clip = pictures(6, 3, 20, 20).view(2, 3, 3, 20, 20)
    (found,), _ = wrapped(purify, mean=0.5, std=0.5)(clip * 2 - 1)
    want = purify(clip.flatten(0, 1)).view_as(clip) * 2 - 1
    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("patches", [torch.rand(484, 1176), torch.rand(784, 3, 14, 14)], ids=["flat", "squares"])
def test_the_patches_of_a_picture_are_refused(patches: Tensor, purify: Purifier) -> None:
    with pytest.raises(InputError, match=r"patches.*purify the picture before the processor cuts it up"):
        wrapped(purify)(pixel_values=patches)


@pytest.mark.parametrize("name", ["gs", "ncis"])
def test_padding_has_no_effect_on_a_padded_picture(name: str) -> None:
    purify = Purifier.from_pretrained(name)
    model = purifier.wrap(Echo(), purify, mean=0.5, std=0.5)
    small = pictures(1, 3, 18, 14) * 2 - 1
    padded, mask = torch.zeros(2, 3, 24, 24), torch.zeros(2, 24, 24, dtype=torch.long)
    padded[0, :, :18, :14], mask[0, :18, :14] = small[0], 1
    padded[1], mask[1] = pictures(1, 3, 24, 24, seed=2)[0] * 2 - 1, 1
    alone = model(small)[0][0]
    _, found = model(pixel_values=padded, pixel_mask=mask)
    torch.testing.assert_close(found["pixel_values"][0, :, :18, :14], alone[0], rtol=0, atol=1e-5)
    outside = mask[0, None].expand(3, -1, -1) == 0
    assert not found["pixel_values"][0][outside].any()
    assert found["pixel_mask"] is mask


def test_gradients_of_each_image_can_be_mapped(purify: Purifier) -> None:
    model = purifier.wrap(nn.Sequential(nn.Flatten(0), nn.Linear(1200, 1)), purify)
    images = pictures(3, 3, 20, 20)

    def score(image: Tensor) -> Tensor:
        return model(image).sum()

    mapped = torch.func.vmap(torch.func.grad(score))(images)
    for image, gradient in zip(images, mapped, strict=True):
        leaf = image.clone().requires_grad_()
        (own,) = torch.autograd.grad(score(leaf), leaf)
        torch.testing.assert_close(gradient, own)


def test_attributes_without_images_are_passed_on_and_calls_are_not(purify: Purifier) -> None:
    class Model(Echo):
        classes = ("cat", "dog")

        def __init__(self) -> None:
            super().__init__()
            self.config = {"label": 1}

        def features(self, images: Tensor) -> Tensor:
            return images

    model = purifier.wrap(Model(), purify)
    assert model.classes == ("cat", "dog") and model.config == {"label": 1}
    with pytest.raises(AttributeError, match=r"'features' is at \.model: a call of it skips the purifier"):
        model.features  # noqa: B018 - reading it is the test
    with pytest.raises(AttributeError, match="nothing"):
        model.nothing  # noqa: B018


def test_a_wrapped_model_shows_the_models_own_signature(purify: Purifier) -> None:
    import inspect

    class Model(nn.Module):
        def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
            return pixel_values

    assert list(inspect.signature(purifier.wrap(Model(), purify).forward).parameters) == ["pixel_values", "labels"]
    plain = purifier.wrap(lambda images, scale=1.0: images, purify)
    assert list(inspect.signature(plain.forward).parameters) == ["images", "scale"]


@pytest.mark.parametrize("shape", [(64, 3, 12, 12), (64, 3, 8, 16), (63, 3, 14, 14)], ids=str)
def test_batches_of_tiny_pictures_are_purified(shape: tuple[int, ...], purify: Purifier) -> None:
    images = pictures(*shape)
    (found,), _ = wrapped(purify)(images)
    assert torch.equal(found, purify(images))


def test_tiny_pictures_that_look_like_patches_are_purified_if_their_argument_is_named(purify: Purifier) -> None:
    images = pictures(64, 3, 16, 16)
    (found,), _ = wrapped(purify, images=0)(images)
    assert torch.equal(found, purify(images))


def test_an_exported_call_takes_batches_of_every_size(purify: Purifier) -> None:
    model = purifier.wrap(nn.Identity(), purify)
    shapes = ({0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)},)
    graph = torch.export.export(model, (pictures(2, 3, 16, 16),), dynamic_shapes=shapes).module()
    for images in (pictures(1, 3, 16, 20), pictures(40, 3, 14, 14)):
        torch.testing.assert_close(graph(images), purify(images))


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [slice(0, 16), slice(5, 21), slice(8, 24)], ids=["top", "middle", "bottom"])
@torch.no_grad()
def test_a_picture_anywhere_in_its_padding_is_purified_alone(rows: slice, dtype: torch.dtype, purify: Purifier) -> None:
    images, mask = torch.zeros(2, 3, 24, 24), torch.zeros(2, 24, 24, dtype=dtype)
    images[:, :, rows, 2:20], mask[0, rows, 2:20] = pictures(2, 3, 16, 18), 1
    _, found = wrapped(purify)(pixel_values=images, pixel_mask=mask)
    expected = images.clone()
    expected[0, :, rows, 2:20] = purify(images[0, :, rows, 2:20])
    # The second mask is empty.
    assert torch.equal(found["pixel_values"], expected)


def test_a_mask_can_be_mapped_over(purify: Purifier) -> None:
    images, mask = pictures(2, 3, 20, 20), torch.ones(2, 20, 20)
    mask[1, 15:] = 0

    def call(image: Tensor, inside: Tensor) -> Any:
        return wrapped(purify)(pixel_values=image[None], pixel_mask=inside[None])[1]["pixel_values"]

    assert torch.func.vmap(call)(images, mask).shape == (2, 1, 3, 20, 20)


def test_images_on_meta_give_the_shape_alone(purify: Purifier) -> None:
    (found,), _ = wrapped(purify)(torch.empty(2, 3, 20, 20, device="meta"))
    assert found.is_meta and found.shape == (2, 3, 20, 20)


class Detector(nn.Module):
    """Takes a mask like the detectors of transformers."""

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None, decoder: Any = None) -> Tensor:
        return pixel_values


@pytest.mark.parametrize("way", ["wrap", "attach"])
def test_a_mask_is_seen_among_the_positional_arguments_too(purify: Purifier, way: str) -> None:
    images, mask = pictures(2, 3, 20, 20), torch.ones(2, 20, 20, dtype=torch.int64)
    mask[1, 15:] = 0
    model = Detector()
    if way == "attach":
        purifier.attach(model, purify)
    defended = model if way == "attach" else purify.wrap(model)
    masked = defended(images, mask)
    assert torch.equal(masked, defended(pixel_values=images, pixel_mask=mask))
    assert torch.equal(masked[1, :, 15:], images[1, :, 15:])
    assert not torch.equal(masked, defended(images, None, mask))


def test_a_tensor_of_the_form_of_a_mask_with_another_name_is_none(purify: Purifier) -> None:
    images, labels = pictures(2, 3, 20, 20), torch.zeros(2, 20, 20, dtype=torch.int64)
    (found, _), _ = wrapped(purify)(images, labels)
    assert torch.equal(found, purify(images))
