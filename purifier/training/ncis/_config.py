"""Every knob of the NCIS training."""

from __future__ import annotations

from dataclasses import dataclass

from purifier.training._photographs import PhotographTraining


@dataclass(frozen=True, kw_only=True)
class NCISTraining(PhotographTraining):
    """Settings of the NCIS training, beside those of every training on photographs.

    Attributes:
        init: Name or folder of a trained ncis to start from; "" starts from random weights.
        init_share: Share of the starting weights in the finished ones, which are their weighted mean with the trained
            weights (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022); 0 keeps the trained ones.
        unroll: Applications of F that are trained together; the loss is the mean over them (the paper: 1).
        patch: m of FBI-E.
        kernel_size: K of the Gaussian pass.
        filters: Width of FBI-Net.
        layers: Depth of FBI-Net.
        clamp: Whether each application of F ends with a clamp to [0, 1].
        iterations: i that the finished purifier uses unless told otherwise.
    """

    init: str = ""
    init_share: float = 0.0
    unroll: int = 1
    patch: int = 2
    kernel_size: int = 11
    filters: int = 64
    layers: int = 8
    clamp: bool = True
    iterations: int = 5
