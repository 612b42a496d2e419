"""A loss whose gradient vanishes because the logits are large.

Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, section 4.1, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding

SATURATED = Check(
    "saturated loss",
    "for over a tenth of the images, the probability of all wrong classes together is below 1e-6, so that rounding in "
    "single precision hides the gradient of cross entropy",
    "An attack on cross entropy then follows rounding noise and looks weak. Attack with APGD-DLR or another loss of "
    "logit differences, which does not depend on the scale of the logits.",
)
_PROBABILITY, _SHARE = 1e-6, 0.1


def saturated_loss(context: Context) -> Finding | None:
    """Checks whether cross entropy is saturated, if the attack uses it."""
    if not context.classifies or not context.entropy:
        return None
    logits: Tensor = context.outputs.double()
    others = logits.scatter(1, context.labels[:, None], -torch.inf)
    wrong = (torch.logsumexp(others, 1) - torch.logsumexp(logits, 1)).exp()
    flat = wrong < _PROBABILITY
    if int(flat.sum()) <= _SHARE * len(flat):
        return None
    lead = logits.gather(1, context.labels[:, None])[:, 0] - others.amax(1)
    return SATURATED.found(
        f"{int(flat.sum())} of {len(flat)} images; the median lead of the label's logit is {float(lead.median()):.3g}"
    )
