"""From a configuration to a finished folder."""

from __future__ import annotations

from pathlib import Path

from purifier._purifier import Purifier
from purifier.methods.alloy import Alloy
from purifier.methods.ncis import NCIS
from purifier.training._card import training_card, write_settings
from purifier.training._loop import Fitted, check_start, fit
from purifier.training.alloy._config import AlloyTraining
from purifier.training.alloy._recipe import AlloyRecipe


def train(config: AlloyTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains Alloy and writes a folder that `Purifier.from_pretrained` loads.

    Checkpoints and the purifier go to `out`; a run that was stopped goes on from its last checkpoint. A training that
    `minutes` cut short leaves a purifier too, of the steps done so far, which its card states.

    Args:
        config: The settings; `config.data` names at least one folder of images.
        out: The folder.
        minutes: Stop after about that time; the next call goes on. No limit where None.

    Returns:
        `out / config.name`, with config.json, weights, a model card and training.yaml.

    Raises:
        InputError: Where there are no images, or an extractor gives no features.
        OptionError: Where settings do not fit together, or `out` holds a run with other settings.
        WeightsError: Where the weights of an extractor cannot be had.
    """
    check_start(config, Path(out))
    fitted = fit(AlloyRecipe(config), config, Path(out), minutes=minutes)
    folder = Path(out) / config.name
    if fitted.main:
        method: Alloy | NCIS = fitted.model.method.cpu()  # type: ignore[assignment]
        Purifier(method, name=config.name, card=_card(config, fitted)).save_pretrained(folder)
        write_settings(folder, config)
    return folder


def _card(config: AlloyTraining, fitted: Fitted) -> str:
    what = "Alloy, this project's own purifier" if config.network == "alloy" else "The network of NCIS"
    text = (
        f"{what}, trained with `purifier train alloy`: "
        f"{fitted.step} of {config.steps} steps;\nvalidated at {config.iterations} iterations, ssp on the first "
        "extractor."
    )
    return training_card(config.name, config.network, text, config, fitted.history)
