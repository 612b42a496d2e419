"""Trains a purifier for one classifier, puts it in front of the classifier and measures the result.

python examples/harden_your_model.py TRAIN TEST --out hardened   # two folders, each with a folder of images per class

Needs pip install "torch-purifier[train]". Run the same command again to resume. An attacker who knows the purifier can
still fool the hardened model: the last figure shows how often.
"""

import argparse
from pathlib import Path

import torch

import purifier
from purifier import Purifier
from purifier.attacks import PGD
from purifier.evaluation import labelled_images
from purifier.training.gad import GADTraining, train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("train", type=Path, help="folder with a folder of images for each class")
parser.add_argument("test", type=Path, help="another such folder, to measure the accuracy")
parser.add_argument("--out", type=Path, default=Path("hardened"), help="folder for checkpoints and the purifier")
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--images", type=int, default=100, help="number of images to measure the accuracy on")
options = parser.parse_args()

# Your model: a map from RGB images (N, 3, H, W) in [0, 1] to logits. It must normalise its input itself.
classifier = purifier.reference_model("cifar10-resnet20")

settings = GADTraining(
    data=str(options.train),
    steps=options.steps,
    batch_size=options.batch_size,
    size=32,  # side of the model's images
    norm="none",
    start="identity",  # learns fastest
    perceptual_weight=0,  # this loss downloads VGG16 and needs larger images
)
folder = train(settings, options.out, model=classifier)

hardened = purifier.wrap(classifier, Purifier.from_pretrained(folder))

data = labelled_images(options.test, 32, options.images, classes=classifier.classes)
images, labels = data.load(range(len(data)))
attack = PGD(eps=8 / 255, alpha=2 / 255, steps=10, generator=torch.Generator().manual_seed(0))
blind, aware = attack(classifier, images, labels), attack(hardened, images, labels)

with torch.inference_mode():
    for row, model, inputs in (
        ("bare model", classifier, images),
        ("bare model, attacked", classifier, blind),
        ("hardened", hardened, images),
        ("hardened, attacker does not know the purifier", hardened, blind),
        ("hardened, attacker knows the purifier", hardened, aware),
    ):
        print(f"{(model(inputs).argmax(1) == labels).float().mean():.2f}  {row}")
