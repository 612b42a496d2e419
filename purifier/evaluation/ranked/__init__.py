"""Evaluation of services that answer with ranked labels, such as vision APIs, by attacks that are made without them."""

from purifier.evaluation.ranked.client import Client
from purifier.evaluation.ranked.run import RankedEvaluation, RankedRow, RankedSettings, evaluate_ranked
from purifier.evaluation.ranked.table import write_ranked

__all__ = ["Client", "RankedEvaluation", "RankedRow", "RankedSettings", "evaluate_ranked", "write_ranked"]
