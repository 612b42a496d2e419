"""Purifiers and defended models in the form that other libraries take; none of these is a dependency."""

from purifier.adapters.art import as_art
from purifier.adapters.maite import MaiteAugmentation, MaiteModel, as_maite_augmentation, as_maite_model
from purifier.adapters.models import as_foolbox, as_robustbench

__all__ = [
    "MaiteAugmentation",
    "MaiteModel",
    "as_art",
    "as_foolbox",
    "as_maite_augmentation",
    "as_maite_model",
    "as_robustbench",
]
