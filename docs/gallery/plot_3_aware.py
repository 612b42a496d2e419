"""
Blind versus aware
==================

The same attack, by an attacker who does not know the purifier and by one who does.
"""

import warnings

import matplotlib.pyplot as plt
import skimage.data
import torch
from torchvision.transforms.v2.functional import center_crop, resize, to_image

import purifier
from purifier import attacks

warnings.simplefilter("ignore", purifier.PurifierWarning)  # it says what this page shows
classifier = purifier.reference_model("demo")
photograph = to_image(skimage.data.coffee()) / 255
cup = resize(center_crop(photograph, [400, 400]), [128, 128]).clamp(0, 1)[None]
index = classifier.classes.index("cup")
label = torch.tensor([index])

# %%
# A blind attack is made on the bare classifier. An aware one follows the exact gradient through purifier and
# classifier.

defended = purifier.wrap(classifier, "alloy-s")
radii = [0, 1, 2, 4]
confidence: dict[str, list[float]] = {"blind": [], "aware": []}
for eps in radii:
    attack = attacks.PGD(eps=eps / 255, alpha=max(eps, 1) / 4 / 255, steps=10)
    for name, threat in {"blind": attacks.Blind(), "aware": attacks.Aware()}.items():
        images = threat(attack, defended, cup, label) if eps else cup
        confidence[name].append(defended(images).softmax(1)[0, index].item())

# %%
# The confidence in the true class, "cup", with the purifier in front:

figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
for name, marker in {"blind": "o", "aware": "s"}.items():
    axis.plot(radii, confidence[name], marker=marker, label=f"{name} attacker")
axis.set_title("one picture behind alloy-s")
axis.set_xlabel("eps, in units of 1/255")
axis.set_ylabel('confidence in "cup"')
axis.set_ylim(-0.03, 1.03)
axis.legend()

# %%
# Always measure the aware attack, too. :doc:`/threats` explains the threat models.
