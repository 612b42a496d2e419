"""A purifier as a preprocessing defence of the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from purifier._purifier import Purifier
from purifier.adapters.models import check_installed, check_purifier
from purifier.attacks.bpda import StraightThrough


def as_art(purifier: Purifier, *, apply_fit: bool = False, apply_predict: bool = True) -> Any:
    """Returns a purifier as a `PreprocessorPyTorch`, for `preprocessing_defences` of ART's PyTorch estimators.

    ART chains it with the model, so its attacks see both (aware). Gradients are exact; those of a purifier without
    useful ones, such as "jpeg", are the identity's (BPDA). Attack the estimator without it for blind figures.

    Args:
        purifier: A `Purifier`, on the device of the estimator. Images are (N, 3, H, W), RGB in [0, 1].
        apply_fit: Whether ART purifies the images that it trains with.
        apply_predict: Whether ART purifies the images that it predicts.

    Raises:
        OptionError: If it is no purifier.
        InputError: If ART is not installed.
    """
    check_purifier(purifier)
    check_installed("art", "adversarial-robustness-toolbox")
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch

    applied = purifier if purifier.differentiable else StraightThrough(purifier)

    class Preprocessor(PreprocessorPyTorch):
        """See `as_art`."""

        def __init__(self) -> None:
            place = purifier.device.type
            super().__init__(
                device_type="cpu" if place == "cpu" else "gpu", apply_fit=apply_fit, apply_predict=apply_predict
            )

        def forward(self, x: Tensor, y: Any = None) -> tuple[Tensor, Any]:
            """Purifies images exactly, with the gradient that an attack should use."""
            return applied.purify(x), y

    return Preprocessor()
