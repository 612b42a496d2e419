"""Randomised smoothing: predictions with a certificate that no perturbation of a smaller L2 norm changes them."""

from purifier.smoothing.binomial import abstains, lower_bound
from purifier.smoothing.smoothed import ABSTAIN, Certificate, Smoothed

__all__ = ["ABSTAIN", "Certificate", "Smoothed", "abstains", "lower_bound"]
