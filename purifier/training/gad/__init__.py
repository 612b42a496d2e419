"""Training of GAD in front of one given model, on one of three tasks or the user's own."""

from purifier.training.gad.config import GADTraining
from purifier.training.gad.recipe import GADRecipe, train
from purifier.training.gad.tasks import Observed, Task

__all__ = ["GADRecipe", "GADTraining", "Observed", "Task", "train"]
