"""Randomness over which an attack does not average, or for which an image is tried only once.

Source: Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section 4.2 (EOT),
https://arxiv.org/abs/1802.00420.
"""

from __future__ import annotations

from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding

RANDOM = Check(
    "randomness without EOT",
    "two calls on the same images give different outputs, and the attack makes only one call a step",
    "The noise hides the gradient that an attacker would find by averaging, so the defence looks stronger than it is. "
    "Use EOT, such as Aware(samples=20), and raise the number of samples until the accuracy no longer falls.",
)
ONCE = Check(
    "random defence judged once",
    "two calls on the same images give different outputs, and each attacked image is submitted only once",
    "An attacker can send the same image again until it passes, so the accuracy of one call is too high. Count an "
    "image as correct only if it always is, with Aware(submissions=10) or more.",
)
# Parallel sums on a GPU differ between calls by less than this share of the outputs' size.
_TOLERANCE = 1e-4


def randomness(context: Context) -> Finding | None:
    """Checks whether calls differ while the attack does not average over them."""
    return None if context.samples > 1 else _found(RANDOM, context)


def judged_once(context: Context) -> Finding | None:
    """Checks whether calls differ while each attacked image is submitted once."""
    return None if context.submissions > 1 else _found(ONCE, context)


def _found(check: Check, context: Context) -> Finding | None:
    """Returns the check's finding if calls differ."""
    stated = bool(getattr(context.purifier, "random", False))
    if not stated and context.difference <= _TOLERANCE:
        return None
    return check.found(
        f"two calls differ by {context.difference:.2g} of the outputs' largest value"
        + (" and the purifier states that it is random" if stated else "")
    )
