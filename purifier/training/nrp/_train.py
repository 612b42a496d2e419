"""From a configuration to a finished folder."""

from __future__ import annotations

from pathlib import Path

from purifier._purifier import Purifier
from purifier.methods._base import Method
from purifier.training._card import training_card, write_settings
from purifier.training._loop import Fitted, check_start, fit
from purifier.training.nrp._config import NRPTraining
from purifier.training.nrp._recipe import NRPRecipe


def train(config: NRPTraining, out: str | Path, *, minutes: float | None = None) -> Path:
    """Trains NRP and writes a folder that `Purifier.from_pretrained` loads.

    Checkpoints and the purifier go to `out`; a run that was stopped goes on from its last checkpoint. A training that
    `minutes` cut short leaves a purifier too, of the steps done so far, which its card states.

    Args:
        config: The settings; `config.data` names at least one folder of images.
        out: The folder.
        minutes: Stop after about that time; the next call goes on. No limit where None.

    Returns:
        `out / config.network`, with config.json, weights, a model card and training.yaml.

    Raises:
        InputError: Where there are no images.
        OptionError: Where settings do not fit together, or `out` holds a run with other settings.
        WeightsError: Where the weights of the feature extractor cannot be had.
    """
    check_start(config, Path(out))
    fitted = fit(NRPRecipe(config), config, Path(out), minutes=minutes)
    folder = Path(out) / config.network
    if fitted.main:
        method: Method = fitted.model.cpu()  # type: ignore[assignment]
        Purifier(method, name=config.network, card=_card(config, fitted)).save_pretrained(folder)
        write_settings(folder, config)
    return folder


def _card(config: NRPTraining, fitted: Fitted) -> str:
    text = (
        f'NRP (Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020), trained with\n'
        f"`purifier train nrp`: {fitted.step} of {config.steps} steps."
    )
    return training_card(config.network, "nrp", text, config, fitted.history)
