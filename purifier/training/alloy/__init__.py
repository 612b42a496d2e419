"""Training of Alloy: undo attacks on the features and predictions of several fixed networks, without labels."""

from purifier.training.alloy.config import AlloyTraining
from purifier.training.alloy.recipe import AlloyRecipe, train

__all__ = ["AlloyRecipe", "AlloyTraining", "train"]
