"""A loss that has gone flat because the logits are huge.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
ICML 2020, section 4.1: cross entropy is not invariant to the logits' scale, and its gradient vanishes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier.evaluation.checks.context import Scene
from purifier.evaluation.checks.finding import Check, Finding

SATURATED = Check(
    "saturated loss",
    "for over a tenth of the images the probability of all the wrong classes together is below 1e-6, so that the "
    "gradient of cross entropy is lost in the rounding of single precision",
    "An attack that climbs cross entropy sees noise instead of a slope and looks weak. Attack with APGD-DLR or "
    "another loss of logit differences, which does not depend on the logits' scale.",
)
_PROBABILITY, _SHARE = 1e-6, 0.1


def saturated_loss(scene: Scene) -> Finding | None:
    """Raised where cross entropy is flat; looked at only where the attack climbs cross entropy."""
    if not scene.classifies or not scene.entropy:
        return None
    logits: Tensor = scene.outputs.double()
    others = logits.scatter(1, scene.labels[:, None], -torch.inf)
    wrong = (torch.logsumexp(others, 1) - torch.logsumexp(logits, 1)).exp()
    flat = wrong < _PROBABILITY
    if int(flat.sum()) <= _SHARE * len(flat):
        return None
    lead = logits.gather(1, scene.labels[:, None])[:, 0] - others.amax(1)
    return SATURATED.found(
        f"{int(flat.sum())} of {len(flat)} images; the label's logit leads by {float(lead.median()):.3g} in the median"
    )
