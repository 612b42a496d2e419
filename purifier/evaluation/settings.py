"""The settings of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from purifier._errors import OptionError, shown
from purifier._options import check_bool, check_integer, check_seed
from purifier.evaluation.checks.trained import Range

# More images, in a batch or for checks, than memory holds.
_MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How an evaluation runs.

    Attributes:
        batch_size: Images in a batch. A run can only resume with the same batch size.
        seed: Seed of everything random. A run that resumes gives the same figures as one that was never interrupted.
        eight_bit: Whether to also measure with the attacked images rounded to 8 bits, as image files are.
        votes: How often each submission of an image goes through a random purifier. The class that most of these
            predictions name counts, as with `purifier.smoothing.Majority`. Classifiers only.
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
    votes: int = 1
    defend_dtypes: tuple[str, ...] = ()
    pictures: int = 4
    probe_images: int = 8
    trained_eps: Mapping[str, Range] = field(default_factory=dict)
    trained_size: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, low=1, high=_MOST)
        check_integer("votes", self.votes, low=1, high=_MOST)
        for name in ("pictures", "probe_images"):
            check_integer(name, getattr(self, name), low=0, high=_MOST)
        check_seed(self.seed)
        check_bool("eight_bit", self.eight_bit)
        dtypes = self.defend_dtypes
        if not isinstance(dtypes, list | tuple) or not all(isinstance(name, str) for name in dtypes):
            raise OptionError(f"expected defend_dtypes as names such as ('bfloat16',), got {shown(dtypes)}")
