"""Data sets that are purified by many workers, on Ray. Needs the extra `scale`."""

from purifier.scale.dataset import Totals, purify_dataset
from purifier.scale.options import Workers

__all__ = ["Totals", "Workers", "purify_dataset"]
