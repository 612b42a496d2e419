"""probe() and inspect(): all the checks, on a live model and on finished rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from purifier._errors import InputError
from purifier._input import check_form, check_range
from purifier._random import isolated_randomness
from purifier.attacks.base import Attack, Loss
from purifier.evaluation.checks import (
    certificates,
    clean,
    coarse,
    detectors,
    gradients,
    outputs,
    quantising,
    randomness,
    saturation,
    strength,
    tables,
    trained,
)
from purifier.evaluation.checks.context import Context
from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.trained import Range
from purifier.evaluation.rows import CLEAN, Row

# In the order of a report: first the faults that make every figure meaningless.
CHECKS: tuple[Check, ...] = (
    outputs.RANGE,
    clean.POOR,
    outputs.SOFTMAX,
    saturation.SATURATED,
    gradients.ZERO,
    gradients.UNTRUE,
    quantising.QUANTISING,
    randomness.RANDOM,
    randomness.ONCE,
    strength.ONE_STEP,
    strength.UNBOUNDED,
    tables.FALLING,
    tables.BLACK_BOX,
    tables.BLIND_ONLY,
    coarse.COARSE,
    trained.OUTSIDE,
    certificates.FEW_DRAWS,
    detectors.UNAWARE,
)
_LIVE: tuple[Callable[[Context], Finding | None], ...] = (
    outputs.wrong_range,
    clean.poor_on_probes,
    outputs.softmax_outputs,
    saturation.saturated_loss,
    gradients.zero_gradients,
    gradients.untrue_gradients,
    quantising.quantising,
    randomness.randomness,
    randomness.judged_once,
    strength.one_step,
    strength.unbounded,
)
_TABLES: tuple[Callable[[Sequence[Row]], Finding | None], ...] = (
    tables.one_step_rows,
    tables.unbounded_rows,
    tables.falling_rows,
    tables.black_box_rows,
    tables.blind_only_rows,
    coarse.coarse_rows,
)


def probe(
    defended: Callable[..., Any],
    images: Tensor,
    labels: Any,
    *,
    attack: Attack | None = None,
    loss: Loss | None = None,
    samples: int = 1,
    submissions: int = 1,
    trained_eps: Range | None = None,
    trained_size: Range | None = None,
) -> list[Finding]:
    """Examines a defended model on a few images for faults that make an evaluation worthless.

    It takes about 40 forward and backward passes, or 80 if a check is raised. The model's mode, parameters and
    gradients, and torch's random state, do not change.

    Args:
        defended: A `PurifiedModel`, or a function of images; for a function, checks of the purifier are skipped.
        images: (N, 3, H, W), float, clean, in [0, 1] even if the model is wrapped with mean and std; 8 to 32 images.
            Fewer than 4 say nothing about shares of images, so that only the trained range is checked.
        labels: Their labels (N,); for other tasks the targets of `loss`.
        attack: The attack of the evaluation, whose loss, eps and samples are checked.
        loss: The loss that the attack increases; None means the attack's own, or else cross entropy.
        samples: Number of calls over which the threat model averages (EOT).
        submissions: How often the threat model submits each attacked image.
        trained_eps: The largest eps the purifier was trained for, or the smallest and the largest.
        trained_size: The smallest and the largest side in pixels; one number means half to twice that side.

    Returns:
        The findings, the most serious first.

    Raises:
        InputError: If the images are not a batch in [0, 1], or the number of labels differs.
    """
    _check_batch(images, labels)
    found: list[Finding] = []
    if len(images) >= clean.FEWEST:
        with isolated_randomness(images.device, seed=0):
            context = Context.of(defended, images, labels, attack, loss, samples, submissions)
            found = [finding for check in _LIVE if (finding := check(context))]
    if any(finding.check == outputs.RANGE.name for finding in found):  # which is why it is poor
        found = [finding for finding in found if finding.check != clean.POOR.name]
    height, width = images.shape[-2:]
    eps = attack.eps if attack is not None and attack.bounded else None
    outside = trained.outside_training(eps, (height, width), trained_eps, trained_size)
    return [*found, outside] if outside else found


def _check_batch(images: Tensor, labels: Any) -> None:
    check_form(images)
    check_range(images, "probe with clean images in [0, 1]; give a model's own mean and std to wrap()")
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"expected a batch of images (N, 3, H, W), got {tuple(images.shape)}; add images.unsqueeze(0)")
    if isinstance(labels, Tensor) and len(labels) != len(images):
        raise InputError(f"expected a label for each of {len(images)} images, got {len(labels)}")


def inspect(rows: Sequence[Row], *, trained_eps: Mapping[str, Range] | None = None) -> list[Finding]:
    """Examines finished rows for figures that contradict each other.

    Args:
        rows: All rows of a report.
        trained_eps: The largest eps in a purifier's training, or the smallest and the largest, by the purifier's name.

    Returns:
        At most one finding for each check.
    """
    found = [finding for check in _TABLES if (finding := check(rows))]
    outside = [
        f"{row.purifier}, {row.attack}: {finding.measured}"
        for row in rows
        if row.attack != CLEAN and row.norm == "Linf" and row.purifier in (trained_eps or {})
        if (finding := trained.outside_training(row.eps, (0, 0), (trained_eps or {})[row.purifier], None))
    ]
    return [*found, trained.OUTSIDE.found("; ".join(outside))] if outside else found
