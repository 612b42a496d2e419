"""
Where a picture looks attacked
==============================

Purifiers with a gate, such as ``alloy-s``, also estimate how much an image looks attacked, and where.
"""

import matplotlib.pyplot as plt
import skimage.data
import torch
from torchvision.transforms.v2.functional import center_crop, resize, to_image

import purifier
from purifier import attacks

classifier = purifier.reference_model("demo")
photograph = to_image(skimage.data.chelsea()) / 255
cat = resize(center_crop(photograph, [300, 300]), [128, 128]).clamp(0, 1)[None]
label = torch.tensor([classifier.classes.index("cat")])
attacked = attacks.PGD(eps=4 / 255, alpha=1 / 255, steps=10)(classifier, cat, label)

# %%
# A picture of which only the left half is attacked:

half = cat.clone()
half[..., :64] = attacked[..., :64]

# %%
# The score is the mean of the map, from 0 to 1.

p = purifier.Purifier.from_pretrained("alloy-s")
pictures = {"clean": cat, "attacked": attacked, "left half": half}

figure, axes = plt.subplots(2, 3, figsize=(6, 4.4), layout="constrained")
for (above, below), (name, images) in zip(axes.T, pictures.items(), strict=True):
    above.imshow(images[0].permute(1, 2, 0))
    above.set_title(name)
    below.imshow(p.attack_map(images)[0, 0], vmin=0, vmax=1)
    below.set_title(f"score {p.attack_score(images).item():.2f}")
    above.axis("off")
    below.axis("off")

# %%
# The score is not a probability. Calibrate a threshold on clean pictures of your own, and read what an attacker who
# knows the detector does: :doc:`/detection`.
