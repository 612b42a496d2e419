"""Purifying as a step of a data pipeline: torchvision transforms, and in front of a transformers image processor.

A pipeline purifies pictures before they are resized, cropped or normalised for the model, in the data loader's workers.
`purifier.wrap` and `purifier.attach` purify what the model is fed, on the model's device.
"""

from purifier.transforms.first import PurifyFirst
from purifier.transforms.purify import Purify

__all__ = ["Purify", "PurifyFirst"]
