"""What every attack keeps: the ball, the range, the model, seeds, and the same errors for bad input."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from purifier import InputError, OptionError
from purifier.attacks import (
    APGD,
    BIM,
    CW,
    DIFGSM,
    DITIFGSM,
    FGSM,
    FMN,
    MIFGSM,
    NIFGSM,
    PGD,
    RFGSM,
    TIFGSM,
    VMIFGSM,
    VNIFGSM,
    Attack,
    Boundary,
    DeepFool,
    HopSkipJump,
    LowFrequencyPGD,
    Patch,
    Spatial,
    Square,
    Universal,
)
from tests.attacks.victims import examples, segmenter, sizes, trained

BOUNDED: dict[str, Callable[..., Attack]] = {
    "FGSM": FGSM,
    "RFGSM": RFGSM,
    "BIM": lambda **o: BIM(steps=4, **o),
    "PGD": lambda **o: PGD(steps=4, **o),
    "PGD restarts": lambda **o: PGD(steps=2, restarts=2, **o),
    "MIFGSM": lambda **o: MIFGSM(steps=4, **o),
    "DIFGSM": lambda **o: DIFGSM(steps=4, shrink=0.7, **o),
    "TIFGSM": lambda **o: TIFGSM(steps=4, kernel_size=5, **o),
    "DITIFGSM": lambda **o: DITIFGSM(steps=4, shrink=0.7, kernel_size=5, **o),
    "NIFGSM": lambda **o: NIFGSM(steps=4, **o),
    "VMIFGSM": lambda **o: VMIFGSM(steps=4, samples=3, **o),
    "VNIFGSM": lambda **o: VNIFGSM(steps=4, samples=3, **o),
    "LowFrequencyPGD": lambda **o: LowFrequencyPGD(steps=4, share=0.6, **o),
    "Universal": lambda **o: Universal(steps=6, batch=2, **o),
    "APGD": lambda **o: APGD(steps=8, **o),
    "APGD-DLR": lambda **o: APGD(steps=8, loss="dlr", **o),
    "Square": lambda **o: Square(queries=60, **o),
}
UNBOUNDED: dict[str, Callable[..., Attack]] = {
    "CW": lambda: CW(steps=30, search=3, c=0.1, alpha=0.05),
    "DeepFool": DeepFool,
    "DeepFool-Linf": lambda: DeepFool(norm="Linf"),
    "FMN": lambda: FMN(steps=30),
    "FMN-Linf": lambda: FMN(steps=30, norm="Linf"),
    "Boundary": lambda: Boundary(steps=30),
    "HopSkipJump": lambda: HopSkipJump(steps=3, samples=20),
    "HopSkipJump-Linf": lambda: HopSkipJump(steps=3, samples=20, norm="Linf"),
    "Patch": lambda: Patch(size=0.6, steps=15, alpha=0.1),
    "Spatial": lambda: Spatial(rotation=45, angles=5, shifts=3),
    "Spatial-random": lambda: Spatial(rotation=45, shift=0.3, search="random", tries=20),
}
EVERY = {**BOUNDED, **UNBOUNDED}
DETERMINISTIC = [
    "FGSM",
    "BIM",
    "MIFGSM",
    "NIFGSM",
    "TIFGSM",
    "CW",
    "DeepFool",
    "DeepFool-Linf",
    "FMN",
    "FMN-Linf",
    "Spatial",
]


@pytest.fixture
def victim() -> nn.Sequential:
    return trained()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", BOUNDED)
def test_perturbations_stay_in_the_ball_and_the_image_range(
    victim: nn.Sequential, name: str, norm: str, seed: int
) -> None:
    random = torch.Generator().manual_seed(100 + seed)
    eps = float(torch.rand((), generator=random)) * (0.3 if norm == "Linf" else 4)
    images, labels = examples(6, seed)
    images = (images * 1.6 - 0.3).clamp(0, 1)  # a good part is black or white
    adversarial = BOUNDED[name](eps=eps, norm=norm).seeded(seed)(victim, images, labels)
    assert adversarial.shape == images.shape and adversarial.dtype == images.dtype
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert bool((sizes(adversarial, images, norm) <= eps * (1 + 1e-5) + 1e-6).all())
    assert not torch.equal(adversarial, images)


@pytest.mark.parametrize("name", [n for n in BOUNDED if n not in ("FGSM", "APGD", "APGD-DLR", "Square")])
def test_steps_longer_than_the_radius_stay_in_the_ball(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(4)
    if name == "RFGSM":
        with pytest.raises(OptionError, match=r"expected alpha <= eps, got alpha=0.2, eps=0.05"):
            RFGSM(eps=0.05, alpha=0.2)
        return
    adversarial = BOUNDED[name](eps=0.05, alpha=0.2)(victim, images, labels)
    assert sizes(adversarial, images, "Linf").max() <= 0.05 + 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_attacks_lower_the_accuracy_and_stay_in_range(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(20, seed=2)
    attack = EVERY[name](eps=0.2 if name == "Square" else 0.1) if name in BOUNDED else EVERY[name]()
    adversarial = attack.seeded(0)(victim, images, labels)
    before, after = ((victim(x).argmax(1) == labels).float().mean() for x in (images, adversarial))
    assert before >= 0.9 and after <= before - 0.3
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert not adversarial.requires_grad


@pytest.mark.parametrize("name", [n for n in BOUNDED if n != "APGD-DLR"] + ["CW", "FMN"])
def test_targeted_attacks_come_closer_to_their_targets(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(20, seed=2)
    goals = (labels + 1) % 5
    attack: Attack = FMN(steps=30, targeted=True)
    if name == "CW":
        attack = CW(steps=30, search=3, c=0.1, alpha=0.05, targeted=True)
    elif name in BOUNDED:
        attack = BOUNDED[name](eps=0.15, targeted=True)
    adversarial = attack.seeded(0)(victim, images, goals)
    loss = nn.CrossEntropyLoss()
    assert loss(victim(adversarial), goals) < loss(victim(images), goals) - 0.3


@pytest.mark.parametrize("name", EVERY)
def test_seeded_copies_repeat_themselves_and_leave_the_global_generator_alone(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(5)
    attack = EVERY[name]()
    torch.manual_seed(1)
    first, state = attack.seeded(3)(victim, images, labels), torch.get_rng_state()
    torch.manual_seed(2)
    second = attack.seeded(3)(victim, images, labels)
    torch.manual_seed(1)
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", sorted(set(EVERY) - set(DETERMINISTIC)))
def test_other_seeds_give_other_images(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(5)
    attack = EVERY[name]()
    assert not torch.equal(attack.seeded(3)(victim, images, labels), attack.seeded(4)(victim, images, labels))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_batch_gives_the_same_result_as_its_images_one_by_one(victim: nn.Sequential, name: str) -> None:
    victim = victim.double()
    images, labels = examples(5)
    images, attack = images.double(), EVERY[name]()
    together = attack(victim, images, labels)
    alone = torch.cat([attack(victim, images[i : i + 1], labels[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_the_model_does_not_change(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(4)
    before = {key: value.clone() for key, value in victim.state_dict().items()}
    kept = images.clone()
    EVERY[name]()(victim, images, labels)
    assert not any(module.training for module in victim.modules())
    assert all(p.grad is None and p.requires_grad for p in victim.parameters())
    assert all(torch.equal(before[key], value) for key, value in victim.state_dict().items())
    assert torch.equal(images, kept) and not images.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "name", ["PGD", "APGD", "CW", "DeepFool", "Square", "FMN", "Boundary", "HopSkipJump", "Spatial"]
)
def test_attacks_work_in_any_grad_mode_of_the_caller(victim: nn.Sequential, name: str, mode: Callable[[], Any]) -> None:
    attack = EVERY[name]()
    expected = attack.seeded(0)(victim, *examples(4))
    with mode():
        assert torch.equal(attack.seeded(0)(victim, *examples(4)), expected)


@pytest.mark.parametrize("name", ["PGD", "APGD", "Square", "CW", "DeepFool", "FMN", "FMN-Linf"])
def test_dense_outputs_are_attacked_and_void_pixels_ignored(name: str) -> None:
    model = segmenter()
    images = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    labels[:, :3], labels[:, 3] = 255, -100
    attack = CW(steps=80, search=3, c=10, alpha=0.05) if name == "CW" else EVERY[name]()
    adversarial = attack(model, images, labels)
    counted = (labels >= 0) & (labels < 255)
    wrong = (model(adversarial).argmax(1) != labels)[counted].float().mean()
    assert wrong > (0.89 if name in UNBOUNDED else 0.01)


def test_void_pixels_have_no_gradient() -> None:
    model = segmenter()
    images, labels = torch.full((1, 3, 10, 10), 0.5), torch.full((1, 10, 10), 255)
    labels[:, :3] = 1
    changed = (PGD(random_start=False, steps=1)(model, images, labels) - images).abs().sum(1)[0]
    assert changed[:4].min() > 0 and changed[4:].max() == 0


@pytest.mark.parametrize("name", EVERY)
def test_settings_are_json_and_name_every_option(name: str) -> None:
    attack = EVERY[name]()
    settings = attack.seeded(5).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["name"] == attack.name and settings["seed"] == 5
    assert attack.settings()["seed"] is None
    assert repr(attack).startswith(f"{attack.name}(")
    if name in BOUNDED:
        assert settings["eps"] == 8 / 255 and settings["norm"] == "Linf"


@pytest.mark.parametrize("name", BOUNDED)
def test_another_eps_scales_the_step(name: str) -> None:
    attack = BOUNDED[name](eps=0.1)
    other = attack.with_eps(0.2)
    assert (attack.eps, other.eps) == (0.1, 0.2) and type(other) is type(attack)
    if hasattr(attack, "alpha"):
        assert other.alpha == pytest.approx(2 * attack.alpha)
        with pytest.raises(OptionError, match="expected an attack of eps > 0 to scale, got eps=0"):
            BOUNDED[name](eps=0.0).with_eps(0.1)
    with pytest.raises(OptionError, match="expected eps in units of the"):
        attack.with_eps(8)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_an_attack_without_a_radius_refuses_with_eps(name: str) -> None:
    with pytest.raises(OptionError, match=r"expected an attack with a radius, got .*(looks for|moves images|covers)"):
        UNBOUNDED[name]().with_eps(0.1)


@pytest.mark.parametrize("name", EVERY)
def test_the_memory_format_makes_no_difference(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(4)
    attack = EVERY[name]().seeded(0)
    found = attack(victim, images.to(memory_format=torch.channels_last), labels)
    assert torch.allclose(found, EVERY[name]().seeded(0)(victim, images, labels), atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_images_in_double_precision_are_attacked_in_it(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(4)
    attack = EVERY[name]().seeded(0)
    found = attack(victim.double(), images.double(), labels)
    assert found.dtype == torch.float64 and found.min() >= 0 and found.max() <= 1
    if attack.bounded:
        assert sizes(found, images.double(), "Linf").max() <= attack.eps + 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_batch_comes_back_empty(victim: nn.Sequential, name: str) -> None:
    assert EVERY[name]()(victim, torch.rand(0, 3, 12, 12), torch.zeros(0, dtype=torch.long)).shape == (0, 3, 12, 12)


# Bad input.


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.tensor([0, 5]), r"expected labels from 0 to 4, one of the model's 5 classes, got 5"),
        (torch.tensor([0, -1]), r"expected labels from 0 to 4, .* got -1"),
        (torch.tensor([0, 255]), r"expected labels from 0 to 4, .* got 255"),
        (torch.tensor([0, 1, 2]), r"expected labels of shape \(2,\) for outputs of shape \(2, 5\), got \(3,\)"),
        (torch.tensor([[0], [1]]), r"expected labels of shape \(2,\) .* got \(2, 1\)"),
        (torch.tensor([0.0, 1.0]), r"expected integer labels of shape \(2,\), got torch.float32"),
        ([0, 1], r"expected integer labels of shape \(2,\), got list"),
    ],
)
def test_labels_that_do_not_fit_are_refused(victim: nn.Sequential, name: str, labels: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        EVERY[name]()(victim, examples(2)[0], labels)


@pytest.mark.parametrize("name", EVERY)
def test_outputs_that_are_not_logits_are_refused(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(2)
    with pytest.raises(InputError, match=r"expected logits of shape \(N, classes\) .* got dict; for other tasks"):
        EVERY[name]()(lambda x: {"out": victim(x)}, images, labels)
    with pytest.raises(InputError, match=r"expected logits of shape .* got shape \(2,\)"):
        EVERY[name]()(lambda x: victim(x)[:, 0], images, labels)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("layer", [nn.BatchNorm2d, nn.Dropout])
def test_a_model_in_train_mode_is_refused(victim: nn.Sequential, name: str, layer: type[nn.Module]) -> None:
    for module in victim.modules():
        module.training = isinstance(module, layer)
    with pytest.raises(InputError, match=rf"expected a model in eval mode, got \d \({layer.__name__}\) in train mode"):
        EVERY[name]()(victim, *examples(2))


def test_train_mode_without_effect_is_accepted() -> None:
    model = segmenter().train()
    PGD(steps=1)(model, torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long))
    assert model.training


@pytest.mark.parametrize("name", [n for n in EVERY if EVERY[n]().gradient])
def test_a_model_without_gradients_is_refused(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(2)
    attack = EVERY[name]()
    with pytest.raises(InputError, match="expected a model that gives gradients, got outputs without any"):
        attack(lambda x: victim(x).detach(), images, labels)
    # Here the outputs do carry gradients, of the parameters alone.
    with pytest.raises(InputError, match=r"drop torch.no_grad\(\) and detach\(\) from it, attack with attacks.BPDA"):
        attack(lambda x: victim(x.detach()), images, labels)


@pytest.mark.parametrize("name", EVERY)
def test_images_of_a_wrong_kind_are_refused(victim: nn.Sequential, name: str) -> None:
    images, labels = examples(2)
    attack = EVERY[name]()
    for wrong, text in [
        (images * 255, r"expected images in \[0, 1\], got .* attack a model that normalises inside"),
        (images[0], r"expected float images of shape \(N, C, H, W\), got .*; add the batch axis with images\[None\]"),
        ((images * 255).byte(), r"expected float images of shape \(N, C, H, W\), got torch.uint8"),
        (images.half(), r"expected images in single precision, got torch.float16"),
        (images * torch.nan, r"expected images in \[0, 1\], got nan"),
        (list(images), r"expected float images of shape \(N, C, H, W\), got list"),
    ]:
        with pytest.raises(InputError, match=text):
            attack(victim, wrong, labels)


@pytest.mark.parametrize("name", BOUNDED)
def test_eps_of_the_range_to_255_is_refused(victim: nn.Sequential, name: str) -> None:
    with pytest.raises(OptionError, match=r"expected eps in units of the \[0, 1\] image range, got 8; write 8/255"):
        BOUNDED[name](eps=8)
    with pytest.raises(InputError, match=r"expected an L2 eps up to 20.78, .* got 128; divide an eps of the range"):
        BOUNDED[name](eps=128, norm="L2")(victim, *examples(2))
    with pytest.raises(OptionError, match="expected eps >= 0"):
        BOUNDED[name](eps=-0.1)
    with pytest.raises(OptionError, match="expected norm to be 'Linf' or 'L2', got 'L1'"):
        BOUNDED[name](eps=0.1, norm="L1")


@pytest.mark.parametrize("kind", sorted({type(EVERY[name]()) for name in EVERY}, key=lambda kind: kind.__name__))
def test_options_are_keyword_only_and_unknown_ones_are_refused(kind: type[Attack]) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        kind(8 / 255)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilon'"):
        kind(epsilon=8 / 255)


@pytest.mark.parametrize("kind", [type(BOUNDED[name]()) for name in BOUNDED] + [CW, FMN, Spatial])
def test_flags_that_are_not_bools_are_refused(kind: type[Attack]) -> None:
    with pytest.raises(OptionError, match="expected targeted to be True or False, got 'false'"):
        kind(targeted="false")
    if kind in (PGD, APGD):
        with pytest.raises(OptionError, match="expected random_start to be True or False, got 'false'"):
            kind(random_start="false")
