"""A purifier in front of a torchvision classifier.

python examples/wrap_torchvision_classifier.py               # random weights, offline
python examples/wrap_torchvision_classifier.py --pretrained  # downloads torchvision's weights
"""

import argparse

import torch
from torchvision.models import ResNet18_Weights, resnet18

import purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
parser.add_argument("--pretrained", action="store_true", help="download trained weights")
options = parser.parse_args()

weights = ResNet18_Weights.IMAGENET1K_V1
classifier = resnet18(weights=weights if options.pretrained else None).eval()
# torchvision's classifiers take normalised images, so wrap() needs their mean and std.
preprocess = weights.transforms()
model = purifier.wrap(classifier, options.purifier, mean=preprocess.mean, std=preprocess.std)

photo = torch.rand(3, 300, 400)  # your image: float, RGB, in [0, 1]
with torch.inference_mode():
    scores = model(preprocess(photo)[None]).softmax(-1)[0]

for score, label in zip(*scores.topk(3), strict=True):
    print(f"{score:.3f} {weights.meta['categories'][label]}")
