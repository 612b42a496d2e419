"""Training of Alloy: undo attacks on the features and beliefs of a list of fixed networks, without labels."""

from purifier.training.alloy._config import AlloyTraining
from purifier.training.alloy._recipe import AlloyRecipe
from purifier.training.alloy._train import train

__all__ = ["AlloyRecipe", "AlloyTraining", "train"]
