"""probe() and inspect(): all the checks, on a live model and on finished rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from purifier._errors import InputError
from purifier._input import check_form, check_range
from purifier.attacks.base import Attack, Loss
from purifier.attacks.losses import cross_entropy
from purifier.evaluation.checks import gradients, outputs, quantising, randomness, saturation, strength, tables, trained
from purifier.evaluation.checks.context import Scene, views
from purifier.evaluation.checks.finding import Check, Finding
from purifier.evaluation.checks.trained import Range
from purifier.evaluation.rows import CLEAN, Row

# In the order of a report: first what makes every figure meaningless.
CHECKS: tuple[Check, ...] = (
    outputs.RANGE,
    outputs.SOFTMAX,
    saturation.SATURATED,
    gradients.ZERO,
    gradients.UNTRUE,
    quantising.QUANTISING,
    randomness.RANDOM,
    strength.ONE_STEP,
    strength.UNBOUNDED,
    tables.FALLING,
    tables.BLACK_BOX,
    tables.BLIND_ONLY,
    trained.OUTSIDE,
)
_LIVE: tuple[Callable[[Scene], Finding | None], ...] = (
    outputs.wrong_range,
    outputs.softmax_outputs,
    saturation.saturated_loss,
    gradients.zero_gradients,
    gradients.untrue_gradients,
    quantising.quantising,
    randomness.randomness,
    strength.one_step,
    strength.unbounded,
)
_TABLES: tuple[Callable[[Sequence[Row]], Finding | None], ...] = (
    tables.one_step_rows,
    tables.unbounded_rows,
    tables.falling_rows,
    tables.black_box_rows,
    tables.blind_only_rows,
)


def probe(
    defended: Callable[..., Any],
    images: Tensor,
    labels: Any,
    *,
    attack: Attack | None = None,
    loss: Loss | None = None,
    samples: int = 1,
    trained_eps: Range | None = None,
    trained_size: Range | None = None,
) -> list[Finding]:
    """Tries a defended model on a few images for the faults that make an evaluation worthless.

    Costs about 40 passes forward and backward, 80 where something is wrong. Mode, parameters, gradients and torch's
    random state stay as they were.

    Args:
        defended: A `PurifiedModel`, or any function of images. What needs the bare model or the purifier is skipped
            for the latter.
        images: (N, 3, H, W), float, clean, in [0, 1] also where the model is wrapped with mean and std; 8 to 32
            of them.
        labels: Their labels (N,); for other tasks whatever `loss` takes.
        attack: The attack of the evaluation: its loss, eps and samples are looked at.
        loss: The loss that the attack climbs; the attack's own, or cross entropy, where None.
        samples: Calls that the threat model averages over (EOT).
        trained_eps: What the purifier was trained for: the largest eps, or the smallest and the largest.
        trained_size: Likewise the smallest and largest side in pixels; one number stands for half to twice of it.

    Returns:
        What was found, the gravest first; empty where nothing was.

    Raises:
        InputError: Where the images are not a batch in [0, 1] or there are not as many labels.

    Example:
        >>> import torch
        >>> from purifier import Purifier
        >>> from purifier.evaluation.checks import probe
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
        >>> defended = Purifier.from_pretrained("bit-depth").wrap(classifier)
        >>> images = torch.rand(8, 3, 16, 16)
        >>> "quantising purifier" in [finding.check for finding in probe(defended, images, torch.arange(8) % 2)]
        True
    """
    check_form(images)
    check_range(images, "probe with clean images in [0, 1]; a model's own mean and std are given to wrap()")
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"expected a batch of images (N, 3, H, W), got {tuple(images.shape)}; add images.unsqueeze(0)")
    if isinstance(labels, Tensor) and len(labels) != len(images):
        raise InputError(f"expected a label for each of {len(images)} images, got {len(labels)}")
    view, bare, purifier = views(defended)
    many = max(samples, getattr(attack, "samples", 1))
    # The attack inside one that runs another knows the loss.
    climbed = loss if loss is not None else getattr(getattr(attack, "attack", attack), "loss", None)
    entropy = climbed in (None, "ce", cross_entropy)
    own = climbed if callable(climbed) and not entropy else None
    scene = Scene(view, bare, purifier, images.detach().clamp(0, 1), labels, attack, own, entropy, many)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        found = [finding for check in _LIVE if (finding := check(scene))]
    height, width = images.shape[-2:]
    eps = attack.eps if attack is not None and attack.bounded else None
    outside = trained.outside_training(eps, (height, width), trained_eps, trained_size)
    return [*found, outside] if outside else found


def inspect(rows: Sequence[Row], *, trained_eps: Mapping[str, Range] | None = None) -> list[Finding]:
    """Looks through finished rows for figures that contradict each other.

    Args:
        rows: All rows of a report.
        trained_eps: For purifiers by name, the largest eps in training, or the smallest and the largest.

    Returns:
        What was found, at most one finding a check; empty where nothing was.
    """
    found = [finding for check in _TABLES if (finding := check(rows))]
    outside = [
        f"{row.purifier}, {row.attack}: {finding.measured}"
        for row in rows
        if row.attack != CLEAN and row.norm == "Linf" and row.purifier in (trained_eps or {})
        if (finding := trained.outside_training(row.eps, (0, 0), (trained_eps or {})[row.purifier], None))
    ]
    return [*found, trained.OUTSIDE.found("; ".join(outside))] if outside else found
