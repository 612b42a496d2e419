"""Attacks, purifiers and threat models as text."""

from pathlib import Path
from typing import Any

import pytest
import torch

from purifier import OptionError, UnknownNameError, attacks
from purifier.evaluation.specs import (
    attack_names,
    make_attack,
    make_purifier,
    make_threat,
    parse,
    parse_eps,
    show_eps,
)


def test_text_is_parsed() -> None:
    assert parse("CW") == ("CW", {})
    assert parse("PGD:steps=10,alpha=2/255,targeted=true,norm=L2") == (
        "PGD",
        {"steps": 10, "alpha": 2 / 255, "targeted": True, "norm": "L2"},
    )
    assert parse("./folder:iterations=3") == ("./folder", {"iterations": 3})
    assert parse(r"C:\folder") == (r"C:\folder", {})


@pytest.mark.parametrize("text", ["PGD:steps", "PGD:steps=", "PGD:steps=1,steps=2", "PGD:steps=1,,eps=2", ""])
def test_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises((OptionError, UnknownNameError), match="expected"):
        make_attack(text)


def test_an_attack_has_its_options_and_the_radius_unless_it_states_one() -> None:
    attack = make_attack("PGD:steps=7,alpha=1/255", eps=4 / 255)
    assert (attack.steps, attack.alpha, attack.eps) == (7, 1 / 255, 4 / 255)
    assert make_attack("PGD:norm=L2,eps=0.5", eps=4 / 255).eps == 0.5
    assert make_attack("CW:steps=5", eps=4 / 255).steps == 5
    assert make_attack("APGD:loss=dlr", eps=4 / 255).loss == "dlr"


def test_every_attack_that_needs_nothing_else_can_be_named() -> None:
    assert {
        "APGD",
        "BIM",
        "Boundary",
        "CW",
        "DIFGSM",
        "DeepFool",
        "FGSM",
        "FMN",
        "HopSkipJump",
        "LowFrequencyPGD",
        "MIFGSM",
        "NIFGSM",
        "PGD",
        "Patch",
        "SSP",
        "Spatial",
        "Square",
        "Universal",
        "VMIFGSM",
        "VNIFGSM",
    } <= attack_names().keys()
    assert not {"Attack", "EOT", "Strongest", "DetectionAttack"} & attack_names().keys()


def test_unknown_names_and_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"expected an attack out of APGD, .*got 'PDG'; did you mean 'PGD'"):
        make_attack("PDG")
    with pytest.raises(OptionError, match=r"options alpha, eps, .* for attack PGD, got 'step'; did you mean 'steps'"):
        make_attack("PGD:step=3")
    with pytest.raises(OptionError, match="for attack PGD, got 'loss'"):
        make_attack("PGD:loss=ce")
    with pytest.raises(UnknownNameError, match=r"got 'awre'; did you mean 'aware'"):
        make_threat("awre")
    with pytest.raises(OptionError, match="expected no options for threat blind, got 'samples'"):
        make_threat("blind:samples=3")
    with pytest.raises(UnknownNameError, match="did you mean 'ncis'"):
        make_purifier("nciss")


def test_an_eps_of_0_to_255_is_refused() -> None:
    with pytest.raises(OptionError, match=r"write 8/255, not 8"):
        make_attack("PGD", eps=parse_eps("8"))
    for text in ("eight", "-0.1", "true", "8/0", "nan", "inf"):
        with pytest.raises(OptionError, match=r"expected eps as a fraction such as 8/255"):
            parse_eps(text)


def test_purifiers_take_options_chains_and_noise() -> None:
    assert make_purifier("gs:iterations=5").iterations == 5
    assert make_purifier("gs:iterations=2+jpeg:quality=75").name == "gs+jpeg"
    noisy = make_purifier("gs:iterations=2,dynamic=true,sigma=0.1,noise_eps=8/255", dtype="bfloat16")
    assert noisy.random and noisy.dtype == torch.bfloat16
    assert make_purifier("gs:dtype=bfloat16", device="cpu", dtype="float32").dtype == torch.bfloat16
    with pytest.raises(OptionError, match="expected dynamic=true beside sigma"):
        make_purifier("gs:sigma=0.1")
    for key in ("name", "cls"):
        with pytest.raises(OptionError, match=rf"the name once, before the colon, got '{key}' in 'gs:{key}=x'"):
            make_purifier(f"gs:{key}=x")


def test_threats_take_samples_and_surrogates() -> None:
    settings = {"name": "aware", "samples": 4, "submissions": 1, "gate_weight": 0.3}
    assert make_threat("aware:samples=4,gate_weight=0.3").settings() == settings
    assert isinstance(make_threat("bpda"), attacks.BPDA)
    assert make_threat("transfer", surrogates=[len], names=["a"]).names == ["a"]
    with pytest.raises(OptionError, match="expected a surrogate for the threat transfer"):
        make_threat("transfer")


@pytest.mark.parametrize("eps", [8 / 255, 0.5 / 255, 1 / 255, 16 / 255, 0.5, 5.0, 0.031])
def test_a_radius_is_shown_as_it_is_read(eps: float) -> None:
    assert parse_eps(show_eps(eps)) == pytest.approx(eps, rel=1e-4)


OWN = """
from dataclasses import dataclass
import torch
from purifier import Method, Purifier, Stage, attacks

class Darker(Method):
    options = {}
    def __init__(self, *, by=0.5):
        super().__init__()
        self.by = by
    def stages(self):
        return [Stage(lambda images: images * self.by, halo=0)]

def build():
    return Purifier(Darker())

def nothing():
    return 3

@dataclass(kw_only=True, eq=False, repr=False)
class Brighten(attacks.Attack):
    gradient = False
    norm = "Linf"
    eps: float = 8 / 255
    def _run(self, model, images, targets):
        return images + self.eps

@dataclass(kw_only=True, eq=False, repr=False)
class Lazy(attacks.ThreatModel):
    name = "blind"
    share: float = 1.0
    def __call__(self, attack, defended, images, targets):
        return images
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own_parts.py").write_text(OWN)
    return str(tmp_path / "own_parts.py")


def test_purifiers_attacks_and_threats_of_ones_own_are_named_by_file(own: str) -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    assert make_purifier(f"{own}:Darker:by=0.1")(images).max() == pytest.approx(0.05)
    assert make_purifier(f"{own}:build", dtype="bfloat16").dtype == torch.bfloat16
    assert make_purifier(f"gs+{own}:build")(images).max() == pytest.approx(0.25)
    attack = make_attack(f"{own}:Brighten", eps=0.25)
    assert attack(torch.nn.Identity().eval(), images, None).max() == 0.75
    assert make_attack(f"{own}:Brighten:eps=0.125", eps=0.25).eps == 0.125
    assert make_threat(f"{own}:Lazy:share=0.5").settings() == {"name": "blind", "share": 0.5}


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (make_purifier, "nothing", "to return an object of Purifier, got int"),
        (make_purifier, "Darker:size=3", "expected options that .*Darker takes, got {'size': 3}"),
        (make_purifier, "Drker", "got 'Drker', which it does not have; did you mean 'Darker'"),
        (make_attack, "nothing", "to return an object of Attack, got int"),
        (make_attack, "Brighten:steps=3", "expected the options eps for attack .*got 'steps'"),
        (make_threat, "Lazy:shares=3", "expected the options share for threat .*did you mean 'share'"),
    ],
)
def test_what_is_not_such_an_object_is_refused(make: Any, text: str, message: str, own: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(f"{own}:{text}")


def test_an_attack_that_searches_is_cut_to_a_ball_only_if_it_says_so() -> None:
    free, cut = make_attack("DeepFool", eps=8 / 255), make_attack("DeepFool:norm=Linf,eps=0.03", eps=8 / 255)
    assert (free.eps, free.bounded) == (0, False) and (cut.eps, cut.bounded) == (0.03, True)
