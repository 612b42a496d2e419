"""AutoAttack's adapter, and the strongest of several attacks."""

import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError
from purifier.attacks import APGD, CW, FGSM, PGD, AutoAttack, Aware, Strongest
from tests.attacks.victims import sizes
from tests.builders import pictures, small_purifier, unchanged


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 5)).eval()


@pytest.fixture
def batch(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    images = pictures(12, 3, 12, 12)
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5
    return images, labels


def right(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return model(images).argmax(1) == labels


class FakeEnsemble:
    """Records what the adapter asks of the package, and does what the package is known to do to its surroundings."""

    made: ClassVar[list] = []

    def __init__(self, model: nn.Module, **options: Any) -> None:
        self.model, self.options = model, options
        self.apgd_targeted, self.fab = SimpleNamespace(n_target_classes=9), SimpleNamespace(n_target_classes=9)
        FakeEnsemble.made.append(self)

    def run_standard_evaluation(
        self, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.images = images
        torch.manual_seed(self.options["seed"])
        sys.settrace(None)
        leaf = images.clone().requires_grad_()
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(self.model(leaf), labels)
        loss.backward(retain_graph=True)
        loss.backward()
        return (images + self.options["eps"] * leaf.grad.sign()).clamp(0, 1), labels


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[FakeEnsemble]:
    FakeEnsemble.made.clear()
    monkeypatch.setitem(sys.modules, "pyautoattack", SimpleNamespace(AutoAttack=FakeEnsemble))
    return FakeEnsemble


def test_the_adapter_passes_its_options_and_contains_side_effects(
    package: type[FakeEnsemble], model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    state = torch.get_rng_state()
    with unchanged(model):
        attacked = AutoAttack(version="rand", eps=0.03).seeded(7)(model, *batch)
    assert torch.equal(state, torch.get_rng_state())
    (ensemble,) = package.made
    options = ensemble.options
    assert (options["version"], options["eps"], options["norm"]) == ("rand", 0.03, "Linf")
    assert ensemble.apgd_targeted.n_target_classes == ensemble.fab.n_target_classes == 4
    assert right(model, attacked, batch[1]).sum() < right(model, *batch).sum()
    expected = FGSM(eps=0.03)(model, *batch)
    assert torch.allclose(attacked, expected, atol=1e-6)


def test_equal_seeds_reach_the_package(
    package: type[FakeEnsemble], model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    attack = AutoAttack(eps=0.03)
    for seed in (1, 1, 2):
        attack.seeded(seed)(model, *batch)
    first, second, third = (ensemble.options["seed"] for ensemble in package.made)
    assert first == second != third


def test_models_with_too_few_classes_are_refused(package: type[FakeEnsemble]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    with pytest.raises(
        InputError, match="expected a classifier with at least 4 classes for AutoAttack-standard, got 3"
    ):
        AutoAttack()(model, pictures(2, 3, 8, 8), torch.tensor([0, 1]))


@pytest.mark.parametrize(("size", "norm"), [((12, 12), "L2"), ((10, 30), "Linf"), ((4, 4), "L2")])
def test_images_that_the_package_cannot_tile_are_refused(
    package: type[FakeEnsemble], size: tuple[int, int], norm: str
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size[0] * size[1], 5))
    with pytest.raises(InputError, match=f"expected images of a size that .* got {size[0]} x {size[1]} for {norm}"):
        AutoAttack(norm=norm)(model, pictures(2, 3, *size), torch.tensor([0, 1]))
    assert len(AutoAttack(norm=norm, version="rand")(model, pictures(2, 3, *size), torch.tensor([0, 1]))) == 2


def test_names_and_options(package: type[FakeEnsemble]) -> None:
    attack = AutoAttack(version="rand", eps=0.1)
    assert (attack.name, attack.with_eps(0.2).eps) == ("AutoAttack-rand", 0.2)
    with pytest.raises(OptionError, match="expected version to be 'standard' or 'rand', got 'plus'"):
        AutoAttack(version="plus")
    with pytest.raises(OptionError, match="write 8/255, not 8"):
        AutoAttack(eps=8)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(OptionError, match=r'pip install "torch-purifier\[autoattack\]"'):
        AutoAttack()


def test_the_package_gets_contiguous_images_in_single_precision(
    package: type[FakeEnsemble], model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = batch
    expected = AutoAttack(eps=0.03)(model, images, labels)
    assert torch.equal(AutoAttack(eps=0.03)(model, images.to(memory_format=torch.channels_last), labels), expected)
    for ensemble in package.made:
        assert (ensemble.images.dtype, ensemble.images.is_contiguous()) == (torch.float32, True)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_in_double_precision_stay_in_the_ball_around_them(
    package: type[FakeEnsemble], model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], norm: str
) -> None:
    images, labels = batch[0].double() * 0.9 + 0.05 + 1e-9, batch[1]
    with unchanged(model.double()):
        attacked = AutoAttack(version="rand", eps=0.03, norm=norm)(model, images, labels)
    (ensemble,) = package.made
    assert ensemble.images.dtype == torch.float32
    assert attacked.dtype == torch.float64
    assert sizes(attacked, images, norm).max() == pytest.approx(0.03, abs=1e-15)


def test_an_image_in_double_precision_that_no_attack_changes_comes_back_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, package: type[FakeEnsemble], model: nn.Module
) -> None:
    monkeypatch.setattr(
        FakeEnsemble, "run_standard_evaluation", lambda self, images, labels, batch_size: (images, labels)
    )
    images = pictures(2, 3, 12, 12).double() + 1e-10
    assert torch.equal(AutoAttack(version="rand")(model.double(), images, torch.tensor([0, 1])), images.clamp(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["channels_last", "float64"])
def test_the_real_package_takes_other_layouts_and_double_precision(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], kind: str
) -> None:
    pytest.importorskip("pyautoattack", reason="AutoAttack needs the package pyautoattack")
    images, labels = batch
    images = images.double() if kind == "float64" else images.to(memory_format=torch.channels_last)
    model = model.to(images.dtype)
    with unchanged(model):
        attacked = AutoAttack(eps=0.01).seeded(0)(model, images, labels)
    assert attacked.dtype == images.dtype and sizes(attacked, images, "Linf").max() <= 0.01 + 1e-7
    assert right(model, attacked, labels).sum() < right(model, images, labels).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "norm", "eps"), [("standard", "Linf", 0.01), ("rand", "Linf", 0.01), ("standard", "L2", 0.3)]
)
def test_the_real_package_is_at_least_as_strong_as_pgd(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], version: str, norm: str, eps: float
) -> None:
    pytest.importorskip("pyautoattack", reason="AutoAttack needs the package pyautoattack")
    images, labels = batch
    if norm == "L2":
        images = images[..., :10, :10]
        model = nn.Sequential(nn.Upsample(size=(12, 12)), model).eval()
        labels = model(images).argmax(1)
    with unchanged(model):
        attacked = AutoAttack(version=version, eps=eps, norm=norm).seeded(0)(model, images, labels)
    delta = (attacked - images).flatten(1)
    assert (delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)).max() <= eps + 1e-5
    pgd = PGD(eps=eps, norm=norm, steps=20).seeded(0)(model, images, labels)
    assert right(model, attacked, labels).sum() <= right(model, pgd, labels).sum() < right(model, images, labels).sum()


def test_the_strongest_keeps_the_first_result_that_fools(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = batch
    first, second = PGD(eps=0.02, alpha=0.01, steps=1, random_start=False), FGSM(eps=0.02)
    both = Strongest(first, second)(model, images, labels)
    alone = first(model, images, labels)
    # Wrong as it is: left alone.
    assert torch.equal(both[0], images[0])
    fooled = ~right(model, alone, labels) & right(model, images, labels)
    assert fooled.any() and torch.equal(both[fooled], alone[fooled])
    assert right(model, both, labels).sum() < right(model, alone, labels).sum()


def test_where_none_fools_the_highest_loss_is_kept(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    loss = nn.CrossEntropyLoss(reduction="none")
    weak, strong = PGD(eps=1e-4, steps=1).seeded(0), FGSM(eps=1e-4)
    kept = loss(model(Strongest(weak, strong)(model, images, labels)), labels)[1:]
    losses = [loss(model(attack(model, images, labels)), labels)[1:] for attack in (weak.seeded(0), strong)]
    assert torch.allclose(kept, torch.maximum(*losses), atol=1e-5)


def test_later_attacks_run_only_on_images_that_withstood(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    sizes = []

    def counting(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(x))
        return model(x)

    images, labels = batch
    Strongest(FGSM(eps=0.02), FGSM(eps=0.02))(counting, images, labels)
    withstood = (right(model, FGSM(eps=0.02)(model, images, labels), labels) & right(model, images, labels)).sum()
    assert sizes == [11, withstood]


def test_the_strongest_goes_through_a_purifier(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    defended = small_purifier("gs").wrap(model)
    labels = defended(images).argmax(1)
    attacked = Aware(samples=2)(Strongest(FGSM(eps=0.05), PGD(eps=0.05)).seeded(0), defended, images, labels)
    assert right(defended, attacked, labels).sum() < 12


def test_the_strongest_states_its_attacks() -> None:
    attack = Strongest(PGD(eps=0.1), APGD(eps=0.1))
    assert (attack.name, attack.eps, attack.norm, attack.bounded) == ("Strongest(PGD, APGD)", 0.1, "Linf", True)
    assert attack.with_eps(0.2).attacks[1].eps == 0.2
    assert [part["name"] for part in attack.settings()["attacks"]] == ["PGD", "APGD"]
    assert not Strongest(CW(), PGD()).bounded


def test_attacks_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(OptionError, match="expected attacks to choose the strongest of, got none"):
        Strongest()
    with pytest.raises(OptionError, match="expected untargeted attacks"):
        Strongest(PGD(targeted=True))
    with pytest.raises(OptionError, match="expected attacks of one eps and norm"):
        Strongest(PGD(eps=0.1), PGD(eps=0.2))
