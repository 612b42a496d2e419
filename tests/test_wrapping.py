"""wrap(): its arguments and its warning. tests/wrapping has the models of other libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

import purifier
from purifier import OptionError, Purifier, PurifierWarning, WrapError, _errors
from purifier._wrapping import PROMISE
from tests.builders import pictures, small_purifier
from tests.recorders import MEAN, STD, Recorder, classifier

IMAGES = pictures(2, 3, 12, 10)


@pytest.mark.parametrize("given", [{"mean": MEAN}, {"std": STD}], ids=["mean", "std"])
def test_mean_without_std_is_refused(given: dict[str, list[float]]) -> None:
    with pytest.raises(OptionError, match="expected mean and std together, got mean="):
        purifier.wrap(Recorder(), "gs", **given)


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        ([0.5, 0.5], STD, r"expected mean as one finite number per channel \(3\), got \[0\.5, 0\.5\]"),
        (MEAN, [0.2, 0.2, 0.0], r"expected std as one positive finite number per channel \(3\), got"),
        (MEAN, -1.0, r"expected std as one positive finite number per channel \(3\), got -1"),
        (
            "imagenet",
            "imagenet",
            r"expected mean as one finite number per channel \(3\), got 'imagenet'; give numbers",
        ),
        (MEAN, ["a", "b", "c"], r"expected std as one positive finite number per channel \(3\), got \['a', 'b', 'c'\]"),
        ([None] * 3, STD, r"expected mean as one finite number per channel \(3\), got \[None, None, None\]"),
    ],
)
def test_a_malformed_mean_or_std_is_refused(mean: Any, std: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        purifier.wrap(Recorder(), "gs", mean=mean, std=std)


def test_the_given_purifier_is_the_one_in_front() -> None:
    purify = small_purifier("gs")
    assert purifier.wrap(classifier(), purify).purifier is purify
    assert purify.wrap(classifier()).purifier is purify


def test_a_plain_function_is_wrapped() -> None:
    wrapped = purifier.wrap(lambda images: images.mean((2, 3)), "gs")
    assert torch.equal(wrapped(IMAGES), Purifier.from_pretrained("gs")(IMAGES).mean((2, 3)))
    assert wrapped.training is False


@pytest.mark.parametrize("model", [3, "resnet18", None])
def test_a_model_that_cannot_be_called_is_refused(model: object) -> None:
    with pytest.raises(WrapError, match="expected a model that can be called, got"):
        purifier.wrap(model, "gs")  # type: ignore[arg-type]


def test_the_class_of_a_model_is_refused() -> None:
    with pytest.raises(WrapError, match=r"expected a model, got the class Linear; make one: Linear\(\.\.\.\)"):
        purifier.wrap(torch.nn.Linear, "gs")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (lambda: None, r"got NoneType; give one of purifier\.list_purifiers\(\)"),
        (classifier, r"got Classifier; .* wrap takes the model first, then the purifier"),
        (lambda: small_purifier("gs").wrap(classifier()), r"got PurifiedModel; give its \.purifier"),
        (lambda: small_purifier("gs").method, r"got GaussianSmoothing; make it one with Purifier\(method\)"),
    ],
    ids=["nothing", "model", "wrapped model", "method"],
)
def test_a_purifier_given_as_something_else_is_refused(given: Callable[[], Any], text: str) -> None:
    with pytest.raises(OptionError, match=f"expected a purifier, or the name, folder or hub repository of one, {text}"):
        purifier.wrap(classifier(), given())


def test_a_model_and_a_purifier_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(OptionError, match=r"got Classifier; .* wrap takes the model first, then the purifier"):
        purifier.wrap("ncis", classifier())  # type: ignore[arg-type]


def test_a_model_on_the_meta_device_stays_there() -> None:
    model = classifier().to("meta")
    wrapped = purifier.wrap(model, "gs")
    assert wrapped.purifier.device == torch.device("cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    out = wrapped.to("meta")(torch.empty(2, 3, 12, 10, device="meta"))
    assert (out.device.type, out.shape) == ("meta", (2, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_purifier_that_wrap_loads_goes_to_the_models_device() -> None:
    wrapped = purifier.wrap(classifier().cuda(), "gs")
    assert wrapped.purifier.device.type == "cuda"
    assert wrapped(IMAGES.cuda()).device.type == "cuda"


def test_options_reach_from_pretrained() -> None:
    assert purifier.wrap(classifier(), "gs", iterations=3).purifier.iterations == 3
    assert purifier.wrap(classifier(), "gs", dtype="bfloat16").purifier.dtype == torch.bfloat16


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(OptionError, match="got 'means', which is unknown"):
        purifier.wrap(classifier(), "gs", means=MEAN)


def test_options_beside_a_loaded_purifier_are_refused() -> None:
    with pytest.raises(OptionError, match=r"expected no from_pretrained arguments with a purifier .*, got iterations"):
        purifier.wrap(classifier(), small_purifier("gs"), iterations=3)


def test_wrap_warns_of_attackers_who_know_the_purifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_given", set())
    with pytest.warns(PurifierWarning, match="one who does can bypass it .* Shown once"):
        purifier.wrap(classifier(), "gs")
    purifier.wrap(classifier(), "gs")


@pytest.mark.parametrize("put", [purifier.wrap, purifier.attach])
def test_a_purifier_that_does_nothing_is_warned_of(put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_given", {PROMISE})
    with pytest.warns(PurifierWarning, match="'gs' has iterations=0: it defends nothing"):
        put(classifier(), "gs", iterations=0)


def test_the_warning_comes_once_per_process_and_points_at_the_caller() -> None:
    script = (
        "import torch, purifier\n"
        "purifier.Purifier.from_pretrained('gs').wrap(torch.nn.Identity())\n"
        "for _ in range(3):\n"
        "    purifier.wrap(torch.nn.Identity(), 'gs')\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("PurifierWarning") == 1
    assert "<string>:4: PurifierWarning" in done.stderr


def test_a_model_that_has_a_purifier_is_not_wrapped_again() -> None:
    model, purify = torch.nn.Sequential(classifier()), Purifier.from_pretrained("gs")
    with purifier.attach(model, purify):
        for defended in (model, torch.nn.Sequential(model), torch.nn.DataParallel(model)):
            with pytest.raises(WrapError, match=r"that has 'gs' attached; remove that first: handle\.remove\(\)"):
                purifier.wrap(defended, purify)
            with pytest.raises(WrapError, match="without a purifier"):
                purify.wrap(defended)
    for defended in (wrapped := purifier.wrap(model, purify), torch.nn.Sequential(wrapped)):
        with pytest.raises(WrapError, match=r"holds a wrapped model; .*unwrap\(\); several .* Purifier\.chain"):
            purifier.wrap(defended, purify)
