"""Working on the images of a batch that are not done yet."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def pick(targets: Any, index: Tensor, count: int) -> Any:
    """Returns what belongs to the images of an index, out of the targets of a batch.

    Args:
        targets: A tensor or a list of one entry an image, or anything else, which is given back as it is.
        index: Which images, (M,).
        count: How many images the batch has.
    """
    if isinstance(targets, Tensor) and targets.ndim and len(targets) == count:
        return targets[index.to(targets.device)]
    if isinstance(targets, list | tuple) and len(targets) == count:
        return [targets[i] for i in index.tolist()]
    return targets
