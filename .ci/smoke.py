"""Tries an installed package: every bundled purifier loads offline and purifies, alone and in front of a model."""

import os
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

import purifier

warnings.simplefilter("ignore", purifier.PurifierWarning)
images = torch.rand(2, 3, 64, 64)
for name in purifier.list_purifiers():
    purified = purifier.Purifier.from_pretrained(name)(images)
    assert purified.shape == images.shape, name
    assert float(purified.min()) >= 0 and float(purified.max()) <= 1, name
classifier = purifier.reference_model("demo")
assert purifier.wrap(classifier)(images).shape == (2, len(classifier.classes))
with purifier.attach(classifier, "gs"):
    assert classifier(images).shape == (2, len(classifier.classes))
print(f"purifier {purifier.__version__}, torch {torch.__version__}: {len(purifier.list_purifiers())} purifiers")
