"""Self-checks: each finds the fault that was planted for it, and an honest setting raises none."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, Purifier
from purifier._purified_model import PurifiedModel
from purifier.attacks import APGD, CW, EOT, PGD, SSP, Attack, Square
from purifier.evaluation.checks import CHECKS, Finding, inspect, probe
from purifier.evaluation.rows import Row
from purifier.methods import Method, Stage
from tests.builders import unchanged

SIZE, CLASSES = 16, 4
Batch = tuple[Tensor, Tensor]


def painted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures with a soft bright band whose place and colour tell the class, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    rows = torch.arange(SIZE) / SIZE
    band = torch.exp(-(((rows - (labels[:, None] + 0.5) / CLASSES) / 0.12) ** 2))
    colour = torch.stack([labels % 2, labels // 2, 1 - labels % 2], 1).float()
    images = 0.25 + 0.4 * band[:, None, :, None] * (0.4 + 0.6 * colour[:, :, None, None])
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return (images + 0.08 * noise).clamp(0, 1), labels


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 16, CLASSES)),
        )
        images, labels = painted(256, seed=1)
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            optimiser.step()
    return model.eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return painted(16, seed=2)


def names(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]


class Planted(Method):
    """A purifier with a fault in it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def stages(self) -> list[Stage]:
        return [Stage(self.function, halo=0)]


def planted(function: Callable[[Tensor], Tensor], net: nn.Module) -> PurifiedModel:
    return Purifier(Planted(function), name="planted").wrap(net)


def test_an_honest_setting_raises_nothing(net: nn.Module, batch: Batch) -> None:
    images, labels = batch
    defended = Purifier.from_pretrained("gs", iterations=2).wrap(net)
    assert float((defended(images).argmax(1) == labels).float().mean()) > 0.9
    attack = PGD(eps=8 / 255, alpha=2 / 255, steps=10)
    with unchanged(defended):
        state = torch.random.get_rng_state()
        assert probe(defended, images, labels, attack=attack, trained_eps=16 / 255, trained_size=SIZE) == []
        assert torch.equal(torch.random.get_rng_state(), state)
    assert probe(net, images, labels) == []


def test_an_honest_setting_with_normalisation_raises_nothing(net: nn.Module, batch: Batch) -> None:
    images, labels = batch
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]

    def normalised(x: Tensor) -> Tensor:
        return net(x * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1))

    defended = Purifier.from_pretrained("gs", iterations=2).wrap(normalised, mean=mean, std=std)
    assert probe(defended, images, labels) == []


def test_a_purifier_that_detaches_has_zero_gradients(net: nn.Module, batch: Batch) -> None:
    found = {f.check: f for f in probe(planted(lambda x: x.detach(), net), *batch)}
    assert "does not reach the images" in found["zero gradients"].measured
    assert "detach()" in found["zero gradients"].explanation


def test_gradients_that_are_zero_for_one_image_are_found(net: nn.Module, batch: Batch) -> None:
    def dim(x: Tensor) -> Tensor:
        return torch.cat([x[:1] * 0 + 0.5, x[1:]])

    finding = next(f for f in probe(planted(dim, net), *batch) if f.check == "zero gradients")
    assert finding.measured == "of 16 images, 1 have a zero and 0 no finite gradient"


def test_gradients_that_are_not_finite_are_found(net: nn.Module, batch: Batch) -> None:
    # The square root's slope at 0 is infinite, and infinite times 0 is not a number.
    finding = next(f for f in probe(planted(lambda x: x + (x - x).sqrt(), net), *batch) if f.check == "zero gradients")
    assert "16 no finite gradient" in finding.measured


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.flip(-2)


def test_a_backward_pass_of_its_own_is_found(net: nn.Module, batch: Batch) -> None:
    assert "untrue gradients" in names(probe(planted(_Backwards.apply, net), *batch))


def test_a_detached_branch_is_found(net: nn.Module, batch: Batch) -> None:
    assert "untrue gradients" in names(probe(planted(lambda x: 0.3 * x + 0.7 * x.detach(), net), *batch))


def test_a_purifier_that_adds_noise_is_found_unless_the_attack_averages(net: nn.Module, batch: Batch) -> None:
    def noisy(x: Tensor) -> Tensor:
        return x + 0.05 * torch.randn_like(x)

    finding = next(f for f in probe(planted(noisy, net), *batch) if f.check == "randomness without EOT")
    assert "two calls differ by" in finding.measured
    assert "EOT" in finding.explanation
    found = names(probe(planted(noisy, net), *batch, samples=20))
    assert "randomness without EOT" not in found and "random defence judged once" in found
    assert "random defence judged once" not in names(probe(planted(noisy, net), *batch, submissions=10))


def test_dynamic_inference_is_found_also_where_its_noise_repeats(net: nn.Module, batch: Batch) -> None:
    defended = Purifier.from_pretrained("gs", iterations=1).dynamic(sigma=0.0).wrap(net)
    finding = next(f for f in probe(defended, *batch) if f.check == "randomness without EOT")
    assert finding.measured.endswith("states that it is random")


@pytest.mark.parametrize("name", ["bit-depth", "jpeg"])
def test_a_purifier_that_states_that_it_quantises_is_found(net: nn.Module, batch: Batch, name: str) -> None:
    finding = next(
        f for f in probe(Purifier.from_pretrained(name).wrap(net), *batch) if f.check == "quantising purifier"
    )
    assert finding.measured == "purifier.differentiable is False"


def test_a_purifier_that_quantises_in_secret_is_found(net: nn.Module, batch: Batch) -> None:
    found = names(probe(planted(lambda x: (x * 7).round() / 7, net), *batch))
    assert {"quantising purifier", "zero gradients", "eps = 1 not reaching zero"} <= set(found)


def test_quantising_with_an_identity_backward_has_untrue_gradients(net: nn.Module, batch: Batch) -> None:
    found = names(probe(planted(lambda x: x + ((x * 7).round() / 7 - x).detach(), net), *batch))
    assert "untrue gradients" in found
    assert "quantising purifier" not in found


LEVELS = torch.tensor([0.2, 0.4, 0.6, 0.8])


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A classifier that forgives no change of range: the nearest of four levels of brightness."""
    return -50 * (images.mean((1, 2, 3))[:, None] - LEVELS) ** 2


STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize(
    ("wants", "said"),
    [
        (lambda x: x / 255, "16 when scaled to 0..255"),
        (lambda x: 0.5 + x / 2, "16 when scaled to -1..1"),
        (lambda x: x * STD + 0.45, "when scaled to the range of mean=(0.485"),
    ],
)
def test_a_model_of_another_range_is_found(wants: Callable[[Tensor], Tensor], said: str) -> None:
    labels = torch.arange(16) % 4
    images = (LEVELS[labels].view(-1, 1, 1, 1) + 0.05 * torch.randn(16, 3, SIZE, SIZE)).clamp(0, 1)
    defended = Purifier.from_pretrained("gs", iterations=1).wrap(lambda x: brightness(wants(x)))
    finding = next(f for f in probe(defended, images, labels) if f.check == "wrong range")
    assert "images correct as they are" in finding.measured and said in finding.measured
    assert "wrong range" not in names(probe(Purifier.from_pretrained("gs").wrap(brightness), images, labels))


def test_a_model_with_shuffled_labels_is_found(net: nn.Module, batch: Batch) -> None:
    images, labels = batch
    finding = next(f for f in probe(net, images, (labels + 1) % CLASSES) if f.check == "poor on clean images")
    assert finding.measured == "0 of 16 images are right, with 4 classes"
    assert "labels are numbered as the model's classes" in finding.explanation


def test_a_model_that_gives_one_class_only_is_found(net: nn.Module, batch: Batch) -> None:
    images, labels = painted(16, seed=2)
    labels = torch.where(torch.arange(16) < 9, 0, labels)
    finding = next(
        f
        for f in probe(lambda x: net(x) + 1e3 * torch.eye(CLASSES)[0], images, labels)
        if f.check == "poor on clean images"
    )
    assert finding.measured.startswith("class 0 is predicted for all 16 images, and right for ")


def test_fewer_than_four_images_accuse_nobody(net: nn.Module, batch: Batch) -> None:
    images, labels = batch
    for count in (1, 2, 3):
        broken = planted(lambda x: x.detach(), net)
        assert probe(broken, images[:count], (labels[:count] + 1) % CLASSES) == []
    found = probe(net, images[:2], labels[:2], attack=PGD(eps=0.5), trained_eps=0.1)
    assert names(found) == ["outside the trained range"]


def test_softmax_outputs_are_found(net: nn.Module, batch: Batch) -> None:
    finding = next(f for f in probe(lambda x: net(x).softmax(1), *batch) if f.check == "softmax outputs")
    assert "logits" in finding.explanation
    assert "softmax outputs" not in names(probe(lambda x: net(x).log_softmax(1), *batch))


def test_a_saturated_loss_is_found_unless_the_attack_uses_another(net: nn.Module, batch: Batch) -> None:
    def sharp(x: Tensor) -> Tensor:
        return 1000 * net(x)

    finding = next(f for f in probe(sharp, *batch) if f.check == "saturated loss")
    assert "DLR" in finding.explanation
    climbs = PGD(loss=lambda outputs, labels: outputs.sum(1) - 2 * outputs.gather(1, labels[:, None])[:, 0])
    assert "saturated loss" not in names(probe(sharp, *batch, attack=climbs))


def test_an_iterative_attack_with_tiny_steps_is_found(net: nn.Module, batch: Batch) -> None:
    lame = PGD(eps=16 / 255, alpha=1e-6, steps=5)
    finding = next(f for f in probe(net, *batch, attack=lame) if f.check == "iterative weaker than one-step")
    assert "after PGD" in finding.measured


@pytest.mark.parametrize("attack", [Square(queries=20), CW(steps=2), SSP(features=lambda x: 0 * x, steps=2)])
def test_attacks_without_a_loss_are_not_compared_with_one_step(net: nn.Module, batch: Batch, attack: Attack) -> None:
    assert probe(net, *batch, attack=attack) == []


@pytest.mark.parametrize("attack", [APGD(steps=10), APGD(loss="dlr", steps=10), EOT(PGD(steps=10), samples=2)])
def test_attacks_of_other_kinds_raise_nothing_in_an_honest_setting(
    net: nn.Module, batch: Batch, attack: Attack
) -> None:
    assert probe(net, *batch, attack=attack) == []


def test_a_masked_gradient_does_not_reach_zero_at_eps_one(net: nn.Module, batch: Batch) -> None:
    found = names(probe(planted(_Backwards.apply, net), *batch))
    assert "eps = 1 not reaching zero" in found


def test_images_and_eps_outside_the_training_are_found(net: nn.Module, batch: Batch) -> None:
    attack = PGD(eps=32 / 255)
    defended = Purifier.from_pretrained("gs", iterations=1).wrap(net)
    found = probe(defended, *batch, attack=attack, trained_eps=(2 / 255, 16 / 255), trained_size=128)
    assert names(found) == ["outside the trained range"]
    assert found[0].measured == (
        "eps 32/255, trained for 2/255 to 16/255; images of 16 x 16 pixels, trained for sides from 64 to 256"
    )


def test_a_segmenter_is_probed_by_its_pixels(batch: Batch) -> None:
    torch.manual_seed(0)
    segmenter = nn.Conv2d(3, 4, 3, padding=1).eval()
    masks = torch.randint(4, (16, SIZE, SIZE))
    defended = planted(lambda x: x.detach(), segmenter)
    assert names(probe(defended, batch[0], masks)) == ["zero gradients"]
    assert probe(Purifier.from_pretrained("gs").wrap(segmenter), batch[0], masks) == []


def test_what_cannot_be_probed_is_refused(net: nn.Module, batch: Batch) -> None:
    images, labels = batch
    with pytest.raises(InputError, match="expected a label for each of 16 images, got 3"):
        probe(net, images, labels[:3])
    with pytest.raises(InputError, match=r"expected images in \[0, 1\]"):
        probe(net, images * 255, labels)
    with pytest.raises(InputError, match=r"expected a batch of images \(N, 3, H, W\)"):
        probe(net, images[0], labels)


def row(**changes: Any) -> Row:
    facts = {
        "purifier": "gs",
        "attack": "PGD",
        "threat": "aware",
        "eps": 8 / 255,
        "norm": "Linf",
        "steps": 10,
        "images": 100,
        "standard": 90,
        "robust": 20,
        "fooled": 70,
        "restored": 25,
    }
    return Row(**{**facts, **changes})


HONEST = [
    row(attack="clean", threat="none", eps=None, norm=None, steps=None, robust=90, fooled=0),
    row(purifier="none", threat="blind", robust=0, standard=95),
    row(purifier="none", threat="blind", robust=0, standard=95, eps=16 / 255),
    row(purifier="none", attack="FGSM", threat="blind", robust=10, standard=95, steps=1),
    row(threat="blind", robust=50),
    row(threat="blind", robust=40, eps=16 / 255),
    # One step transfers better than many, so this is no fault.
    row(threat="blind", attack="FGSM", robust=35, steps=1),
    row(attack="FGSM", robust=34, steps=1),
    row(),
    row(eps=16 / 255, robust=2),
    row(attack="Square", robust=41, steps=300),
    row(eps=1.0, robust=0),
    row(threat="worst-case", attack="worst-case", robust=19, steps=None),
]


def test_honest_rows_raise_nothing() -> None:
    assert inspect(HONEST) == []


@pytest.mark.parametrize(
    ("planted_rows", "check", "measured"),
    [
        ([row(attack="FGSM", steps=1, robust=10)], "iterative weaker than one-step", "10/100"),
        ([row(eps=1.0, robust=6)], "eps = 1 not reaching zero", "6/100"),
        ([row(eps=16 / 255, robust=25)], "accuracy not falling with eps", "then 25/100 at eps 16/255"),
        ([row(eps=16 / 255, robust=20)], "accuracy not falling with eps", "still 20/100 at eps 16/255"),
        ([row(threat="blind", eps=4 / 255, robust=40), row(threat="blind", robust=50)],
         "accuracy not falling with eps", "gs, PGD eps 4/255 (blind) 40/100, then 50/100"),
        ([row(attack="Square", steps=1000, robust=12)], "black-box stronger than white-box", "gs, Square"),
        ([row(threat="transfer", robust=12)], "black-box stronger than white-box", "(transfer) 12/100"),
        ([row(threat="blind", robust=12)], "black-box stronger than white-box", "(blind) 12/100"),
        ([row(threat="blind", purifier="jpeg"), row(threat="blind", purifier="none")],
         "blind figure without an aware one", "no purifier-aware row for jpeg"),
    ],
)  # fmt: skip
def test_rows_that_contradict_each_other_are_found(planted_rows: list[Row], check: str, measured: str) -> None:
    findings = inspect([row(), *planted_rows])
    assert names(findings) == [check]
    assert measured in findings[0].measured


def test_a_square_attack_without_a_purifier_is_compared_with_the_plain_gradient() -> None:
    rows = [row(purifier="none", threat="blind", robust=30), row(purifier="none", threat="blind", attack="Square")]
    assert names(inspect(rows)) == ["black-box stronger than white-box"]


def test_ssp_follows_another_networks_gradient_and_is_no_white_box_attack() -> None:
    assert inspect([row(attack="SSP", robust=60), row(attack="FGSM", steps=1), row()]) == []
    assert names(inspect([row(attack="SSP", robust=10), row()])) == ["black-box stronger than white-box"]


def test_rows_of_other_precision_or_norm_are_not_compared() -> None:
    others = [row(norm="L2", robust=1, threat="blind"), row(dtype="bfloat16", eps=16 / 255, robust=30)]
    assert inspect([row(), *others]) == []


def test_more_restarts_are_not_compared_with_fewer_at_a_larger_eps() -> None:
    again = {"attack": {"kind": "PGD", "restarts": 5}}
    assert inspect([row(robust=12, settings=again), row(eps=16 / 255, robust=15)]) == []
    rising = [row(robust=12, settings=again), row(eps=16 / 255, robust=15, settings=again)]
    assert names(inspect(rising)) == ["accuracy not falling with eps"]


def test_one_image_more_or_less_is_chance() -> None:
    assert inspect([row(), row(attack="Square", robust=19), row(attack="FGSM", steps=1, robust=19)]) == []


def test_rows_on_different_images_are_compared_by_their_intervals() -> None:
    few = row(attack="Square", images=10, standard=9, robust=1, fooled=8, restored=1)
    assert inspect([row(), few]) == []
    assert names(inspect([row(), dataclasses.replace(few, images=500, standard=450, robust=30)])) == [
        "black-box stronger than white-box"
    ]


def test_rows_outside_the_training_are_found() -> None:
    findings = inspect([row(), row(eps=16 / 255, robust=2)], trained_eps={"gs": 8 / 255})
    assert names(findings) == ["outside the trained range"]
    assert "gs, PGD: eps 16/255, trained for 0/255 to 8/255" in findings[0].measured


def test_every_finding_is_in_the_list_of_checks(net: nn.Module, batch: Batch) -> None:
    texts = {(check.name, check.raised_if, check.explanation) for check in CHECKS}
    found = probe(planted(lambda x: x.detach(), net), *batch) + inspect([row(), row(eps=1.0, robust=6)])
    assert found and all((f.check, f.raised_if, f.explanation) in texts for f in found)
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(word in str(found[0]) for word in (found[0].check, found[0].measured, found[0].explanation))
