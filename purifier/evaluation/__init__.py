"""Evaluation: threat models, metrics, self-checks, runs that resume, reports."""

from purifier.data.finding import boxed_images, labelled_images, masked_images
from purifier.data.sets import (
    BoxedImages,
    ImageSet,
    LabelledImages,
    MaskedImages,
)
from purifier.evaluation.report import write_report
from purifier.evaluation.rows import Row
from purifier.evaluation.run import (
    Evaluation,
    EvaluationSettings,
    evaluate_classifier,
    evaluate_detector,
    evaluate_segmenter,
)
from purifier.evaluation.summary import MeasureRow
from purifier.models.loading import LoadedModel, load_model

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
