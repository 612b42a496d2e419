"""From a configuration and a model to a finished folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from purifier._purifier import Purifier
from purifier.training._card import training_card, write_settings
from purifier.training._loop import Fitted, check_start, fit
from purifier.training.gad._config import GADTraining
from purifier.training.gad._recipe import GADRecipe
from purifier.training.gad._target import hold_target
from purifier.training.gad.tasks import Task


def train(config: GADTraining, out: str | Path, *, model: nn.Module, minutes: float | None = None) -> Path:
    """Trains GAD in front of a model and writes a folder that `Purifier.from_pretrained` loads.

    Checkpoints and the purifier go to `out`; a run that was stopped goes on from its last checkpoint. A training that
    `minutes` cut short leaves a purifier too, of the steps done so far, which its card states.

    Args:
        config: The settings; `config.data` names the folder of images.
        out: The folder.
        model: The target model, of images (N, 3, H, W) in [0, 1]; it is copied and stays as it is. One that wants
            normalised images has to be wrapped in a module that normalises.
        minutes: Stop after about that time; the next call goes on. No limit where None.

    Returns:
        `out / "gad"`, with config.json, weights, a model card and training.yaml.

    Raises:
        InputError: Where there are no samples, or the model does not fit the task.
        OptionError: Where settings do not fit together, or `out` holds a run with other settings or another model.
        WeightsError: Where the weights of the perceptual network cannot be had.
    """
    check_start(config, Path(out))
    recipe = GADRecipe(config, model)
    hold_target(Path(out), model)
    fitted = fit(recipe, config, Path(out), minutes=minutes)
    folder = Path(out) / "gad"
    if fitted.main:
        card = _card(config, fitted, type(model).__name__, recipe.task)
        Purifier(fitted.model.cpu(), name="gad", card=card).save_pretrained(folder)  # type: ignore[arg-type]
        write_settings(folder, config)
    return folder


def _card(config: GADTraining, fitted: Fitted, target: str, task: Task) -> str:
    text = (
        'GAD ("General adversarial defense via pixel level and feature level distribution alignment", 2020), trained\n'
        f"with `purifier train gad` in front of one model ({target}): {fitted.step} of {config.steps} steps. It is "
        "meant for\nthat model; in front of another it may do less. Samples were "
        f"{task.size} x {task.size} pixels; the attack while training had eps {task.eps:.4g}, alpha {task.alpha:.4g} "
        f"and\n{task.attack_steps} steps."
    )
    measured = (
        f"Held-out samples and the model that it was trained for: {task.scores},\n"
        "clean and under the training's attack, behind the purifier and bare. The attack is blind: it does not know\n"
        "the purifier. PSNR in dB, of clean images."
    )
    return training_card("gad", "gad", text, config, fitted.history, measured=measured)
