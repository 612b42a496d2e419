"""Which class the logits of a classifier or segmenter predict."""

from __future__ import annotations

import torch
from torch import Tensor

from purifier._errors import InputError


def predicted(logits: Tensor) -> Tensor:
    """Returns the class with the largest of the logits (N, K, ...), or -1 if that one is NaN or infinite."""
    return torch.where(logits.amax(1).isfinite(), logits.argmax(1), -1)


def voted(logits: Tensor) -> Tensor:
    """Returns the class (N,) that each row of logits (N, K) votes for.

    Raises:
        InputError: If the largest logit of a row is NaN or infinite, which is a vote for no class.
    """
    classes = predicted(logits)
    if broken := int((classes < 0).sum()):
        raise InputError(
            f"expected finite logits from the model, got NaN or infinity for {broken} of {len(logits)} images, which "
            "is a vote for no class; check the model's weights, and run it in float32 if it overflows in half precision"
        )
    return classes
