"""The losses of GAD against their closed forms."""

from __future__ import annotations

import pytest
import torch

from purifier.training.gad import losses

IMAGE = torch.full((2, 3, 4, 4), 0.5)


def test_reconstruction_draws_the_adversarial_output_to_its_goal() -> None:
    clean, adversarial = IMAGE + 0.1, IMAGE + 0.4
    towards_output = losses.reconstruction_loss(clean, adversarial, IMAGE, clean)
    towards_image = losses.reconstruction_loss(clean, adversarial, IMAGE, IMAGE)
    assert (towards_output.item(), towards_image.item()) == pytest.approx((0.1 + 0.3, 0.1 + 0.4))


def test_distances_of_maps_are_added_over_layers() -> None:
    ours, theirs = [torch.zeros(1, 2, 3, 3), torch.zeros(1, 4)], [torch.full((1, 2, 3, 3), 0.5), -torch.ones(1, 4)]
    assert losses.maps_distance(ours, theirs).item() == 1.5


def test_the_critic_wants_clean_outputs_at_one_and_adversarial_ones_at_zero() -> None:
    real, fake = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 2.0])
    assert losses.critic_loss(real, fake).item() == 0.125 + 2.0
    assert losses.critic_loss(torch.ones(3), torch.zeros(3)) == 0
    assert losses.gan_loss(fake).item() == 1.0


def test_the_task_loss_is_that_of_both_outputs() -> None:
    assert losses.task_loss(torch.tensor(1.0), torch.tensor(2.0)) == 3


def test_feature_distances_are_euclidean() -> None:
    image = torch.zeros(2, 2)
    clean, adversarial = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert losses.feature_loss(clean, adversarial, image).item() == 2.5 + 2.0


VECTORS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [10.0, 4.0], [10.0, 2.0]])
LABELS = torch.tensor([7, 7, 2, 2, 2])


def test_centres_are_means_of_the_classes_that_occur() -> None:
    centres, rows = losses.class_centres(VECTORS, LABELS)
    assert torch.equal(centres, torch.tensor([[10.0, 2.0], [1.0, 0.0]]))
    assert rows.tolist() == [1, 1, 0, 0, 0]


def test_alignment_is_the_mean_distance_of_centres() -> None:
    assert losses.align_loss(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]])) == 2.5


def test_classes_are_pushed_apart_up_to_the_margin() -> None:
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [10.0, 0.0]])
    # The distances are 3, 10 and 7.
    assert losses.inter_loss(centres, 5.0).item() == pytest.approx(2 / 3)
    assert losses.inter_loss(centres, 8.0).item() == pytest.approx((5 + 1) / 3)
    assert losses.inter_loss(centres, 3.0) == 0


def test_classes_are_drawn_together_each_counting_the_same() -> None:
    centres, rows = losses.class_centres(VECTORS, LABELS)
    assert losses.intra_loss(VECTORS, centres, rows).item() == pytest.approx((1 + 4 / 3) / 2)


def test_gradients_reach_the_vectors_and_are_right() -> None:
    vectors = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])

    def total(points: torch.Tensor) -> torch.Tensor:
        centres, rows = losses.class_centres(points, labels)
        apart = losses.inter_loss(centres, 2.0) + losses.intra_loss(points, centres, rows)
        return apart + losses.align_loss(torch.ones(3, 3, dtype=torch.float64), centres)

    assert torch.autograd.gradcheck(total, vectors)


@pytest.mark.parametrize("count", [0, 1])
def test_few_vectors_give_a_loss_of_zero_and_no_nan(count: int) -> None:
    vectors = torch.randn(count, 3, requires_grad=True)
    centres, rows = losses.class_centres(vectors, torch.zeros(count, dtype=torch.long))
    total = losses.inter_loss(centres, 1.0) + losses.intra_loss(vectors, centres, rows)
    total = total + losses.align_loss(centres.detach(), centres) + losses.feature_loss(vectors, vectors, vectors)
    total.backward()
    assert total == 0
    assert vectors.grad is not None and vectors.grad.isfinite().all()
