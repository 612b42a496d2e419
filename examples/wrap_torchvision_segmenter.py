"""A purifier in front of a torchvision segmenter.

python examples/wrap_torchvision_segmenter.py               # random weights, offline
python examples/wrap_torchvision_segmenter.py --pretrained  # downloads torchvision's weights
"""

import argparse

import torch
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights, lraspp_mobilenet_v3_large
from torchvision.transforms.functional import normalize

import purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
parser.add_argument("--pretrained", action="store_true", help="download trained weights")
options = parser.parse_args()

weights = LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1
segmenter = lraspp_mobilenet_v3_large(
    weights=weights if options.pretrained else None, weights_backbone=None, num_classes=21
).eval()
# torchvision's segmenters take normalised images, so wrap() needs their mean and std.
mean, std = weights.transforms().mean, weights.transforms().std
model = purifier.wrap(segmenter, options.purifier, mean=mean, std=std)

photo = torch.rand(3, 240, 320)  # your image: float, RGB, in [0, 1]
with torch.inference_mode():
    classes = model(normalize(photo, mean, std)[None])["out"].argmax(1)[0]

print(f"mask of {classes.shape[0]} x {classes.shape[1]} pixels")
for label in classes.unique():
    print(f"{(classes == label).float().mean():.1%} {weights.meta['categories'][label]}")
