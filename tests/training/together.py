"""Trains every recipe, one after another in one process group: the program of the processes in test_two_processes.py.

Some recipes are trained without anything that is random, so that one process must come to the same weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from purifier.training import critic, denoiser, gad, ncis
from purifier.training.alloy import AlloyRecipe, AlloyTraining
from purifier.training.loop import Recipe, fit, train_purifier
from purifier.training.nrp import NRPRecipe, NRPTraining
from tests.training import test_denoiser, test_ncis, test_nrp
from tests.training.alloy import builders as alloy_builders
from tests.training.gad import builders as gad_builders
from tests.training.processes import starve_threads
from tests.training.states import gradients

PHOTOS, CLASSES = "photos", "classes"


def settings(data: Path) -> dict[str, Any]:
    """Settings of the trainings, by name."""
    photos = {"data": (str(data / PHOTOS),)}
    plain = {"sources": ("none:1",), "extractors": (), "batch_size": 4, "gate": 4}
    # Without the terms of classes, whose centres are each process's own, and the attack's random start.
    alike = {"variant": "li", "eps": 1e-9}
    return {
        "nrp": NRPTraining(**photos, **{**test_nrp.CRITIC, "batch_size": 8, "accumulate": 2}),
        "nrp-plain": NRPTraining(**photos, **{**test_nrp.TINY, "clean_share": 1.0, "batch_size": 4}),
        "alloy": AlloyTraining(**photos, **{**alloy_builders.TINY, "batch_size": 8, "accumulate": 2}),
        # The pixel loss alone, because each process divides the feature loss by the features of its own part.
        "alloy-plain": AlloyTraining(**photos, **{**alloy_builders.TINY, **plain}),
        "gad-plain": gad.GADTraining(data=str(data / CLASSES), **{**gad_builders.TINY, **alike}),
        "denoiser": denoiser.DenoiserTraining(**photos, **test_denoiser.TINY),
        "ncis": ncis.NCISTraining(**photos, **test_ncis.TINY),
        "ncis-again": ncis.NCISTraining(**photos, **test_ncis.TINY),
    }


RECIPES: dict[type, Callable[[Any], Recipe]] = {NRPTraining: NRPRecipe, AlloyTraining: AlloyRecipe}


def fitted(config: Any, out: Path) -> Recipe:
    """The recipe after a training that writes no purifier."""
    recipe = RECIPES[type(config)](config)
    fit(recipe, config, out)
    return recipe


def train(config: Any, out: Path) -> dict[str, Any]:
    """Trains a purifier, and returns what the networks of its recipe are afterwards, where a test asks for that."""
    if isinstance(config, gad.GADTraining):
        gad.train(config, out, model=gad_builders.classifier())
    elif isinstance(config, denoiser.DenoiserTraining):
        denoiser.train(config, out)
    elif isinstance(config, ncis.NCISTraining):
        ncis.train(config, out)
    else:
        recipe = RECIPES[type(config)](config)
        train_purifier(lambda: recipe, config, out)
        second = recipe.critic or torch.nn.Identity()
        found = {"model": dict(recipe.model.named_parameters()), "critic": dict(second.named_parameters())}
        return {**found, "gradients": gradients(recipe.model)}
    return {}


def main() -> None:
    starve_threads()
    torch.set_num_threads(1)
    critic._WIDTHS = test_nrp.NARROW
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name, config in settings(data).items():
        found = train(config, out / name)
        # Nothing follows the last training, at whose end the other threads may be busy.
        if found:
            torch.save(found, out / name / "networks.pt")
