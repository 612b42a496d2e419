"""The losses on logits: closed forms, and what they leave out."""

import pytest
import torch
from torch.nn import functional as F

from purifier import InputError
from purifier.attacks.base import Loss
from purifier.attacks.losses import cross_entropy, dlr, fooled, margin, mean_margin, targeted_dlr

LOGITS = torch.tensor([[3.0, 1.0, 0.0, -2.0], [0.5, 2.0, 4.0, 1.0]])
LABELS = torch.tensor([0, 1])


def test_cross_entropy_is_computed_for_each_image() -> None:
    assert torch.allclose(cross_entropy(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, reduction="none"))


def test_margin_is_the_best_other_logit_minus_the_label_s() -> None:
    assert margin(LOGITS, LABELS).tolist() == [[-2.0], [2.0]]
    assert mean_margin(LOGITS, LABELS).tolist() == [-2.0, 2.0]
    assert fooled(margin(LOGITS, LABELS)).tolist() == [False, True]


def test_dlr_divides_the_margin_by_the_gap_of_first_and_third() -> None:
    assert dlr(LOGITS, LABELS).tolist() == pytest.approx([-2 / (3 - 0), 2 / (4 - 1)])


def test_targeted_dlr_depends_on_the_target_class() -> None:
    found = targeted_dlr(LOGITS, LABELS, torch.tensor([1, 3]))
    assert found.tolist() == pytest.approx([(1 - 3) / (3 - (0 - 2) / 2), (1 - 2) / (4 - (1 + 0.5) / 2)])


@pytest.mark.parametrize("loss", [dlr, lambda o, t: targeted_dlr(o, t, torch.tensor([1, 3]))])
def test_dlr_does_not_depend_on_the_scale_or_the_offset_of_logits(loss: Loss) -> None:
    assert torch.allclose(loss(LOGITS, LABELS), loss(LOGITS * 7 + 3, LABELS), atol=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, dlr, mean_margin])
def test_dense_losses_are_means_over_the_valid_pixels(loss: Loss) -> None:
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(4, (2, 3, 3), generator=torch.Generator().manual_seed(1))
    labels[0, 0, 0], labels[0, 2, 1] = 255, -100
    kept = (labels[0] >= 0) & (labels[0] < 255)
    each = loss(logits[0].permute(1, 2, 0)[kept], labels[0][kept])
    assert torch.allclose(loss(logits, labels)[0], each.mean())
    assert torch.allclose(loss(logits, labels)[1], loss(logits[1].flatten(1).T, labels[1].flatten()).mean())


@pytest.mark.parametrize("loss", [cross_entropy, dlr])
def test_an_image_of_void_pixels_only_has_no_loss_and_no_gradient(loss: Loss) -> None:
    logits = torch.randn(1, 4, 2, 2, requires_grad=True)
    found = loss(logits, torch.full((1, 2, 2), 255))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert found.item() == 0 and not gradient.any()


def test_255_is_a_class_if_the_model_has_more_than_255() -> None:
    logits = torch.randn(1, 300, 2, 2)
    labels = torch.full((1, 2, 2), 255)
    assert torch.allclose(cross_entropy(logits, labels), F.cross_entropy(logits, labels))


def test_an_image_is_fooled_at_a_share_of_the_valid_pixels() -> None:
    margins = torch.tensor([[1.0, 1.0, -1.0, torch.nan], [1.0, -1.0, -1.0, torch.nan], [torch.nan] * 4])
    assert fooled(margins, 0.6).tolist() == [True, False, False]
    assert fooled(margins, 0.7).tolist() == [False, False, False]


def test_half_precision_logits_are_compared_in_single_precision() -> None:
    assert cross_entropy(LOGITS.half(), LABELS).dtype == torch.float32
    assert margin(LOGITS.double(), LABELS).dtype == torch.float64


def test_integer_labels_of_any_dtype_are_accepted() -> None:
    assert torch.equal(cross_entropy(LOGITS, LABELS), cross_entropy(LOGITS, LABELS.to(torch.uint8)))


def test_labels_without_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected integer labels of shape .*without values"):
        cross_entropy(LOGITS, LABELS.to("meta"))


@pytest.mark.parametrize(
    ("loss", "classes", "text"),
    [
        (dlr, 2, "expected a model with at least 3 classes for this form of the DLR loss, got 2"),
        (lambda o, t: targeted_dlr(o, t, t), 3, "expected a model with at least 4 classes"),
        (cross_entropy, 1, r"expected logits of shape \(N, classes\)"),
    ],
)
def test_too_few_classes_are_refused(loss: Loss, classes: int, text: str) -> None:
    with pytest.raises(InputError, match=text):
        loss(torch.randn(2, classes), torch.zeros(2, dtype=torch.long))
