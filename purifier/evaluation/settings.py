"""The settings of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from purifier._options import check_fields, check_integer
from purifier.evaluation.checks.trained import Range


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How an evaluation runs.

    Attributes:
        batch_size: Images in a batch. A run can only resume with the same batch size.
        seed: Seed of everything random. A run that resumes gives the same figures as one that was never interrupted.
        eight_bit: Whether to also measure with the attacked images rounded to 8 bits, as image files are.
        defend_dtypes: Further dtypes to run the purifiers in, such as "bfloat16". The attack's dtype does not change.
        pictures: Number of images to keep for the report, for each combination of purifier, attack and threat model.
        probe_images: Number of images for the self-checks that run the model. They take about 40 forward and backward
            passes for each purifier; 0 skips them.
        trained_eps: The largest eps that a purifier was trained for, or the smallest and the largest, by its name.
        trained_size: The smallest and the largest side in pixels that a purifier was trained for, by its name.
    """

    batch_size: int = 16
    seed: int = 0
    eight_bit: bool = False
    defend_dtypes: tuple[str, ...] = ()
    pictures: int = 4
    probe_images: int = 8
    trained_eps: Mapping[str, Range] = field(default_factory=dict)
    trained_size: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, low in (("batch_size", 1), ("seed", 0), ("pictures", 0), ("probe_images", 0)):
            check_integer(name, getattr(self, name), low=low)
