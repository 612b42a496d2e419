"""A purifier in front of a torchvision detector, which takes a list of images of any sizes.

python examples/wrap_torchvision_detector.py               # random weights, offline
python examples/wrap_torchvision_detector.py --pretrained  # downloads torchvision's weights
"""

import argparse

import torch
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_320_fpn,
)

import purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
parser.add_argument("--pretrained", action="store_true", help="download trained weights")
options = parser.parse_args()

weights = FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1 if options.pretrained else None
detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=weights, weights_backbone=None, box_score_thresh=0.02).eval()
# torchvision's detectors take images in [0, 1] and normalise them, so wrap() needs no mean and std.
model = purifier.wrap(detector, options.purifier)

photos = [torch.rand(3, 240, 320), torch.rand(3, 200, 150)]  # your images: float, RGB, in [0, 1]
with torch.inference_mode():
    detections = model(photos)

for photo, found in zip(photos, detections, strict=True):
    # Purifying keeps height and width, so the boxes are valid for the original images.
    print(f"{photo.shape[1]} x {photo.shape[2]}: {len(found['boxes'])} boxes")
