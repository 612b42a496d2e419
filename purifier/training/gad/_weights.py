"""Which terms are at work, and how heavy: the paper's ablations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from purifier._errors import OptionError
from purifier.training.gad._config import GADTraining, Variant

_PIXELS = ("reconstruction", "perceptual", "gan", "matching")
_FEATURES = ("task", "feature")
_CLASSES = ("align", "inter", "intra")
_AT_WORK: dict[str, tuple[str, ...]] = {
    "li": _PIXELS,
    "lf-noc": _FEATURES,
    "li+lf-noc": _PIXELS + _FEATURES,
    "lt": _PIXELS,
    "lt+lf-noc": _PIXELS + _FEATURES,
    "full": _PIXELS + _FEATURES + _CLASSES,
}


@dataclass(frozen=True)
class Weights:
    """The weight of each term of eq. 9 and 10 by its name; 0 where the variant leaves it out.

    Attributes:
        of: Weight by name.
        traditional: Whether clean images, not clean outputs, are the goal of adversarial outputs (L_T).
    """

    of: dict[str, float]
    traditional: bool

    def any(self, *names: str) -> bool:
        """Whether one of these terms is at work."""
        return any(self.of[name] for name in names)

    @property
    def pixels(self) -> bool:
        """Whether a pixel-level term is at work."""
        return self.any(*_PIXELS)

    @property
    def features(self) -> bool:
        """Whether a term needs the target model."""
        return self.any(*_FEATURES, *_CLASSES)

    @property
    def critic(self) -> bool:
        """Whether a term needs the discriminator."""
        return self.any("gan", "matching")


def weights_of(config: GADTraining) -> Weights:
    """Reads the weights out of the settings.

    Raises:
        OptionError: Where the variant is unknown, a weight is negative or not a number, or no term is left.
    """
    if config.variant not in _AT_WORK:
        raise OptionError(f"expected a variant out of {', '.join(get_args(Variant))}, got {config.variant!r}")
    given = {name: float(getattr(config, f"{name}_weight")) for name in _AT_WORK["full"]}
    wrong = {f"{name}_weight": value for name, value in given.items() if not 0 <= value < math.inf}
    if wrong or not any(given[name] for name in _AT_WORK[config.variant]):
        raise OptionError(
            f"expected loss weights >= 0, and one above that variant={config.variant!r} uses, got {wrong or given}"
        )
    at_work = {name: value if name in _AT_WORK[config.variant] else 0.0 for name, value in given.items()}
    return Weights(at_work, config.variant.startswith("lt"))
