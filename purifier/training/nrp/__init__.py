"""Training of NRP: Algorithm 2 of the paper, self-supervised, against perturbations of a network's features."""

from purifier.training.nrp._config import NRPTraining
from purifier.training.nrp._recipe import NRPRecipe
from purifier.training.nrp._train import train

__all__ = ["NRPRecipe", "NRPTraining", "train"]
