"""Training of NCIS: eq. 7 of the paper, self-supervised, on clean images."""

from purifier.training.ncis._config import NCISTraining
from purifier.training.ncis._recipe import NCISRecipe
from purifier.training.ncis._train import train

__all__ = ["NCISRecipe", "NCISTraining", "train"]
