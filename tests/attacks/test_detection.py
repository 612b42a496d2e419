"""Attacks on detectors: the chosen loss rises, and the detector is as it was."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from purifier import InputError, OptionError
from purifier.attacks import APGD, BIM, BPDA, CW, EOT, PGD, Aware, Blind, DetectionAttack, DetectionLoss, ThreatModel
from tests.builders import pictures, small_purifier, unchanged

PARTS = {
    "faster": {"cls": ("loss_classifier", "loss_objectness"), "loc": ("loss_box_reg", "loss_rpn_box_reg")},
    "retina": {"cls": ("classification",), "loc": ("bbox_regression",)},
    "fcos": {"cls": ("classification",), "loc": ("bbox_regression", "bbox_ctrness")},
    "ssdlite": {"cls": ("classification",), "loc": ("bbox_regression",)},
}


def backbone() -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.Tanh(), nn.Dropout(0.5), nn.Conv2d(32, 32, 3, 2, 1), nn.Tanh()
    )
    layers.out_channels = 32
    return layers


def detector(kind: str) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 96}
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    if kind == "ssdlite":
        model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    elif kind == "retina":
        model = RetinaNet(backbone(), 4, anchor_generator=anchors, **sizes)
    elif kind == "fcos":
        model = FCOS(backbone(), 4, anchor_generator=AnchorGenerator(((8,),), ((1.0,),)), **sizes)
    else:
        model = FasterRCNN(
            backbone(),
            rpn_anchor_generator=anchors,
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
            box_head=nn.Sequential(nn.Flatten(), nn.Linear(32 * 9, 32), nn.Tanh()),
            box_predictor=FastRCNNPredictor(32, 4),
            rpn_post_nms_top_n_train=50,
            **sizes,
        )
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Heads start out with weights of 0.01, which give next to no gradient.
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def things(count: int) -> list[dict[str, torch.Tensor]]:
    boxes = torch.tensor([[4.0, 4.0, 30.0, 34.0], [20.0, 24.0, 60.0, 50.0]])
    return [{"boxes": boxes + i, "labels": torch.tensor([1 + i % 3, 2])} for i in range(count)]


def losses(
    model: nn.Module, images: Iterable[torch.Tensor], targets: list[dict[str, torch.Tensor]], names: Sequence[str]
) -> float:
    """The detector's losses with the modes that an attack uses, the same anchors sampled every time."""
    for module in model.modules():
        if "detection" in type(module).__module__ and "Transform" not in type(module).__name__:
            module.training = True
    torch.manual_seed(5)
    with torch.no_grad():
        total = 0.0
        for image, target in zip(images, targets, strict=True):
            terms = model([image], [target])
            total += sum(terms[name].item() for name in names)
    model.eval()
    return total


@pytest.mark.parametrize("loss", ["cls", "loc", "cls+loc"])
@pytest.mark.parametrize("kind", PARTS)
def test_the_chosen_loss_rises_and_the_detector_stays_as_it_was(kind: str, loss: str) -> None:
    model, images, targets = detector(kind), pictures(2, 3, 64, 72), things(2)
    with unchanged(model):
        attacked = DetectionAttack(PGD(eps=0.05, steps=4), loss=loss).seeded(0)(model, images, targets)
    names = [name for part in loss.split("+") for name in PARTS[kind][part]]
    noise = (images + 0.05 * torch.randn_like(images).sign()).clamp(0, 1)
    before, random, after = (losses(model, x, targets, names) for x in (images, noise, attacked))
    assert after > max(before, random)
    assert (attacked - images).abs().max() <= 0.05 + 1e-6 and attacked.min() >= 0 and attacked.max() <= 1


def test_modes_are_restored_after_an_error() -> None:
    model = detector("faster")
    with unchanged(model), pytest.raises(KeyError):
        DetectionAttack(BIM())(model, pictures(1, 3, 64, 64), [{"labels": torch.tensor([1])}])


def test_images_of_different_sizes_come_back_as_a_list() -> None:
    model, images = detector("faster"), [pictures(3, 64, 72), pictures(3, 80, 64)]
    attack = DetectionAttack(BIM(eps=0.05, steps=2)).seeded(0)
    attacked = attack(model, images, things(2))
    assert [tuple(image.shape) for image in attacked] == [(3, 64, 72), (3, 80, 64)]
    assert all(0 < (a - b).abs().max() <= 0.05 + 1e-6 for a, b in zip(attacked, images, strict=True))


def test_equal_seeds_give_equal_images_whatever_the_global_seed() -> None:
    model, images, targets = detector("faster"), pictures(2, 3, 64, 64), things(2)
    attack = DetectionAttack(PGD(eps=0.05, steps=2))
    torch.manual_seed(1)
    first = attack.seeded(3)(model, images, targets)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, attack.seeded(3)(model, images, targets))
    torch.set_rng_state(state)
    attack.seeded(3)(model, images, targets)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("threat", [Blind(), Aware(), Aware(samples=2), BPDA(), BPDA(samples=2)])
def test_it_goes_through_a_purifier(threat: ThreatModel) -> None:
    model, images, targets = detector("retina"), [pictures(3, 64, 72), pictures(3, 80, 64)], things(2)
    defended = small_purifier("gs").wrap(model)
    with unchanged(defended):
        attacked = threat(DetectionAttack(PGD(eps=0.1, steps=4)).seeded(0), defended, images, targets)
    names = ("classification", "bbox_regression")
    purified = [[defended.purifier(image) for image in batch] for batch in (images, attacked)]
    assert losses(model, purified[1], targets, names) > losses(model, purified[0], targets, names)


def test_a_normalised_defended_detector_is_attacked_in_unit_range() -> None:
    model, images, targets = detector("retina"), [pictures(3, 64, 72)], things(1)
    defended = small_purifier("gs").wrap(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    (attacked,) = Aware()(DetectionAttack(BIM(eps=0.05, steps=2)).seeded(0), defended, images, targets)
    assert 0 < (attacked - images[0]).abs().max() <= 0.05 + 1e-6


def test_eot_may_be_inside_or_outside() -> None:
    model, images, targets = detector("retina"), [pictures(3, 64, 64)], things(1)
    plain = DetectionAttack(BIM(eps=0.05, steps=2)).seeded(0)(model, images, targets)[0]
    inside = DetectionAttack(EOT(BIM(eps=0.05, steps=2), samples=2)).seeded(0)(model, images, targets)[0]
    outside = EOT(DetectionAttack(BIM(eps=0.05, steps=2)), samples=2).seeded(0)(model, images, targets)[0]
    assert torch.equal(inside, outside) and ((plain - inside).abs() > 1e-6).float().mean() < 0.05


def test_any_detector_is_attacked_through_a_custom_loss() -> None:
    torch.manual_seed(0)
    yolo = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.Flatten(2)).eval()
    batch = pictures(3, 3, 32, 32)
    targets = [torch.rand(6, 16) for _ in range(3)]

    def loss(outputs: Tensor, wanted: list[Tensor]) -> Tensor:
        return (outputs - torch.stack(wanted)).square().mean((1, 2))

    def total(images: Tensor) -> Tensor:
        return loss(yolo(images), targets).sum()

    with unchanged(yolo):
        attacked = DetectionAttack(APGD(eps=0.1, steps=10), loss=loss)(yolo, batch, targets)
    assert total(attacked) > total(batch)
    lists = DetectionAttack(BIM(eps=0.1), loss=loss)(yolo, list(batch), targets)
    assert isinstance(lists, list) and total(torch.stack(lists)) > total(batch)


def test_names_and_settings_say_the_loss() -> None:
    attack = DetectionAttack(PGD(eps=0.1, steps=3), loss="loc")
    assert attack.name == "PGD-loc" and attack.settings()["loss"] == "loc"
    assert (attack.with_eps(0.05).attack.eps, attack.steps) == (0.05, 3)


def test_terms_of_a_kind_are_summed() -> None:
    terms = {
        "loss_classifier": 1.0,
        "loss_objectness": 2.0,
        "loss_box_reg": 4.0,
        "loss_rpn_box_reg": 8.0,
        "loss_mask": 16,
    }
    terms = {name: torch.tensor(float(value)) for name, value in terms.items()}
    sums = [DetectionLoss(kind)(terms, None).item() for kind in ("cls", "loc", "cls+loc")]
    assert sums == [3, 12, 15]


def test_what_does_not_fit_is_refused() -> None:
    model, images = detector("faster"), pictures(1, 3, 64, 64)
    with pytest.raises(OptionError, match="expected loss to be 'cls' or 'loc' or 'cls\\+loc' or a function, got 'box'"):
        DetectionAttack(PGD(), loss="box")
    with pytest.raises(OptionError, match=r"expected an attack on any loss for detection, .* got CW, which needs"):
        DetectionAttack(CW())
    with pytest.raises(InputError, match="expected a torchvision detector, or one behind a purifier, got Flatten"):
        DetectionAttack(PGD())(nn.Flatten(), images, things(1))
    with pytest.raises(InputError, match="expected targets for each of 1 images, got 2"):
        DetectionAttack(PGD())(model, images, things(2))
    with pytest.raises(InputError, match=r"expected a detector's losses with loss_classifier .* got list"):
        DetectionLoss("cls")([], None)
    with pytest.raises(InputError, match=r"expected images in \[0, 1\]"):
        DetectionAttack(PGD())(model, [images[0] * 255], things(1))
    with pytest.raises(InputError, match="expected a model in eval mode"):
        DetectionAttack(PGD())(model.train(), images, things(1))
