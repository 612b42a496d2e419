"""From a configuration to a finished folder."""

from __future__ import annotations

import copy
from pathlib import Path

from purifier._purifier import Purifier
from purifier.methods.ncis import NCIS
from purifier.training._card import training_card, write_settings
from purifier.training._loop import Fitted, check_start, fit
from purifier.training.ncis._config import NCISTraining
from purifier.training.ncis._recipe import NCISRecipe


def train(config: NCISTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains NCIS and writes a folder that `Purifier.from_pretrained` loads.

    Checkpoints and the purifier go to `out`; a run that was stopped goes on from its last checkpoint. A training that
    `minutes` cut short leaves a purifier too, of the steps done so far, which its card states.

    Args:
        config: The settings; `config.data` names at least one folder of images.
        out: The folder.
        minutes: Stop after about that time; the next call goes on. No limit where None.

    Returns:
        `out / "ncis"`, with config.json, weights, a model card and training.yaml.

    Raises:
        InputError: Where there are no images.
        OptionError: Where `out` holds a run with other settings.
    """
    out = Path(out)
    check_start(config, out)
    recipe = NCISRecipe(config)
    start = copy.deepcopy(recipe.model.method.state_dict())
    fitted = fit(recipe, config, out, minutes=minutes)
    method: NCIS = fitted.model.method.cpu()  # type: ignore[assignment]
    for key, value in method.state_dict().items():
        value.lerp_(start[key], config.init_share)
    if fitted.main:
        Purifier(method, name="ncis", card=_card(config, fitted)).save_pretrained(out / "ncis")
        write_settings(out / "ncis", config)
    return out / "ncis"


def _card(config: NCISTraining, fitted: Fitted) -> str:
    text = (
        "NCIS (Cha et al., WACV 2024), trained with `purifier train ncis`: "
        f"{fitted.step} of {config.steps} steps; validated at {config.iterations} iterations."
    )
    return training_card("ncis", "ncis", text, config, fitted.history)
