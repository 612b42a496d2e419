"""Evaluation: threat models, metrics, self-checks, runs that resume, reports."""

from typing import Any

from purifier.data.finding import boxed_images, labelled_images, masked_images, unlabelled_images
from purifier.data.sets import BoxedImages, ImageSet, LabelledImages, MaskedImages, UnlabelledImages
from purifier.evaluation.certified import Certification, CertifiedRow
from purifier.evaluation.detected import DetectedRow
from purifier.evaluation.doctor import doctor
from purifier.evaluation.plan import Attacked
from purifier.evaluation.ranked import RankedEvaluation, RankedSettings, evaluate_ranked, write_ranked
from purifier.evaluation.report import write_report
from purifier.evaluation.rows import MeasureRow, Row
from purifier.evaluation.run import Evaluation, evaluate
from purifier.evaluation.settings import EvaluationSettings
from purifier.models.loading import LoadedModel, load_model

__all__ = [
    "Attacked",
    "BoxedImages",
    "Certification",
    "CertifiedRow",
    "DetectedRow",
    "Evaluation",
    "EvaluationSettings",
    "ImageSet",
    "LabelledImages",
    "LoadedModel",
    "MaskedImages",
    "MeasureRow",
    "RankedEvaluation",
    "RankedSettings",
    "Row",
    "UnlabelledImages",
    "boxed_images",
    "doctor",
    "evaluate",
    "evaluate_ranked",
    "labelled_images",
    "load_model",
    "masked_images",
    "unlabelled_images",
    "write_ranked",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in ("evaluate_classifier", "evaluate_detector", "evaluate_segmenter"):
        raise AttributeError(
            f"purifier.evaluation.{name} was removed in 0.2; call purifier.evaluation.evaluate with the same arguments"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
