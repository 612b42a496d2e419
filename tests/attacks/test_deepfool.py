"""DeepFool: the closed form of a linear model, candidates and overshoot."""

from typing import Any

import pytest
import torch
from torch import Tensor

from purifier import OptionError
from purifier.attacks import FGSM, DeepFool
from tests.attacks.test_cw import nearest_boundary
from tests.attacks.victims import examples, linear, segmenter, sizes, trained


@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_one_step_crosses_the_nearest_boundary_of_a_linear_model(overshoot: float) -> None:
    victim, weights = linear()
    images = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double() * 0.2 + 0.4
    labels = victim(images).argmax(1)
    found = DeepFool(steps=1, overshoot=overshoot)(victim, images, labels)
    shortest = nearest_boundary(victim, weights, images, labels)
    assert bool((victim(found).argmax(1) != labels).all())
    assert torch.allclose(sizes(found, images, "L2"), (1 + overshoot) * shortest, rtol=1e-3, atol=1e-4)


def test_in_linf_one_step_crosses_the_nearest_boundary_of_a_linear_model() -> None:
    victim, weights = linear()
    images = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double() * 0.2 + 0.4
    labels = victim(images).argmax(1)
    found = DeepFool(steps=1, norm="Linf")(victim, images, labels)
    nearest = nearest_boundary(victim, weights, images, labels, dual=1)
    assert bool((victim(found).argmax(1) != labels).all())
    torch.testing.assert_close(sizes(found, images, "Linf"), 1.02 * nearest, rtol=1e-2, atol=1e-4)


def test_the_result_is_cut_to_the_ball() -> None:
    victim, (images, labels) = trained(), examples(20, seed=3)
    whole = DeepFool(norm="Linf")(victim, images, labels)
    eps = sizes(whole, images, "Linf").median().item()
    cut = DeepFool(norm="Linf", eps=eps)(victim, images, labels)
    assert sizes(cut, images, "Linf").max() <= eps + 1e-6
    broken = victim(cut).argmax(1) != labels
    assert 0 < broken.sum() < len(images) == (victim(whole).argmax(1) != labels).sum()


def test_it_fools_a_trained_model_with_less_than_fgsm_needs() -> None:
    victim, (images, labels) = trained(), examples(20, seed=3)
    found = DeepFool()(victim, images, labels)
    right = victim(images).argmax(1) == labels
    assert bool((victim(found).argmax(1) != labels).all())
    fgsm = FGSM(eps=0.05)(victim, images, labels)
    broken = right & (victim(fgsm).argmax(1) != labels)
    assert int(broken.sum()) > 5
    assert bool((sizes(found, images, "L2") < sizes(fgsm, images, "L2"))[broken].all())


def test_misclassified_images_are_returned_unchanged() -> None:
    victim, (images, _) = trained(), examples(10, seed=3)
    wrong = (victim(images).argmax(1) + 1) % 5
    assert torch.equal(DeepFool()(victim, images, wrong), images)


def test_fewer_candidates_never_find_a_nearer_boundary_of_a_linear_model() -> None:
    victim, _ = linear(classes=6)
    images = torch.rand(10, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double() * 0.2 + 0.4
    labels = victim(images).argmax(1)
    one, all_ = (sizes(DeepFool(candidates=n)(victim, images, labels), images, "L2") for n in (1, 10))
    assert bool((one >= all_ - 1e-9).all()) and bool((one > 1.01 * all_).any())


def test_a_dense_output_is_fooled_at_a_share_of_its_pixels() -> None:
    model = segmenter()
    images = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    labels = model(images).argmax(1)
    found = [DeepFool(share=share)(model, images, labels) for share in (0.3, 0.9)]
    wrong = [(model(x).argmax(1) != labels).flatten(1).float().mean(1) for x in found]
    assert wrong[0].min() >= 0.3 and wrong[1].min() >= 0.9
    assert bool((sizes(found[0], images, "L2") < sizes(found[1], images, "L2")).all())


def test_a_custom_margin_takes_any_output() -> None:
    model = segmenter()
    images = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    labels = model(images).argmax(1)

    def margin(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        logits = outputs["out"]
        others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
        return (others - logits.gather(1, targets[:, None])[:, 0]).flatten(1)

    found = DeepFool(margin=margin)(lambda x: {"out": model(x)}, images, labels)
    assert torch.allclose(found, DeepFool()(model, images, labels), atol=1e-6)


@pytest.mark.parametrize("options", [{"overshoot": -1}, {"share": 0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(OptionError, match=f"expected .*{name} .*got .*{name}={value}"):
        DeepFool(**options)


def test_a_wrong_norm_or_radius_is_refused() -> None:
    with pytest.raises(OptionError, match="expected norm to be 'Linf' or 'L2', got 'L1'"):
        DeepFool(norm="L1")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="write 8/255, not 8"):
        DeepFool(norm="Linf", eps=8)


@pytest.mark.parametrize("name", ["steps", "candidates"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_counts_that_are_not_positive_integers_are_refused(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"expected {name} to be an integer of at least 1, got {value}"):
        DeepFool(**{name: value})
