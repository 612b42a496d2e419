"""Fingerprints of models, threats, attacks and losses in the head of a file of records."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier import PurifiedModel, Purifier
from purifier._identity import model_identity
from purifier.attacks import BPDA, EOT, PGD, SSP, Aware, DetectionAttack, Transfer, bare_model, whole_model
from purifier.attacks.identity import attack_settings, threat_settings

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]


def gs(iterations: int = 1) -> Purifier:
    return Purifier.from_pretrained("gs", iterations=iterations)


def scaled(factor: float | Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: factor * images


def behind(purify: str | Purifier, **normalised: list[float]) -> PurifiedModel:
    return purifier.wrap(MODEL, purify, **normalised)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: BPDA(), lambda: BPDA(gs())),
        (lambda: BPDA(gs(1)), lambda: BPDA(gs(30))),
        (lambda: BPDA(scaled(1)), lambda: BPDA(scaled(2))),
        (lambda: Transfer(MODEL), lambda: Transfer(behind("gs"))),
        (lambda: Transfer(behind("gs")), lambda: Transfer(behind("jpeg"))),
        (lambda: Transfer(behind(gs(1))), lambda: Transfer(behind(gs(30)))),
        (lambda: Transfer(behind("gs")), lambda: Transfer(behind("gs", mean=MEAN, std=STD))),
        (lambda: Transfer(nn.Sequential(behind(gs(1)))), lambda: Transfer(nn.Sequential(behind(gs(2))))),
        (lambda: Transfer(bare_model(behind("gs", mean=MEAN, std=STD))), lambda: Transfer(MODEL)),
        (lambda: Aware(samples=1), lambda: Aware(samples=2)),
    ],
)
def test_settings_differ_exactly_if_the_threats_do(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    assert threat_settings(one()) == threat_settings(one())
    assert threat_settings(other()) == threat_settings(other())
    assert threat_settings(one()) != threat_settings(other())


def test_own_losses_are_identified_by_their_code_and_held_values() -> None:
    def attack(loss: Callable[..., Tensor]) -> dict[str, Any]:
        return attack_settings(DetectionAttack(PGD(), loss=loss))

    assert attack(lambda o, t: o.sum()) != attack(lambda o, t: o.mean())
    assert attack(functools.partial(torch.add, 1)) != attack(functools.partial(torch.add, 2))
    assert attack(scaled(2)) == attack(scaled(2)) != attack(scaled(3))
    weights = torch.ones(2), torch.zeros(2)
    assert attack(scaled(weights[0])) != attack(scaled(weights[1]))


def test_a_function_is_the_same_in_every_process() -> None:
    script = (
        "import json\n"
        "from purifier._identity import model_identity\n"
        "def chosen(x):\n"
        "    return x if str(x) in {'ant', 'bee', 'cat', 'dog'} else chosen(x)\n"
        "def nested():\n"
        "    def again(x): return again(x)\n"
        "    return again\n"
        "print(json.dumps([model_identity(chosen), model_identity(nested())]))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for environment in ({**os.environ, "PYTHONHASHSEED": str(seed)} for seed in (1, 2))
    }
    assert len(said) == 1


def test_functions_of_torch_are_distinguished() -> None:
    assert model_identity(torch.add) != model_identity(torch.mul)
    assert model_identity(nn.functional.relu) != model_identity(nn.functional.gelu)


def test_losses_of_the_library_are_identified_by_name() -> None:
    assert attack_settings(DetectionAttack(PGD(), loss="cls"))["loss"] == "cls"
    assert attack_settings(PGD()) == PGD().settings()


def test_networks_inside_attacks_are_distinguished() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    assert attack_settings(SSP(MODEL)) != attack_settings(SSP(other))
    assert attack_settings(EOT(SSP(MODEL), samples=2)) != attack_settings(EOT(SSP(other), samples=2))


def test_models_without_a_purifier_are_identified_by_kind_and_weights() -> None:
    assert model_identity(MODEL).keys() == {"kind", "sha256"}
    assert whole_model(behind("gs")).purifier.name == "gs"
