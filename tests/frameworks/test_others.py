"""attach() and wrap() under Lightning, timm, torchvision's detectors and YOLO-style predictors, offline."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import purifier
from purifier import Purifier
from tests.builders import pictures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning


@pytest.fixture
def purify() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


class Module(lightning.LightningModule):
    """A classifier as Lightning holds one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images)
        return out

    def predict_step(self, batch: Tensor, number: int) -> Tensor:
        return self(batch)


@pytest.mark.filterwarnings("ignore")
def test_lightning_predicts_with_an_attached_module(purify: Purifier, tmp_path: Any) -> None:
    module, images = Module().eval(), pictures(4, 3, 16, 16)
    with torch.no_grad():
        want = module(purify(images))
    purifier.attach(module, purify)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **options)
    found = trainer.predict(module, torch.utils.data.DataLoader(images, batch_size=2))
    torch.testing.assert_close(torch.cat(found), want)


@pytest.mark.parametrize("how", ["attach", "wrap"])
def test_timms_helpers_read_the_data_settings_of_a_defended_model(how: str, purify: Purifier) -> None:
    model = timm.create_model("test_resnet.r160_in1k", pretrained=False).eval()
    # Other than ImageNet's, so that it shows where they come from.
    model.pretrained_cfg.update(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    own = timm.data.resolve_data_config({}, model=model)
    bare = copy.deepcopy(model)
    defended = purifier.wrap(model, purify) if how == "wrap" else model
    if how == "attach":
        purifier.attach(model, purify)
    assert timm.data.resolve_data_config({}, model=defended) == own and own["mean"] == (0.5, 0.5, 0.5)
    transform = timm.data.create_transform(**own)
    picture = torchvision.transforms.functional.to_pil_image(pictures(1, 3, 200, 180)[0])
    values = transform(picture)[None]
    want = bare((purify((values * 0.5 + 0.5).clamp(0, 1)) - 0.5) / 0.5)
    torch.testing.assert_close(defended(values), want, rtol=0, atol=1e-4)


def test_a_torchvision_detector_finds_boxes_in_purified_pictures_of_any_size(purify: Purifier) -> None:
    torch.manual_seed(0)
    make = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    model = make(weights=None, weights_backbone=None, num_classes=3, score_thresh=0.0, detections_per_img=20).eval()
    # The boxes of this network, which has no training, hardly depend on the pictures, so those are compared too.
    seen: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = [pictures(1, 3, 40, 50)[0], pictures(1, 3, 60, 32, seed=1)[0]]
    with torch.no_grad():
        model(images)
        want = model([purify(image) for image in images])
        purifier.attach(model, purify)
        found = model(images)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other)
        assert len(one["boxes"]) == 20
    bare, purified, attached = seen
    assert torch.equal(attached, purified) and not torch.equal(attached, bare)


class Predictor:
    """What YOLO-style packages do: hold a model, read its attributes, call it, and decode what it gives."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def predict(self, frame: Tensor) -> list[tuple[str, float]]:
        scores = self.model(frame[None] if frame.ndim == 3 else frame, augment=False)[0]
        names, stride = self.model.names, int(self.model.stride.max())
        assert scores.shape[-1] == len(names) and stride == 8
        return [(names[int(row.argmax())], float(row.max())) for row in scores.detach().softmax(1)]


class Detector(nn.Module):
    """A one-stage detector with the attributes that predictors read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 2, 8, 8)
        self.names = {0: "cat", 1: "dog"}
        self.stride = torch.tensor([8.0])

    def forward(self, images: Tensor, augment: bool = False) -> tuple[Tensor]:
        return (self.head(images).mean((2, 3)),)


@pytest.mark.parametrize("how", ["attach", "wrap"])
def test_a_yolo_style_predictor_keeps_its_model_and_sees_purified_frames(how: str, purify: Purifier) -> None:
    detector, frame = Detector().eval(), pictures(1, 3, 32, 32)[0]
    predictor = Predictor(detector)
    want = predictor.predict(purify(frame))
    if how == "attach":
        purifier.attach(predictor.model, purify)
    else:
        predictor.model = purifier.wrap(predictor.model, purify)
    assert predictor.predict(frame) == want
