"""Purifiers: modules that remove adversarial perturbations from images before they reach a model."""

from purifier._attaching import Handle, attach
from purifier._errors import (
    InputError,
    NoWeightsError,
    OptionError,
    OutputError,
    PurifierError,
    PurifierWarning,
    UnknownNameError,
    UnsafeFileError,
    WeightsError,
    WrapError,
)
from purifier._hub import list_purifiers
from purifier._purified_model import PurifiedModel
from purifier._purifier import Purifier
from purifier._version import __version__
from purifier._wrapping import wrap
from purifier.methods import Method, Stage, register
from purifier.models.reference import reference_model

__all__ = [
    "Handle",
    "InputError",
    "Method",
    "NoWeightsError",
    "OptionError",
    "OutputError",
    "PurifiedModel",
    "Purifier",
    "PurifierError",
    "PurifierWarning",
    "Stage",
    "UnknownNameError",
    "UnsafeFileError",
    "WeightsError",
    "WrapError",
    "__version__",
    "attach",
    "list_purifiers",
    "reference_model",
    "register",
    "wrap",
]
