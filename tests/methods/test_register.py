"""Methods of one's own: registered, saved, loaded, refused without a registration, and offered by a package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from purifier import Method, OptionError, Purifier, Stage, WeightsError, methods, register
from purifier._identity import purifier_identity


class Darker(Method):
    """Halves all values, `times` times."""

    tunable = ("times",)

    def __init__(self, *, times: int = 1) -> None:
        super().__init__()
        self.times = times

    @property
    def options(self) -> dict[str, Any]:
        return {"times": self.times}

    def stages(self) -> list[Stage]:
        return [Stage(self.halve, halo=0)] * self.times

    def halve(self, images: Tensor) -> Tensor:
        return images / 2


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))


def test_a_registered_method_is_saved_loaded_chained_and_tiled(tmp_path: Path) -> None:
    register("darker")(Darker)
    purifier = Purifier(Darker(times=2))
    assert purifier.name == "darker"
    purifier.save_pretrained(tmp_path / "saved")
    images = torch.rand(1, 3, 40, 40)
    assert torch.equal(Purifier.from_pretrained(tmp_path / "saved", times=1)(images), images / 2)
    assert torch.equal(Purifier.chain(purifier, "gs").tiled(16)(images), Purifier.chain(purifier, "gs")(images))
    assert purifier.gated()(images).shape == images.shape
    assert purifier_identity(purifier)["method"] == "darker"


def test_a_method_that_is_not_registered_purifies_but_cannot_be_saved(tmp_path: Path) -> None:
    purifier = Purifier(Darker())
    assert purifier.name == "Darker"
    assert torch.equal(purifier(torch.ones(1, 3, 4, 4)), torch.full((1, 3, 4, 4), 0.5))
    with pytest.raises(OptionError, match=r"got Darker; put @purifier.register\(\"a-name\"\) above its class"):
        purifier.save_pretrained(tmp_path / "saved")
    with pytest.raises(OptionError, match="expected a registered method"):
        purifier_identity(purifier)


def test_a_folder_of_a_method_that_is_not_registered_here_is_refused(tmp_path: Path) -> None:
    register("darker")(Darker)
    Purifier(Darker()).save_pretrained(tmp_path / "saved")
    del methods.METHODS["darker"]
    with pytest.raises(WeightsError, match="or from a package that registers its method"):
        Purifier.from_pretrained(tmp_path / "saved")


def test_an_installed_package_offers_its_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register("darker")(Darker)
    Purifier(Darker(times=2)).save_pretrained(tmp_path / "saved")
    del methods.METHODS["darker"]
    entry = EntryPoint("darker", f"{__name__}:Darker", methods.ENTRY_POINTS)
    found = {("purifier.methods", "darker"): [entry]}
    monkeypatch.setattr(methods, "entry_points", lambda group, name: found.get((group, name), []))
    assert Purifier.from_pretrained(tmp_path / "saved")(torch.ones(1, 3, 4, 4)).unique() == 0.25


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65, 3, None])
def test_names_of_another_form_are_refused(name: Any) -> None:
    with pytest.raises(OptionError, match="expected a name of letters"):
        register(name)


@pytest.mark.parametrize("kind", [torch.nn.ReLU, 3, Method, Darker()], ids=["module", "number", "base", "object"])
def test_only_complete_method_classes_are_registered(kind: Any) -> None:
    with pytest.raises(OptionError, match=r"expected a class derived from purifier\.Method, with options and stages"):
        register("mine")(kind)


def test_a_name_belongs_to_one_class_which_may_be_defined_again() -> None:
    register("darker")(Darker)
    again = type("Darker", (Darker,), {"__module__": Darker.__module__})
    again.__qualname__ = "Darker"
    assert register("darker")(again) is methods.METHODS["darker"]
    with pytest.raises(OptionError, match="expected a new name for Darker, got 'gs'"):
        register("gs")(Darker)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "without options and stages"),
        ({"options": {}}, "without stages"),
        ({"options": 3, "stages": list}, "without a dict of options"),
    ],
)
def test_a_method_that_defines_too_little_is_no_purifier(members: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=f"got Incomplete {words}"):
        Purifier(type("Incomplete", (Method,), members)())


@pytest.mark.parametrize(("options", "words"), [({"name": 3}, "the name"), ({"card": ["a"]}, "the card")])
def test_the_name_and_the_card_of_a_purifier_are_text(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=f"expected {words} of a purifier as text or None"):
        Purifier(Darker(), **options)


def test_only_a_method_takes_the_place_of_a_purifiers_method() -> None:
    purifier = Purifier(Darker())
    with pytest.raises(OptionError, match=r"expected a purifier\.Method as the method of a purifier, got \[1\]"):
        purifier.method = [1]  # type: ignore[assignment]
    purifier.method = Darker(times=2)
    assert purifier(torch.ones(1, 3, 4, 4)).unique() == 0.25


def test_a_parameter_is_no_number_of_iterations() -> None:
    with pytest.raises(OptionError, match="iterations"):
        Purifier.from_pretrained("gs").iterations = torch.nn.Parameter(torch.ones(2))  # type: ignore[assignment]
