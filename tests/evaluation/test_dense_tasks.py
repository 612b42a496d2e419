"""Evaluations of segmenters and detectors."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier, PurifierWarning
from purifier._records import read_records
from purifier.attacks import BIM, CW, PGD, SSP, Attack, Aware, Blind, Square
from purifier.evaluation import (
    Evaluation,
    EvaluationSettings,
    boxed_images,
    evaluate,
    labelled_images,
    masked_images,
    write_report,
)
from purifier.evaluation.report.markdown import summary
from tests.scenes import Pixels, class_folders, coco_folder, mask_folders

QUICK = EvaluationSettings(batch_size=2, pictures=1, probe_images=0)
BOTH = {"blind": Blind(), "aware": Aware()}


@pytest.fixture
def gs() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=1)


def find(result: Evaluation, purifier: str, threat: str) -> Any:
    (row,) = [row for row in result.rows if (row.purifier, row.threat) == (purifier, threat)]
    return row


def test_segmenters_are_measured_over_all_pixels_and_resume(tmp_path: Path, gs: Purifier) -> None:
    images, masks = mask_folders(tmp_path)
    data = masked_images(images, masks=masks)
    options = {"purifiers": {"gs": gs}, "attacks": {"BIM": BIM(eps=0.03, alpha=0.01, steps=5)}, "threats": BOTH}
    result = evaluate(Pixels(), data, out=tmp_path / "out", settings=QUICK, **options)
    batch, targets = data.load(range(3))
    for name, shown in (("none", batch), ("gs", gs(batch))):
        said = Pixels()(shown)["out"].argmax(1)
        valid = targets != 255
        expected = float((said == targets)[valid].double().mean())
        assert find(result, name, "none").standard["pixel_accuracy"] == pytest.approx(expected)
    for name, threat in (("none", "blind"), ("gs", "aware")):
        row = find(result, name, threat)
        assert row.robust["mean_iou"] < row.standard["mean_iou"]
        assert row.robust_intervals["mean_iou"][0] <= row.robust["mean_iou"] <= row.robust_intervals["mean_iou"][1]
    path = tmp_path / "out" / "records" / "aware--gs--BIM.jsonl"
    before = read_records(path)
    path.write_bytes(path.read_bytes()[:-20])
    again = evaluate(Pixels(), data, out=tmp_path / "out", settings=QUICK, **options)
    assert read_records(path) == before and again.rows == result.rows
    with pytest.raises(OptionError, match="ignore_index: 255 there, 0 here"):
        evaluate(Pixels(), data, out=tmp_path / "out", settings=QUICK, ignore_index=0, **options)


def test_logits_smaller_than_the_masks_are_enlarged(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)

    def coarse(batch: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(Pixels()(batch)["out"], 4)

    data = masked_images(images, masks=masks)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    result = evaluate(coarse, data, out=tmp_path / "out", **nothing)
    assert result.rows[0].standard["pixel_accuracy"] > 0.8


def test_nan_logits_of_a_segmenter_count_as_wrong(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)
    options = {"purifiers": {}, "attacks": {"PGD": PGD(steps=1)}, "threats": {"blind": Blind()}, "settings": QUICK}
    (clean, _) = evaluate(
        lambda batch: Pixels()(batch)["out"] * torch.nan,
        masked_images(images, masks=masks),
        out=tmp_path / "out",
        **options,
    ).rows
    assert clean.standard == {"pixel_accuracy": 0.0, "mean_iou": 0.0}


class OneBox(nn.Module):
    """A detector by hand: one box in each image, whose score is the image's brightness inside it."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        boxes = torch.tensor([[8.0, 8, 32, 38]])
        scores = [image[:, 8:38, 8:32].mean().view(1) for image in images]
        return [{"boxes": boxes, "scores": score, "labels": (score > 0.49).long()} for score in scores]


def brightness(outputs: Any, targets: Any) -> Tensor:
    """The loss of `OneBox`: falls with the score."""
    return -torch.stack([found["scores"].sum() for found in outputs]).sum()


def test_detectors_with_a_loss_of_their_own_are_measured(tmp_path: Path, gs: Purifier) -> None:
    images, annotations = coco_folder(tmp_path)
    data = boxed_images(images, annotations=annotations)
    options = {"purifiers": {"gs": gs}, "attacks": {"PGD": PGD(eps=0.1, steps=5)}, "threats": BOTH}

    # Batches of one size go as a tensor; a detector takes lists.
    result = evaluate(OneBox().eval(), data, out=tmp_path / "out", settings=QUICK, loss=brightness, **options)
    assert find(result, "none", "none").standard == {"map": 1.0, "map_50": 1.0}
    assert find(result, "none", "blind").robust["map_50"] == 0
    assert find(result, "gs", "aware").robust["map_50"] == 0
    assert result.settings["loss"] == "brightness"


def test_torchvision_detectors_are_attacked_through_their_losses(tmp_path: Path) -> None:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2).eval()
    images, annotations = coco_folder(tmp_path)
    data = boxed_images(images, annotations=annotations)
    result = evaluate(
        model,
        data,
        purifiers={},
        attacks={"PGD": PGD(eps=0.03, steps=1)},
        threats={"blind": Blind()},
        out=tmp_path / "out",
        loss="cls",
        settings=QUICK,
    )
    row = find(result, "none", "blind")
    assert row.attack == "PGD-cls" and row.images == 2 and set(row.robust) == {"map", "map_50"}
    assert 0 < row.settings["largest_linf"] <= 0.03 + 1e-6
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("attack", [Square(queries=2), CW(steps=2, search=1)])
def test_attacks_that_do_not_fit_detection_are_refused(tmp_path: Path, attack: Attack) -> None:
    images, annotations = coco_folder(tmp_path)
    data = boxed_images(images, annotations=annotations)
    with pytest.raises(OptionError, match=rf"expected an attack that fits detection, got {attack.name}"):
        evaluate(
            OneBox(), data, purifiers={}, attacks={"a": attack}, threats=BOTH, out=tmp_path / "out", loss=brightness
        )


def test_attacks_that_do_not_fit_segmentation_are_refused(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)
    data = masked_images(images, masks=masks)
    with pytest.raises(OptionError, match="expected an attack that fits segmentation, got Square"):
        evaluate(Pixels(), data, purifiers={}, attacks={"a": Square(queries=2)}, threats=BOTH, out=tmp_path / "out")


def test_attacks_without_a_loss_of_the_model_fit_every_task(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)
    attacks = {"SSP": SSP(nn.Conv2d(3, 2, 3).eval(), steps=1)}
    data = masked_images(images, masks=masks)
    result = evaluate(
        Pixels(), data, purifiers={}, attacks=attacks, threats={"blind": Blind()}, out=tmp_path / "out", settings=QUICK
    )
    assert find(result, "none", "blind").attack == "SSP"


def test_models_and_data_of_another_task_are_refused(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path / "m")
    data = masked_images(images, masks=masks)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    with pytest.raises(InputError, match=r"expected logits \(N, classes, H, W\) from the segmenter"):
        evaluate(lambda x: x.mean((2, 3)), data, out=tmp_path / "a", **nothing)
    with pytest.raises(InputError, match=r"expected mask values within 0..2, or 254 to ignore, got 255"):
        evaluate(Pixels(), data, out=tmp_path / "c", ignore_index=254, **nothing)
    boxed_folder, annotations = coco_folder(tmp_path / "c")
    with pytest.raises(InputError, match=r"expected a list of \{'boxes', 'scores', 'labels'\}"):
        boxes = boxed_images(boxed_folder, annotations=annotations)
        evaluate(lambda x: x, boxes, out=tmp_path / "d", **nothing)
    with pytest.raises(InputError, match=r"expected logits \(N, classes\) from a classifier, got a dict of out"):
        labelled = labelled_images(class_folders(tmp_path / "l"), 16)
        evaluate(Pixels(), labelled, out=tmp_path / "e", **nothing)


def test_detectors_take_no_mean_and_std(tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path)
    data = boxed_images(images, annotations=annotations)
    with pytest.raises(OptionError, match="expected mean for classification and segmentation only, got it for det"):
        evaluate(
            OneBox(), data, purifiers={}, attacks={}, threats={}, out=tmp_path / "out", mean=[0.5] * 3, std=[1] * 3
        )


@pytest.mark.slow
def test_the_kits_segmenter_has_the_accuracy_that_the_kit_states(kit: Path, tmp_path: Path) -> None:
    from purifier.evaluation import load_model

    model = load_model(f"{kit / 'kit_models.py'}:lraspp_camvid")
    data = masked_images(kit / "camvid/test", None, 8, masks=kit / "camvid/test_labels")
    settings = replace(QUICK, batch_size=2)
    result = evaluate(
        model.call, data, purifiers={}, attacks={}, threats={}, out=tmp_path, ignore_index=11, settings=settings
    )
    # 0.8118 on all 117 (README of the kit).
    low, high = result.rows[0].standard_intervals["pixel_accuracy"]
    assert low < 0.8118 < high


def test_masks_of_0_and_255_are_refused(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)
    for path in masks.iterdir():
        Image.fromarray(255 * (np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    with pytest.raises(
        InputError, match=r"got only 0 and 255, which is ignored, .* write masks of 0 and 1 \(mask // 255"
    ):
        evaluate(Pixels(), masked_images(images, masks=masks), out=tmp_path / "a", **nothing)
    for path in masks.iterdir():
        Image.fromarray(np.full((16, 16), 255, np.uint8)).save(path)
    with pytest.raises(InputError, match="expected masks with classes, got only 255, which is ignored"):
        evaluate(Pixels(), masked_images(images, masks=masks), out=tmp_path / "b", **nothing)
    for path in masks.iterdir():
        Image.fromarray(np.full((16, 16), 1, np.uint8)).save(path)
    with pytest.warns(PurifierWarning, match="all pixels of the masks have class 1"):
        evaluate(Pixels(), masked_images(images, masks=masks), out=tmp_path / "c", **nothing)


def test_a_segmenter_of_one_logit_is_told_what_it_needs(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)

    def one(batch: Tensor) -> Tensor:
        return batch[:, :1] - batch[:, 2:]

    data = masked_images(images, masks=masks)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    with pytest.raises(InputError, match=r"at least two classes .*, got \(1, 1, 16, 16\); give a model of one logit"):
        evaluate(one, data, out=tmp_path / "a", **nothing)
    # What the message advises works.
    for path in masks.iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 2).astype(np.uint8)).save(path)
    result = evaluate(lambda x: torch.cat((torch.zeros_like(z := one(x)), z), 1), data, out=tmp_path / "b", **nothing)
    assert result.rows[0].standard["pixel_accuracy"] > 0.55 and result.findings == []


class Numbered(nn.Module):
    """A detector that finds every box of `coco_folder`, with a label of its own."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        box = {"boxes": torch.tensor([[8.0, 8, 32, 38]]), "scores": torch.ones(1)}
        return [{**box, "labels": torch.tensor([self.label])} for _ in images]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (0, "of 4 boxes that are found, 0 have the right category as they are, and 4 if each label is raised by 1"),
        (2, "0 have the right category as they are, and 4 if each label is lowered by 1"),
        (17, "labels 17 are predicted, and the categories are 1"),
        (1, None),
    ],
)
def test_labels_of_another_numbering_are_found(label: int, said: str | None, tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path, count=4)
    data = boxed_images(images, 32 if label == 17 else None, annotations=annotations)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    result = evaluate(Numbered(label).eval(), data, out=tmp_path / "out", **nothing)
    measured = {finding.check: finding.measured for _, finding in result.findings}
    if said is None:
        assert measured == {} and result.rows[0].standard["map"] == 1
    else:
        assert said in measured["labels of another numbering"] and len(measured) == 1
        assert said in summary(result)
        files = write_report(result, tmp_path / "out")
        assert said in files["html"].read_text() and "mAP / mAP@0.5 behind each" in files["html"].read_text()


def test_a_detector_that_takes_a_batch_is_told_what_it_needs(tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path, count=1)
    data = boxed_images(images, annotations=annotations)

    def batched(batch: Tensor) -> list[dict[str, Tensor]]:
        return Numbered(1)(list(batch.flip(3)))

    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    with pytest.raises(
        InputError, match=r"a detector that takes a list .*, got AttributeError: 'list' .* 'flip' from it"
    ):
        evaluate(batched, data, out=tmp_path / "a", **nothing)
    result = evaluate(lambda images: batched(torch.stack(list(images))), data, out=tmp_path / "b", **nothing)
    assert result.rows[0].standard["map"] == 1


def test_a_poor_segmenter_is_found(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path, count=4)
    data = masked_images(images, masks=masks)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    result = evaluate(lambda x: -Pixels()(x)["out"], data, out=tmp_path / "out", **nothing)
    ((name, finding),) = result.findings
    assert (name, finding.check) == (None, "poor on clean images")
    assert re.fullmatch(r"pixel accuracy \d+\.\d % on 4 clean images", finding.measured)


@pytest.mark.parametrize(
    "found",
    [
        {"boxes": 1, "scores": 2, "labels": 3},
        {"boxes": torch.zeros(1, 4), "scores": torch.zeros(2), "labels": torch.zeros(1)},
        {"boxes": torch.tensor(1.0), "scores": torch.zeros(1), "labels": torch.zeros(1)},
        {"boxes": torch.zeros(4), "scores": torch.zeros(4), "labels": torch.zeros(4)},
        {"boxes": torch.zeros(1, 4), "scores": torch.zeros(1)},
    ],
)
def test_outputs_that_are_no_boxes_are_refused(found: Any, tmp_path: Path) -> None:
    images, annotations = coco_folder(tmp_path, count=1)
    data = boxed_images(images, annotations=annotations)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK}
    with pytest.raises(InputError, match=r"with tensors \(M, 4\), \(M,\) and \(M,\), from a detector"):
        evaluate(lambda images: [found for _ in images], data, out=tmp_path / "out", **nothing)


@pytest.mark.parametrize("value", ["255", 1.5, 10**30, object()])
def test_options_of_other_types_are_refused(value: Any, tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path / "m", count=1)
    nothing = {"purifiers": {}, "attacks": {}, "threats": {}, "settings": QUICK, "out": tmp_path / "out"}
    with pytest.raises(OptionError, match="expected ignore_index to be an integer"):
        evaluate(Pixels(), masked_images(images, masks=masks), ignore_index=value, **nothing)
    boxes, annotations = coco_folder(tmp_path / "b", count=1)
    if not isinstance(value, str):
        with pytest.raises(OptionError, match=r"expected loss as 'cls', 'loc', 'cls\+loc' or a function"):
            evaluate(OneBox(), boxed_images(boxes, annotations=annotations), loss=value, **nothing)
