"""Which class each call of a classifier votes for."""

from __future__ import annotations

from torch import Tensor

from purifier._errors import InputError


def voted(logits: Tensor) -> Tensor:
    """Returns the class (N,) that each row of logits (N, K) votes for.

    Raises:
        InputError: If the largest logit of a row is NaN or infinite, which is a vote for no class.
    """
    broken = int((~logits.amax(1).isfinite()).sum())
    if broken:
        raise InputError(
            f"expected finite logits from the model, got NaN or infinity for {broken} of {len(logits)} images, which "
            "is a vote for no class; check the model's weights, and run it in float32 if it overflows in half precision"
        )
    return logits.argmax(1)
