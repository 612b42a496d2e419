"""
Purify an attacked picture
==========================

A PGD attack fools the small classifier of the package. The purifier ``alloy-s`` brings the right class back.
"""

import matplotlib.pyplot as plt
import skimage.data
import torch
from torchvision.transforms.v2.functional import center_crop, resize, to_image

import purifier
from purifier import attacks

classifier = purifier.reference_model("demo")
photograph = to_image(skimage.data.coffee()) / 255
cup = resize(center_crop(photograph, [400, 400]), [128, 128]).clamp(0, 1)[None]
label = torch.tensor([classifier.classes.index("cup")])

# %%
# The attacker knows the classifier, and changes each pixel by at most 4/255.

attack = attacks.PGD(eps=4 / 255, alpha=1 / 255, steps=10)
attacked = attack(classifier, cup, label)

# %%
# Purify the attacked picture, and the clean one for comparison.

p = purifier.Purifier.from_pretrained("alloy-s")
pictures = {"clean": cup, "attacked": attacked, "attacked, purified": p(attacked), "clean, purified": p(cup)}


def predicted(images: torch.Tensor) -> str:
    """Returns the name of the predicted class."""
    return str(classifier.classes[int(classifier(images).argmax())])


figure, axes = plt.subplots(2, 2, figsize=(5, 5.6), layout="constrained")
for axis, (name, images) in zip(axes.flat, pictures.items(), strict=True):
    axis.imshow(images[0].permute(1, 2, 0))
    axis.set_title(f"{name}:\n{predicted(images)}")
    axis.axis("off")

# %%
# One picture shows how it works, not how well: it fails on others. :doc:`/choosing` has figures on 400 images.
# ``alloy-s`` was trained with this classifier, so other models may gain less.
