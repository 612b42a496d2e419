"""Evaluation: threat models, metrics, self-checks, runs that resume, reports."""

from purifier.evaluation._summary import MeasureRow
from purifier.evaluation.data import (
    BoxedImages,
    ImageSet,
    LabelledImages,
    MaskedImages,
    boxed_images,
    labelled_images,
    masked_images,
)
from purifier.evaluation.models import LoadedModel, load_model
from purifier.evaluation.report import write_report
from purifier.evaluation.rows import Row
from purifier.evaluation.run import (
    Evaluation,
    EvaluationSettings,
    evaluate_classifier,
    evaluate_detector,
    evaluate_segmenter,
)

__all__ = [
    "BoxedImages",
    "Evaluation",
    "EvaluationSettings",
    "ImageSet",
    "LabelledImages",
    "LoadedModel",
    "MaskedImages",
    "MeasureRow",
    "Row",
    "boxed_images",
    "evaluate_classifier",
    "evaluate_detector",
    "evaluate_segmenter",
    "labelled_images",
    "load_model",
    "masked_images",
    "write_report",
]
