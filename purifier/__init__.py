"""Purifiers: modules that remove adversarial perturbations from images before they reach a model.

The sub-packages, such as `purifier.transforms` and `purifier.attacks`, are imported when they are first used.
"""

import importlib as _importlib
import types as _types

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

_ROOMS = (
    "adapters",
    "attacks",
    "data",
    "evaluation",
    "inference",
    "methods",
    "models",
    "scale",
    "smoothing",
    "training",
    "transforms",
)


def __getattr__(name: str) -> _types.ModuleType:
    if name in _ROOMS:
        return _importlib.import_module(f"purifier.{name}")
    raise AttributeError(f"module 'purifier' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
