"""The tasks: all that the training needs to know of each, one a file; `make_task` also finds the user's own."""

from __future__ import annotations

from torch import nn

from purifier._errors import OptionError
from purifier.models.named import import_named
from purifier.training.gad._config import GADTraining
from purifier.training.gad.tasks._base import Observed, Task
from purifier.training.gad.tasks.boxes import BoxTask
from purifier.training.gad.tasks.classification import Classification
from purifier.training.gad.tasks.detection import Detection
from purifier.training.gad.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}

__all__ = ["TASKS", "BoxTask", "Classification", "Detection", "Observed", "Segmentation", "Task", "make_task"]


def make_task(model: nn.Module, config: GADTraining) -> Task:
    """Makes the task that the settings name, of a model that is frozen and in eval mode.

    Raises:
        OptionError: Where there is no such task, or what "module:function" names makes none.
    """
    kind = TASKS.get(config.task) or import_named(config.task, "task", ", ".join(map(repr, TASKS)))
    task = kind(model, config) if callable(kind) else kind
    if not isinstance(task, Task):
        raise OptionError(
            f"expected {config.task} to be a subclass of purifier.training.gad.Task, or a function that makes one, got "
            f"{type(task).__name__}"
        )
    return task
