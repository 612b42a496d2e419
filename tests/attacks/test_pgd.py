"""PGD: the ball, the range, the direction, and bad input."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import InputError, OptionError
from purifier.attacks import PGD


@pytest.fixture
def victim() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 5)).eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 12, 12, generator=generator), torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_perturbations_stay_in_the_ball_and_the_image_range(
    victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], norm: str, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    eps = float(torch.rand((), generator=random)) * (0.2 if norm == "Linf" else 3)
    alpha = float(torch.rand((), generator=random)) * eps * 2
    attack = PGD(eps=eps, alpha=alpha, steps=4, norm=norm, restarts=1 + seed % 2, generator=random)
    images, labels = batch
    adversarial = attack(victim, images, labels)
    delta = (adversarial - images).flatten(1)
    size = delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert bool((size <= eps * (1 + 1e-5) + 1e-6).all())
    assert not adversarial.requires_grad


def test_the_loss_rises_untargeted_and_falls_targeted(
    victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = batch
    loss = nn.CrossEntropyLoss()
    away = PGD(eps=0.1, steps=10)(victim, images, labels)
    towards = PGD(eps=0.1, steps=10, targeted=True)(victim, images, labels)
    assert loss(victim(away), labels) > loss(victim(images), labels) > loss(victim(towards), labels)


def test_more_steps_and_restarts_find_higher_losses(
    victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = batch
    loss = nn.CrossEntropyLoss(reduction="none")

    def reached(steps: int, restarts: int = 1) -> Tensor:
        attack = PGD(eps=0.05, alpha=0.01, steps=steps, restarts=restarts, generator=torch.Generator().manual_seed(0))
        return loss(victim(attack(victim, images, labels)), labels)

    assert reached(10).mean() > reached(1).mean()
    assert bool((reached(2, restarts=5) >= reached(2) - 1e-6).all())


def test_a_linear_model_is_attacked_along_the_sign_of_its_weights() -> None:
    weights = torch.linspace(-1, 1, 3 * 4 * 4).view(3, 4, 4)
    attack = PGD(eps=0.1, alpha=0.1, steps=3, random_start=False, loss=lambda outputs, targets: outputs)
    images = torch.full((2, 3, 4, 4), 0.5)
    adversarial = attack(lambda x: (x * weights).flatten(1).sum(1), images, None)
    assert torch.allclose(adversarial, images + 0.1 * weights.sign(), atol=1e-6)


def test_equal_seeds_give_equal_images(victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    first, second = (PGD(generator=torch.Generator().manual_seed(3))(victim, images, labels) for _ in range(2))
    assert torch.equal(first, second)


def test_the_model_keeps_its_mode_and_gets_no_gradients(
    victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = batch
    PGD(steps=2)(victim, images, labels)
    assert not victim.training
    assert all(p.grad is None and p.requires_grad for p in victim.parameters())


def test_dense_outputs_are_attacked_by_their_mean_loss() -> None:
    torch.manual_seed(0)
    segmenter = nn.Conv2d(3, 4, 3, padding=1)
    images, labels = torch.rand(2, 3, 8, 8), torch.randint(4, (2, 8, 8))
    adversarial = PGD(eps=0.1)(segmenter, images, labels)
    loss = nn.CrossEntropyLoss()
    assert loss(segmenter(adversarial), labels) > loss(segmenter(images), labels)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"eps": 8}, "expected eps in units of the"),
        ({"norm": "L1"}, "expected norm to be 'Linf' or 'L2', got 'L1'"),
        ({"restarts": 0}, "expected restarts to be an integer of at least 1, got 0"),
        ({"restarts": 1.5}, "expected restarts to be an integer of at least 1, got 1.5"),
        ({"steps": 1.5}, "expected steps to be an integer of at least 0, got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        PGD(**options)


def test_images_that_are_not_in_range_are_refused(victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    with pytest.raises(InputError, match=r"expected images in \[0, 1\]"):
        PGD()(victim, images * 255, labels)
    with pytest.raises(InputError, match=r"expected float images of shape \(N, C, H, W\)"):
        PGD()(victim, images[0], labels)


def test_a_model_without_gradients_is_refused(victim: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    with pytest.raises(InputError, match="expected a model that gives gradients"):
        PGD()(lambda x: victim(x).detach(), images, labels)
