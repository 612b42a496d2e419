"""The tasks of the GAD training, one per file. `make_task` also finds the user's own."""

from __future__ import annotations

from torch import nn

from purifier._errors import OptionError
from purifier.models.named import import_named
from purifier.training.gad.config import GADTraining
from purifier.training.gad.tasks.base import Observed, Task
from purifier.training.gad.tasks.boxes import BoxTask
from purifier.training.gad.tasks.classification import Classification
from purifier.training.gad.tasks.detection import Detection
from purifier.training.gad.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {"classification": Classification, "detection": Detection, "segmentation": Segmentation}

__all__ = ["TASKS", "BoxTask", "Classification", "Detection", "Observed", "Segmentation", "Task", "make_task"]


def make_task(model: nn.Module, config: GADTraining) -> Task:
    """Makes the task that the settings name, for a frozen model in eval mode.

    Raises:
        OptionError: If there is no such task, or "module:function" names something that makes no task.
    """
    kind = TASKS.get(config.task) or import_named(config.task, "task", ", ".join(map(repr, TASKS)))
    task = kind(model, config) if callable(kind) else kind
    if not isinstance(task, Task):
        raise OptionError(
            f"expected {config.task} to be a subclass of purifier.training.gad.Task, or a function that makes one, got "
            f"{type(task).__name__}"
        )
    return task
