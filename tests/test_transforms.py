"""purifier.transforms: purifying as a step of a data pipeline."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import ViTImageProcessor

from purifier import InputError, OptionError, Purifier
from purifier.transforms import Purify, PurifyFirst
from tests.builders import pictures
from tests.noise import Noise, Processed

IMAGE = pictures(1, 3, 20, 16)[0]


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


def picture() -> Image.Image:
    return Image.fromarray((IMAGE * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def test_an_image_of_a_sample_is_purified_and_its_targets_pass_through(purify: Purifier) -> None:
    boxes = tv_tensors.BoundingBoxes([[1, 2, 9, 8]], format="XYXY", canvas_size=(20, 16))
    target = {"boxes": boxes, "mask": tv_tensors.Mask(torch.ones(20, 16)), "labels": torch.tensor([3])}
    image, found = v2.Compose([Purify(purify)])(tv_tensors.Image(IMAGE), target)
    assert type(image) is tv_tensors.Image and torch.equal(image.as_subclass(Tensor), purify(IMAGE))
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in target.items()}
    assert all(torch.equal(found[key], target[key]) for key in target)


def test_plain_tensors_of_both_kinds_come_back_as_they_came(purify: Purifier) -> None:
    eight_bit = (IMAGE * 255).round().to(torch.uint8)
    found = Purify(purify)(eight_bit)
    assert found.dtype == torch.uint8
    assert torch.equal(found, (purify(eight_bit.float() / 255) * 255).round().to(torch.uint8))
    assert torch.equal(Purify(purify)(IMAGE), purify(IMAGE))
    image, label = Purify(purify)(IMAGE, torch.tensor(2))
    assert torch.equal(image, purify(IMAGE)) and label == 2


def test_a_pil_image_comes_back_as_one(purify: Purifier) -> None:
    found = Purify(purify)(picture())
    assert isinstance(found, Image.Image)
    assert np.array_equal(np.asarray(found), np.asarray(purify.purify_image(picture())))


def test_normalised_tensors_are_purified_in_the_unit_range(purify: Purifier) -> None:
    found = Purify(purify, mean=0.5, std=0.5)(IMAGE * 2 - 1)
    torch.testing.assert_close(found, purify(IMAGE) * 2 - 1)


def test_a_tensor_that_is_not_an_image_is_refused(purify: Purifier) -> None:
    with pytest.raises(InputError, match="set the alpha channel aside"):
        Purify(purify)(torch.rand(4, 8, 8))


def test_every_frame_of_a_video_is_purified(purify: Purifier) -> None:
    video = tv_tensors.Video(pictures(3, 3, 20, 16))
    found, label = Purify(purify)(video, torch.tensor(2))
    assert type(found) is tv_tensors.Video and torch.equal(found.as_subclass(Tensor), purify(video.as_subclass(Tensor)))
    assert label == 2


def test_a_sample_whose_only_picture_is_an_array_is_refused(purify: Purifier) -> None:
    array = np.array(picture())
    with pytest.raises(
        InputError, match=r"got an array \(20, 16, 3\), .* turn it into a tensor first: v2\.ToImage\(\)"
    ):
        Purify(purify)({"image": array, "label": 3})
    found = v2.Compose([v2.ToImage(), Purify(purify)])(array)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(purify.purify_image(picture())))
    # Beside a picture, an array is a mask or a label.
    image, mask = Purify(purify)(picture(), array)
    assert isinstance(image, Image.Image) and mask is array


def test_masks_in_pil_images_pass_through_beside_a_picture(purify: Purifier) -> None:
    noise = picture().convert("L")
    for mode in ("1", "L", "P", "I", "F"):
        mask = noise.convert(mode)
        for image, want in (
            (picture(), np.asarray(purify.purify_image(picture()))),
            (tv_tensors.Image(IMAGE), purify(IMAGE)),
            (IMAGE, purify(IMAGE)),
        ):
            for place in (0, 1):
                found = list(Purify(purify)(*((image, mask) if place == 0 else (mask, image))))
                assert np.array_equal(found.pop(place), want) and found == [mask], mode
    first, second = Purify(purify)(picture(), picture().rotate(180))
    assert np.array_equal(first, purify.purify_image(picture()))
    assert np.array_equal(second, purify.purify_image(picture().rotate(180)))


def test_a_picture_without_colour_is_purified(purify: Purifier) -> None:
    grey = picture().convert("L")
    assert np.array_equal(Purify(purify)(grey), purify.purify_image(grey))
    mask = grey.convert("1")
    for sample in ((grey, mask), (mask, grey)):
        found = Purify(purify)(*sample)
        assert (
            np.array_equal(found[sample.index(grey)], purify.purify_image(grey)) and found[sample.index(mask)] is mask
        )
    palette = picture().convert("P")
    assert np.array_equal(Purify(purify)(palette).convert("RGB"), purify.purify_image(palette).convert("RGB"))
    colour = picture()
    for sample in (
        (grey, grey.rotate(180)),
        (colour, grey, colour.rotate(180)),
        (grey.convert("I"), grey),
        (palette, grey),
    ):
        with pytest.raises(
            InputError, match=r"one of a single channel may be either; turn masks into tv_tensors\.Mask"
        ):
            Purify(purify)(*sample)


def test_a_label_may_come_before_the_image(purify: Purifier) -> None:
    label, image = Purify(purify)(torch.tensor(2), IMAGE)
    assert label == 2 and torch.equal(image, purify(IMAGE))
    with pytest.raises(InputError, match="expected a sample with a picture, got nothing"):
        Purify(purify)()


@pytest.mark.slow
def test_it_works_in_spawned_workers_of_a_data_loader(purify: Purifier) -> None:
    data = Noise(Purify(purify))
    batches = list(DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn"))
    found = torch.cat([images for images, _ in batches])
    assert torch.equal(found, torch.stack([data[number][0] for number in range(4)]))


def test_it_survives_pickling() -> None:
    transform = pickle.loads(pickle.dumps(Purify("gs", iterations=2)))
    assert torch.equal(transform(IMAGE), Purify("gs", iterations=2)(IMAGE))


def test_a_processor_purifies_pictures_first_and_stays_what_it_was(purify: Purifier) -> None:
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    first = PurifyFirst(processor, purify)
    assert first.image_mean == processor.image_mean
    want = processor([purify.purify_image(picture())] * 2, return_tensors="pt")["pixel_values"]
    assert torch.equal(first([picture()] * 2, return_tensors="pt")["pixel_values"], want)
    assert torch.equal(first(images=[picture()] * 2, return_tensors="pt")["pixel_values"], want)
    assert torch.equal(pickle.loads(pickle.dumps(first))(picture(), return_tensors="pt")["pixel_values"], want[:1])


def test_a_processor_of_texts_and_images_gets_its_texts(purify: Purifier) -> None:
    class Both:
        def __call__(self, text: str | None = None, images: object = None) -> tuple[object, object]:
            return text, images

    text, image = PurifyFirst(Both(), purify)(text="a photo", images=picture())
    assert text == "a photo" and np.array_equal(image, np.asarray(purify.purify_image(picture())))
    assert PurifyFirst(Both(), purify)(text="a photo") == ("a photo", None)


def test_a_batch_in_one_array_is_purified_picture_by_picture(purify: Purifier) -> None:
    processor = ViTImageProcessor(size={"height": 20, "width": 16})
    array = np.stack([np.asarray(picture())] * 2)
    found = PurifyFirst(processor, purify)(array, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, PurifyFirst(processor, purify)([picture()] * 2, return_tensors="pt")["pixel_values"])


@pytest.mark.slow
def test_a_processor_that_purifies_first_works_in_spawned_workers(purify: Purifier) -> None:
    first = PurifyFirst(ViTImageProcessor(size={"height": 16, "width": 16}), purify)
    data = Noise(Processed(first))
    batches = list(DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn"))
    found = torch.cat([images for images, _ in batches])
    assert torch.equal(found, torch.stack([data[number][0] for number in range(4)]))


def test_what_is_not_a_processor_is_refused() -> None:
    with pytest.raises(OptionError, match="expected an image processor that can be called, got dict"):
        PurifyFirst({}, "gs")


class Composite:
    """A processor of texts, images and videos that gives back what it is fed."""

    def __init__(self) -> None:
        self.image_processor = ViTImageProcessor(size={"height": 16, "width": 16})
        self.video_processor = None
        self.rows = 1

    def __call__(self, text: Any = None, images: Any = None, videos: Any = None) -> tuple[Any, Any, Any]:
        return text, images, videos

    def apply_chat_template(self, conversation: list[dict[str, Any]]) -> tuple[Any, Any, Any]:
        """As transformers does: the processor itself is called with what the conversation holds."""
        return self(text=self.joined(conversation), images=[part["image"] for part in conversation if "image" in part])

    def joined(self, conversation: list[dict[str, Any]]) -> str:
        return " ".join(part["text"] for part in conversation if "text" in part)


def test_every_way_into_a_processor_purifies_first(purify: Purifier, tmp_path: Path) -> None:
    first, want = PurifyFirst(Composite(), purify), np.asarray(purify.purify_image(picture()))
    text, (image,), _ = first.apply_chat_template([{"text": "what is"}, {"image": picture()}, {"text": "this"}])
    assert text == "what is this" and np.array_equal(image, want)
    text, image, _ = first("a photo", picture())
    assert text == "a photo" and np.array_equal(image, want)
    inner = first.processor.image_processor(purify.purify_image(picture()), return_tensors="pt")["pixel_values"]
    assert torch.equal(first.image_processor(picture(), return_tensors="pt")["pixel_values"], inner)
    assert torch.equal(first.image_processor.preprocess(picture(), return_tensors="pt")["pixel_values"], inner)
    assert first.video_processor is None
    picture().save(tmp_path / "a.png")
    address = "data:image/png;base64," + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    for source in (str(tmp_path / "a.png"), tmp_path / "a.png", address, address.partition(",")[2]):
        assert np.array_equal(first(images=source)[1], want)


def test_videos_are_purified_frame_by_frame(purify: Purifier) -> None:
    first, want = PurifyFirst(Composite(), purify), np.asarray(purify.purify_image(picture()))
    clip = np.stack([np.asarray(picture())] * 2)
    for videos in (clip, list(clip), [picture()] * 2):
        assert np.array_equal(np.stack(first(videos=videos)[2]), np.stack([want] * 2))
    found = first(None, None, [torch.from_numpy(clip), torch.from_numpy(clip).movedim(-1, 1)])[2]
    assert np.array_equal(found[0], np.stack([want] * 2)) and np.array_equal(found[1].movedim(1, -1), found[0])
    assert first(videos=None)[2] is None
    with pytest.raises(InputError, match=r"expected the frames of a video, got clip\.mp4; decode it first"):
        first(videos=["clip.mp4"])


def test_arrays_come_back_in_their_form(purify: Purifier) -> None:
    first, want = PurifyFirst(Composite(), purify), np.asarray(purify.purify_image(picture()))
    array = np.asarray(picture())
    found = first(images=[array, np.moveaxis(array, -1, 0)])[1]
    assert np.array_equal(found[0], want) and np.array_equal(np.moveaxis(found[1], 0, -1), want)
    unit, exact = array.astype(np.float32) / 255, purify(torch.from_numpy(array / 255).float().movedim(-1, 0)).numpy()
    found = first(images=[unit, np.moveaxis(unit, -1, 0)])[1]
    assert np.array_equal(np.moveaxis(found[0], -1, 0), exact) and np.array_equal(found[1], exact)


def test_second_pictures_are_purified_too(purify: Purifier) -> None:
    first, want = PurifyFirst(lambda **given: given, purify), np.asarray(purify.purify_image(picture()))
    names = ("query_images", "visual_prompt", "prompt_images", "prompt_masks")
    found = first(**dict.fromkeys(names, picture()))
    assert [np.array_equal(found[name], want) for name in names] == [True, True, True, False]


def test_attributes_are_set_at_the_processor(purify: Purifier) -> None:
    first = PurifyFirst(Composite(), purify)
    first.rows = 3
    assert first.processor.rows == 3
    first.image_processor.do_resize = False
    assert first.image_processor(picture(), return_tensors="pt")["pixel_values"].shape[-2:] == (20, 16)
    with pytest.raises(AttributeError, match="columns"):
        _ = first.columns
