"""Options and images of any kind end in a result or in an error of this library."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier, PurifierError, attacks
from purifier.attacks import Attack
from purifier.evaluation import EvaluationSettings
from purifier.evaluation.specs import attack_names
from purifier.training.ncis import NCISTraining

ATTACKS = attack_names()
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**70, -(2**70)]), st.floats(), st.text(max_size=5),
    st.binary(max_size=3), st.lists(st.integers(), max_size=2), st.just({}), st.just(object()), st.just(torch.ones(2)),
    st.just(len), st.complex_numbers(),
)  # fmt: skip
NET = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)).eval()
IMAGES = torch.rand(2, 3, 8, 8)
WRONG: dict[str, Any] = {
    "sparse": IMAGES.to_sparse(),
    "meta": IMAGES.to("meta"),
    "8 bits": IMAGES.to(torch.float8_e4m3fn),
    "complex": IMAGES.to(torch.complex64),
    "integers": (IMAGES * 255).byte(),
    "nested": torch.nested.nested_tensor([torch.rand(3, 8, 8), torch.rand(3, 6, 8)], layout=torch.jagged),
    "no pixels": IMAGES[:, :, :0],
    "array": IMAGES.numpy(),
    "None": None,
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(ATTACKS)), st.data())
def test_an_attack_takes_an_option_or_refuses_it(name: str, data: st.DataObject) -> None:
    option = data.draw(st.sampled_from(sorted(inspect.signature(ATTACKS[name]).parameters)))
    try:
        made = ATTACKS[name](**{option: data.draw(VALUES)})
    except OptionError:
        return
    assert isinstance(made, Attack)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(EvaluationSettings.__dataclass_fields__)), VALUES)
def test_an_evaluation_takes_a_setting_or_refuses_it(name: str, value: Any) -> None:
    if name in ("trained_eps", "trained_size", "defend_dtypes"):
        return
    try:
        EvaluationSettings(**{name: value})
    except OptionError:
        return
    assert isinstance(value, type(getattr(EvaluationSettings(), name)))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(NCISTraining.__dataclass_fields__)), VALUES)
def test_a_training_takes_a_setting_or_refuses_it(name: str, value: Any) -> None:
    if name == "data":
        return
    try:
        NCISTraining(**{name: value})
    except OptionError:
        return
    assert isinstance(value, int | float | str)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (attacks.PGD, {"eps": "8/255"}, "expected eps to be a number, got '8/255'"),
        (attacks.PGD, {"steps": "3"}, "expected steps to be a number, got '3'"),
        (attacks.PGD, {"eps": math.nan}, "expected eps >= 0, a number .*, got nan"),
        (attacks.PGD, {"loss": "ce"}, "expected loss to be a function or None, got 'ce'"),
        (attacks.PGD, {"generator": 5}, "expected generator to be a Generator or None, got 5"),
        (attacks.CW, {"kappa": None}, "expected kappa to be a number, got None"),
        (attacks.Aware, {"samples": True}, "expected samples to be an integer of at least 1, got True"),
    ],
)
def test_a_value_of_another_type_is_named(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind(**options)


@pytest.mark.parametrize("images", list(WRONG.values()), ids=list(WRONG))
def test_images_that_no_model_takes_are_refused(images: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        attacks.PGD(steps=1)(NET, images, torch.tensor([0, 1]))
    if not isinstance(images, Tensor) or not images.is_meta:
        with pytest.raises(InputError, match="expected"):
            Purifier.from_pretrained("gs")(images)


@pytest.mark.parametrize("model", [None, 1.5, "net", [NET]])
def test_what_is_not_a_model_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="expected a model that maps images to outputs, got"):
        attacks.MIFGSM(steps=1)(model, IMAGES, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: Purifier(3),  # type: ignore[arg-type]
        lambda: Purifier(nn.ReLU()),  # type: ignore[arg-type]
        lambda: Purifier.from_pretrained("gs").dynamic(generator=5),  # type: ignore[arg-type]
        lambda: Purifier.from_pretrained("gs").save_pretrained(5),  # type: ignore[arg-type]
        lambda: Purifier.from_pretrained(nn.ReLU()),  # type: ignore[arg-type]
    ],
)
def test_purifiers_refuse_values_of_other_types(call: Any) -> None:
    with pytest.raises(PurifierError, match="expected"):
        call()
