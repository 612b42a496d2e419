"""Data sets that are purified by many workers, on Ray. Needs the extra `scale`."""

from purifier.scale.dataset import Totals, Workers, purify_dataset

__all__ = ["Totals", "Workers", "purify_dataset"]
