"""Training of GAD: Algorithm 1 of the paper, in front of one given model, on one of three tasks or the user's own."""

from purifier.training.gad._config import GADTraining
from purifier.training.gad._recipe import GADRecipe
from purifier.training.gad._train import train
from purifier.training.gad.tasks import Observed, Task

__all__ = ["GADRecipe", "GADTraining", "Observed", "Task", "train"]
