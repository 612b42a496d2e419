"""attach() under transformers: pipelines, the Trainer and generate(), with small random networks, offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

import purifier
from purifier import Purifier, PurifierWarning, WrapError, _errors, _wrapping, attacks

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZE = {"height": 32, "width": 32}


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def seen(model: nn.Module) -> list[Tensor]:
    """Records the pictures that reach the model's own code."""
    found: list[Tensor] = []
    inner = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        found.append((args[0] if args else kwargs["pixel_values"]).detach().clone())
        return inner(*args, **kwargs)

    # transformers looks at the signature of forward.
    forward.__signature__ = __import__("inspect").signature(inner)  # type: ignore[attr-defined]
    model.forward = forward  # type: ignore[method-assign]
    return found


def expected(processor: Any, purify: Purifier, picture: Image.Image) -> Tensor:
    """What a model is to see: the picture as the processor makes it, purified in [0, 1]."""
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(list(v)).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (purify(values * std + mean) - mean) / std


def vit() -> transformers.ViTForImageClassification:
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=4, **TINY)
    return transformers.ViTForImageClassification(config).eval()


def vit_processor() -> transformers.ViTImageProcessor:
    return transformers.ViTImageProcessor(size=SIZE)


def detr() -> transformers.YolosForObjectDetection:
    config = transformers.YolosConfig(image_size=[32, 32], patch_size=8, num_detection_tokens=4, num_labels=3, **TINY)
    return transformers.YolosForObjectDetection(config).eval()


def segformer() -> transformers.SegformerForSemanticSegmentation:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 8], sr_ratios=[1, 1], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 1], mlp_ratios=[1, 1], decoder_hidden_size=8, num_labels=3,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config).eval()


def dpt() -> transformers.DPTForDepthEstimation:
    config = transformers.DPTConfig(
        image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        num_hidden_layers=4, hidden_size=16, num_attention_heads=2, intermediate_size=16, is_hybrid=False,
    )  # fmt: skip
    return transformers.DPTForDepthEstimation(config).eval()


PIPELINES = {
    "image-classification": (vit, vit_processor),
    "object-detection": (detr, lambda: transformers.YolosImageProcessor(size=SIZE)),
    "image-segmentation": (segformer, lambda: transformers.SegformerImageProcessor(size=SIZE)),
    "depth-estimation": (dpt, lambda: transformers.DPTImageProcessor(size=SIZE)),
}


@pytest.mark.parametrize("way", ["attach", "wrap"])
@pytest.mark.parametrize("task", PIPELINES)
def test_a_pipeline_takes_a_defended_model_and_the_model_sees_purified_pictures(
    task: str, way: str, purify: Purifier, picture: Image.Image
) -> None:
    make_model, make_processor = PIPELINES[task]
    model, processor = make_model(), make_processor()
    pictures = seen(model)
    bare = transformers.pipeline(task, model=model, image_processor=processor)(picture)
    defended = model if way == "attach" else purifier.wrap(model, purify, processor=processor)
    if way == "attach":
        purifier.attach(model, purify, processor=processor)
    purified = transformers.pipeline(task, model=defended, image_processor=processor)(picture)
    assert type(purified) is type(bare)
    torch.testing.assert_close(pictures[1], expected(processor, purify, picture), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        pictures[0], processor(images=picture, return_tensors="pt")["pixel_values"], rtol=0, atol=1e-5
    )


def clip() -> tuple[transformers.CLIPModel, transformers.CLIPImageProcessor]:
    text = {"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, **TINY}
    vision = {"image_size": 32, "patch_size": 8, **TINY}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE)
    return transformers.CLIPModel(config).eval(), processor


def tokenizer(words: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Gives each word its place in the list."""
    places = tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=words[0])
    made = tokenizers.Tokenizer(places)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=words[0], model_input_names=names)


@pytest.mark.parametrize("way", ["attach", "wrap"])
def test_the_zero_shot_pipeline_scores_purified_pictures(way: str, purify: Purifier, picture: Image.Image) -> None:
    model, processor = clip()
    names = tokenizer(["none", "begin", "end", "cat", "dog"])
    options: dict[str, Any] = {"hypothesis_template": "begin {} end", "candidate_labels": ["cat", "dog"]}
    ids = torch.tensor([[1, 3, 2], [1, 4, 2]])
    logits = model(input_ids=ids, pixel_values=expected(processor, purify, picture)).logits_per_image
    want = dict(zip(["cat", "dog"], logits[0].softmax(0).tolist(), strict=True))
    defended = model if way == "attach" else purifier.wrap(model, purify, processor=processor)
    if way == "attach":
        purifier.attach(model, purify, processor=processor)
    task = "zero-shot-image-classification"
    ask = transformers.pipeline(task, model=defended, image_processor=processor, tokenizer=names)
    found = {one["label"]: one["score"] for one in ask(picture, **options)}
    assert found == pytest.approx(want, abs=1e-5)


def test_a_zero_shot_classifier_leaves_its_texts_alone(purify: Purifier, picture: Image.Image) -> None:
    model, processor = clip()
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[1, 5, 2], [1, 6, 2]])
    purified = expected(processor, purify, picture)
    want = model(input_ids=ids, pixel_values=purified).logits_per_image
    purifier.attach(model, purify, processor=processor)
    got = model(input_ids=ids, pixel_values=values).logits_per_image
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    # By position the ids come first.
    torch.testing.assert_close(model(ids, values).logits_per_image, want, rtol=0, atol=1e-5)


def test_features_that_a_text_image_model_gives_are_those_of_the_purified_picture(
    purify: Purifier, picture: Image.Image
) -> None:
    model, processor = clip()
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    want = model.get_image_features(expected(processor, purify, picture)).pooler_output
    handle = purifier.attach(model, purify, processor=processor)
    torch.testing.assert_close(model.get_image_features(values).pooler_output, want, rtol=0, atol=1e-5)
    assert purifier._attaching.attached(model) is not None
    handle.remove()
    assert purifier._attaching.attached(model) is None


def test_a_model_that_writes_what_it_sees_generates_from_purified_pictures(
    purify: Purifier, picture: Image.Image
) -> None:
    encoder = transformers.ViTConfig(image_size=32, patch_size=8, **TINY)
    decoder = transformers.TrOCRConfig(
        vocab_size=32, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
        max_position_embeddings=16, cross_attention_hidden_size=16,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    model = transformers.VisionEncoderDecoderModel(config=config).eval()
    processor = vit_processor()
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "pad_token_id": 0}
    options |= {"return_dict_in_generate": True, "decoder_start_token_id": 1}
    want = model.generate(pixel_values=expected(processor, purify, picture), **options)
    purifier.attach(model, purify, processor=processor)
    got = model.generate(pixel_values=values, **options)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), rtol=0, atol=1e-4)


class Pictures(torch.utils.data.Dataset):
    """Eight pictures of noise with labels, as a Trainer takes them."""

    def __init__(self, processor: Any) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        self.values = processor(images=[Image.fromarray(one) for one in noise], return_tensors="pt")["pixel_values"]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"pixel_values": self.values[number], "labels": number % 4}


def trainer(model: nn.Module, data: Pictures, out: Path, **more: Any) -> transformers.Trainer:
    options = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 8, "max_steps": 2, **more}
    settings = transformers.TrainingArguments(
        str(out), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no", **options
    )
    return transformers.Trainer(model=model, args=settings, train_dataset=data, eval_dataset=data)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("way", ["attach", "wrap"])
def test_a_trainer_evaluates_and_trains_a_defended_model(way: str, purify: Purifier, tmp_path: Path) -> None:
    model, processor = vit(), vit_processor()
    data = Pictures(processor)
    labels = torch.tensor([number % 4 for number in range(8)])
    with torch.no_grad():
        purified = torch.cat([purify(v[None] * 0.5 + 0.5) for v in data.values]) * 2 - 1
        loss = model(pixel_values=purified, labels=labels).loss.item()
        bare = model(pixel_values=data.values, labels=labels).loss.item()
    defended = model if way == "attach" else purifier.wrap(model, purify, processor=processor)
    if way == "attach":
        purifier.attach(model, purify, processor=processor)
    # Of a wrapped model, the Trainer does not find the names of the labels.
    options = {} if way == "attach" else {"label_names": ["labels"]}
    found = trainer(defended, data, tmp_path, **options).evaluate()["eval_loss"]
    assert found == pytest.approx(loss, abs=1e-5) and found != pytest.approx(bare, abs=1e-5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(defended, data, tmp_path, **options).train()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(model.state_dict()) == set(before)


class Adapted(nn.Module):
    """An adapter around a model, called as one of PEFT is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": model})

    def get_base_model(self) -> nn.Module:
        return self.base_model["model"]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_base_model()(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_base_model().generate(*args, **kwargs)  # type: ignore[operator]


def test_a_classifier_in_an_adapter_is_purified_at_the_adapters_call(purify: Purifier) -> None:
    adapted = Adapted(vit())
    pixels = seen(adapted.get_base_model())
    handle = purifier.attach(adapted, purify)
    values = torch.rand(1, 3, 32, 32)
    adapted(pixel_values=values)
    torch.testing.assert_close(pixels, [purify(values)])
    assert handle.model is adapted and purifier._attaching.attached(adapted) is not None


@pytest.mark.parametrize("adapt", [lambda model: model, Adapted], ids=["model", "adapter"])
def test_a_vision_language_model_generates_from_purified_pictures(
    adapt: Callable[[nn.Module], Any], purify: Purifier, picture: Image.Image
) -> None:
    text = transformers.LlamaConfig(vocab_size=64, num_key_value_heads=2, max_position_embeddings=64, **TINY)
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=16, **TINY)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=63, vision_feature_layer=-1, image_seq_length=4
    )
    model = adapt(transformers.LlavaForConditionalGeneration(config).eval())
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE)
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[1, 63, 63, 63, 63, 5, 6]])
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "pad_token_id": 0}
    options |= {"return_dict_in_generate": True, "attention_mask": torch.ones_like(ids)}
    want = model.generate(input_ids=ids, pixel_values=expected(processor, purify, picture), **options)
    purifier.attach(model, purify, processor=processor)
    got = model.generate(input_ids=ids, pixel_values=values, **options)
    assert torch.equal(got.sequences, want.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), rtol=0, atol=1e-4)


def blip(kind: type[Any]) -> Any:
    text = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 2, **TINY}
    vision = {"image_size": 32, "patch_size": 8, **TINY}
    text |= {"max_position_embeddings": 16, "encoder_hidden_size": 16}
    return kind(transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


IDS = torch.tensor([[1, 5, 2]])


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (transformers.BlipForConditionalGeneration, lambda m, x: m(pixel_values=x, input_ids=IDS)),
        (transformers.BlipForConditionalGeneration, lambda m, x: m.generate(x, max_new_tokens=2)),
        (transformers.BlipForQuestionAnswering, lambda m, x: m.generate(IDS, pixel_values=x, max_new_tokens=2)),
    ],
    ids=["call", "caption", "answer"],
)
def test_a_generate_that_calls_the_image_encoder_itself_is_purified_once(
    kind: type[Any], call: Any, purify: Purifier
) -> None:
    model, images = blip(kind), torch.rand(1, 3, 32, 32)
    found: list[Tensor] = []
    model.vision_model.embeddings.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    purifier.attach(model, purify)
    call(model, images)
    assert len(found) == 1
    torch.testing.assert_close(found[0], purify(images))


def test_a_model_that_calls_parts_of_its_image_encoder_is_purified_at_its_own_call(purify: Purifier) -> None:
    text = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BridgeTowerConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, text_config=text,
        vision_config={"hidden_size": 64, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
    )  # fmt: skip
    model, images = transformers.BridgeTowerModel(config).eval(), torch.rand(1, 3, 32, 32)
    found: list[Tensor] = []
    part = model.vision_model.visual.embeddings
    part.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    purifier.attach(model, purify)
    model(input_ids=IDS, pixel_values=images)
    torch.testing.assert_close(found[0], purify(images))


def test_attacks_read_the_logits_of_a_model_and_its_purifier_is_known_to_them(purify: Purifier) -> None:
    model, images, labels = vit(), torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    for attack in (
        attacks.PGD(steps=2), attacks.APGD(steps=3), attacks.Square(queries=3), attacks.CW(steps=2),
        attacks.DeepFool(steps=2), attacks.APGD(steps=3, loss="dlr"),
    ):  # fmt: skip
        plain = attack.seeded(0)(lambda x: model(x).logits, images, labels)
        assert torch.equal(attack.seeded(0)(model, images, labels), plain)
    purifier.attach(model, purify)
    found, right = attacks.worst_case(attacks.Blind(), [attacks.PGD(steps=1)], model, images, labels)
    assert found.shape == images.shape and right.shape == (2,)


TEXT = {"vocab_size": 60, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, **TINY}


def test_a_model_with_two_image_encoders_is_refused_and_each_can_have_a_purifier(purify: Purifier) -> None:
    tower = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, "projection_dim": 16, **TINY}
    config = transformers.VideoLlavaConfig(
        vision_config=tower, text_config={"model_type": "llama", **TEXT}, image_token_index=50, video_token_index=51
    )
    model = transformers.VideoLlavaForConditionalGeneration(config).eval()
    with pytest.raises(WrapError, match=r"one image encoder, got 'model\.video_tower' beside CLIPVisionModel"):
        purifier.attach(model, purify)
    found = seen(model.model.video_tower)
    purifier.attach(model.model.image_tower, purify)
    purifier.attach(model.model.video_tower, purify)
    clip = torch.rand(1, 4, 3, 32, 32)
    model.model.get_video_features(pixel_values_videos=clip)
    assert torch.equal(found[0], purify(clip[0]))


def test_a_model_that_takes_patches_is_refused(purify: Purifier) -> None:
    vision = {"hidden_size": 16, "d_ff": 16, "d_kv": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 60, "hidden_size": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.Pix2StructConfig(text_config=text, vision_config=vision)
    model = transformers.Pix2StructForConditionalGeneration(config).eval()
    with pytest.raises(WrapError, match="which takes patches; purify the picture before the processor"):
        purifier.attach(model, purify)
    with pytest.raises(WrapError, match="purify the picture before the processor"):
        purifier.wrap(model, purify)(
            flattened_patches=torch.rand(1, 16, 770), labels=torch.ones(1, 5, dtype=torch.long)
        )


def test_a_model_whose_image_encoder_cannot_be_told_gives_a_warning(
    purify: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = {"image_size": 32, "patch_size": 16, **TINY}
    config = transformers.FlavaConfig(
        image_config=vision, text_config={"vocab_size": 60, **TINY}, multimodal_config=TINY, projection_dim=16,
        init_codebook=False,
    )  # fmt: skip
    model = transformers.FlavaModel(config).eval()
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    with pytest.warns(
        PurifierWarning, match=r"calls of FlavaModel are purified, but its get_image_features\(\) may not"
    ):
        purifier.attach(model, purify)
    found = seen(model.image_model)
    picture = torch.rand(1, 3, 32, 32)
    model(pixel_values=picture)
    assert torch.equal(found[0], purify(picture))
