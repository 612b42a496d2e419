"""Data sets and evaluations on many workers, by Ray. Needs the extra `scale`."""

from purifier.scale.dataset import Totals, purify_dataset
from purifier.scale.evaluating import OnRay
from purifier.scale.options import Workers

__all__ = ["OnRay", "Totals", "Workers", "purify_dataset"]
