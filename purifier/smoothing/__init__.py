"""Predictions from many random calls: randomised smoothing, which certifies, and a majority vote, which does not."""

from purifier.smoothing.binomial import abstains, lower_bound
from purifier.smoothing.majority import Majority
from purifier.smoothing.smoothed import ABSTAIN, Certificate, Smoothed

__all__ = ["ABSTAIN", "Certificate", "Majority", "Smoothed", "abstains", "lower_bound"]
