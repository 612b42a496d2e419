"""doctor(): every check has a planted fault and an honest case."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import purifier
from purifier import InputError, Purifier
from purifier.cli import command
from purifier.evaluation import doctor
from purifier.models.normalised import Normalised

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
COLOURS = torch.tensor(
    [[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.8, 0.8, 0.2], [0.2, 0.8, 0.8], [0.5, 0.5, 0.5]]
)
LABELS = torch.arange(60) % 6


def scene() -> Tensor:
    """Ten pictures of each of six colours, with grain."""
    grain = 0.1 * torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return (COLOURS[LABELS].view(60, 3, 1, 1) + grain).clamp(0, 1)


class Nearest(nn.Module):
    """Classifies normalised pictures by the colour that is nearest to their mean, and only near it."""

    def __init__(self, mean: list[float] = MEAN, std: list[float] = STD) -> None:
        super().__init__()
        self.colours = (COLOURS - torch.tensor(mean)) / torch.tensor(std)
        self.drop = nn.Dropout(0.5)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return -10 * torch.cdist(images.mean((2, 3)), self.colours)


class Plain(Nearest):
    """The same for pictures in [0, 1]."""

    def __init__(self) -> None:
        super().__init__([0.0] * 3, [1.0] * 3)


class Large(Plain):
    """Knows pictures of 64 pixels only; of others it goes by the grain of one corner."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.shape[-1] == 64 else images[:, :2, :1, :3].flatten(1)


class Grainy(Plain):
    """Knows pictures with grain only."""

    def forward(self, images: Tensor) -> Tensor:
        grain = images.diff(dim=-1).abs().mean((1, 2, 3))[:, None]
        return torch.where(grain > 0.05, 1, -1) * super().forward(images)


def normalise(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def found(model: object, images: Tensor, labels: Tensor | None = LABELS) -> list[str]:
    return [finding.check for finding in doctor(model, images, labels)]


@pytest.mark.parametrize(
    ("model", "images"),
    [(Plain, scene), (Nearest, lambda: normalise(scene())), (lambda: Normalised(Nearest(), MEAN, STD), scene)],
    ids=["plain", "normalised", "normalises inside"],
)
def test_a_model_that_is_fed_rightly_has_no_finding(
    model: Callable[[], nn.Module], images: Callable[[], Tensor]
) -> None:
    assert found(model(), images()) == []


@pytest.mark.parametrize(
    ("name", "model", "images"),
    [
        ("missing normalisation", Nearest, scene),
        ("missing normalisation", lambda: Nearest([0.5] * 3, [0.5] * 3), scene),
        ("double normalisation", lambda: Normalised(Nearest(), MEAN, STD), lambda: normalise(scene())),
        ("0..255", Plain, lambda: scene() * 255),
        ("0..255", lambda: Nearest([0.0] * 3, [1 / 255] * 3), scene),
        ("BGR", Plain, lambda: scene().flip(1)),
    ],
)
def test_a_planted_fault_of_the_input_is_found(
    name: str, model: Callable[[], nn.Module], images: Callable[[], Tensor]
) -> None:
    assert found(model(), images()) == [name]


def test_images_of_another_size_are_found() -> None:
    assert found(Large(), scene().repeat(1, 1, 2, 2)) == []
    assert found(Large(), scene()) == ["image size"]


def test_train_mode_is_found_and_given_back() -> None:
    model = Plain().train()
    assert found(model, scene()) == ["train mode"] and model.training and model.drop.training


def test_softmax_outputs_are_found() -> None:
    assert found(nn.Sequential(Plain(), nn.Softmax(1)).eval(), scene()) == ["softmax outputs"]
    assert found(nn.Sequential(Plain(), nn.Softmax(1)).eval(), scene(), None) == ["softmax outputs"]


@pytest.mark.parametrize("step", [-1, 1])
def test_labels_off_by_one_are_found(step: int) -> None:
    wide = nn.Sequential(Plain(), nn.ConstantPad1d((1, 1), -1e3)).eval()
    assert found(wide, scene(), LABELS + 1) == []
    assert found(wide, scene(), LABELS + 1 + step) == ["labels off by one"]


def test_classes_in_another_order_are_found() -> None:
    order = torch.tensor([3, 0, 4, 5, 1, 2])
    assert found(Plain(), scene(), order[LABELS]) == ["class order"]


def test_labels_that_the_model_does_not_know_are_found() -> None:
    labels = LABELS.clone()
    labels[:3] = torch.tensor([6, 9, -1])
    (finding,) = doctor(Plain(), scene(), labels)
    assert finding.check == "unknown labels"
    assert finding.measured == "3 of 60 labels are outside 0 to 5: they go from -1 to 9"


class Blacken(nn.Module):
    """A purifier that leaves nothing."""

    def purify(self, images: Tensor) -> Tensor:
        return images * 0


def test_a_purifier_that_costs_too_much_is_found() -> None:
    assert found(purifier.PurifiedModel(Plain(), Blacken()), scene()) == ["purifier changes clean images"]
    assert found(Purifier.from_pretrained("gs", iterations=1).wrap(Plain()), scene()) == []


def test_the_cost_is_compared_with_what_the_card_states() -> None:
    def measured(**options: Any) -> str:
        (finding,) = doctor(Purifier.from_pretrained("gs", **options).wrap(Grainy()), scene(), LABELS)
        assert finding.check == "purifier changes clean images"
        return finding.measured

    assert re.search(r"with it; its card states a cost of [\d.]+ points on resnet50, [\d.]+ points on", measured())
    # The card says nothing about other options.
    assert measured(kernel_size=7).endswith("with it")


def test_a_cost_that_the_card_states_is_not_found() -> None:
    purify = Purifier.from_pretrained("gs")
    lines = "| {} | none | 90.0 |\n| {} | gs | {} |\n".format
    purify.card = lines("resnet50", "resnet50", 85.0)
    assert found(purify.wrap(Grainy()), scene()) == ["purifier changes clean images"]
    purify.card += lines("mobilenet_v2", "mobilenet_v2", 0.0)
    assert found(purify.wrap(Grainy()), scene()) == []


def test_an_attached_model_is_examined_without_and_with_its_purifier() -> None:
    model = Nearest()
    purifier.attach(model, "gs", mean=MEAN, std=STD)
    assert found(model, scene()) == [] and found(model, normalise(scene())) == []


def test_outputs_that_are_not_finite_are_found() -> None:
    broken, images = Plain(), scene()
    broken.colours[0] = torch.nan
    for labels in (LABELS, None):
        (finding,) = doctor(broken, images, labels)
        assert finding.check == "outputs are not finite" and "weights" in finding.explanation
        assert finding.measured == "NaN or infinity for 60 of 60 images"
    assert found(lambda x: Plain()(x) * torch.where(x[:, :1, 0, 0] > 0.5, torch.inf, 1.0), images) == [finding.check]


def test_a_class_that_a_model_rules_out_is_no_fault() -> None:
    assert found(lambda x: nn.functional.pad(Plain()(x), (0, 1), value=-torch.inf), scene()) == []


def test_outputs_that_are_not_finite_behind_the_purifier_alone_are_found() -> None:
    class Afraid(Plain):
        """Fails on pictures without grain."""

        def forward(self, images: Tensor) -> Tensor:
            grain = images.diff(dim=-1).abs().mean((1, 2, 3))[:, None]
            return super().forward(images) / (grain > 0.05)

    (finding,) = doctor(Purifier.from_pretrained("gs").wrap(Afraid()), scene(), LABELS)
    assert finding.check == "outputs are not finite" and finding.measured.endswith("images behind the purifier")


def test_a_model_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected logits \(N, classes\) from the model, got Tensor"):
        doctor(nn.Identity(), scene())


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (scene().permute(0, 2, 3, 1), LABELS, "permute channels first"),
        ((scene() * 255).byte(), LABELS, "divide by 255"),
        (scene()[0], None, r"expected a batch of images \(N, 3, H, W\), got shape \(3, 32, 32\)"),
        (scene()[:0], LABELS[:0], r"expected a batch of images .*, got shape \(0, 3, 32, 32\)"),
        (list(scene()), LABELS, r"a set of labelled images, got list; .*labelled_images reads folders"),
        (scene(), LABELS[:3], r"a class number for each image, \(60,\), got torch.int64 of shape \(3,\)"),
        (scene(), torch.eye(6)[LABELS], r"a class number .*, got torch.float32 of shape \(60, 6\)"),
        (scene(), LABELS.tolist(), "a class number .*, got list"),
    ],
)
def test_images_and_labels_of_another_form_are_refused(images: Any, labels: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        doctor(Plain(), images, labels)


def test_the_command_says_what_to_do_and_its_exit_code_tells(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number, (image, label) in enumerate(zip(scene(), LABELS, strict=True)):
        path = folder / str(int(label)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(path)
    options = ["--data", str(folder), "--size", "32"]
    done = CliRunner().invoke(command, ["doctor", f"{__file__}:Nearest", *options])
    assert done.exit_code == 1 and "missing normalisation: " in done.output and "mean= and std=" in done.output
    done = CliRunner().invoke(command, ["doctor", f"{__file__}:Plain", *options, "--purifier", "gs"])
    assert (done.exit_code, done.output) == (0, "nothing found\n")
    done = CliRunner().invoke(command, ["doctor", "reference:demo", "--size", "128"])
    assert done.exit_code == 0 and "pass --data" in done.output


class Reversing(Plain):
    """Knows pictures in [0, 1] with their channels in the order BGR."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flip(1))


@pytest.mark.parametrize("way", ["wrap", "attach"])
def test_a_defended_model_of_bgr_images_is_fed_in_its_own_order(way: str) -> None:
    def defended(channels: str) -> nn.Module:
        model = Reversing()
        if way == "wrap":
            return purifier.wrap(model, "gs", channels=channels)
        purifier.attach(model, "gs", channels=channels)
        return model

    assert doctor(defended("BGR"), scene().flip(1), LABELS) == []
    (finding,) = doctor(defended("BGR"), scene(), LABELS)
    assert finding.check == "BGR"
    (finding,) = doctor(defended("RGB"), scene(), LABELS)
    assert finding.check == "BGR"
