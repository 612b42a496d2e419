"""A purifier in front of a transformers model with its image processor.

python examples/wrap_transformers_model.py                                        # random weights, offline
python examples/wrap_transformers_model.py --pretrained google/vit-base-patch16-224  # downloads them
"""

import argparse

import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import purifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--purifier", default="ncis", help="a name from purifier.list_purifiers(), a folder, or org/name")
parser.add_argument("--pretrained", metavar="ORG/NAME", help="download this classifier and its processor")
options = parser.parse_args()

if options.pretrained:
    classifier = AutoModelForImageClassification.from_pretrained(options.pretrained)
    processor = AutoImageProcessor.from_pretrained(options.pretrained)
else:
    small = ViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=10)
    classifier = ViTForImageClassification(small).eval()
    processor = ViTImageProcessor()
# wrap() takes the mean and std of the normalisation from the processor.
model = purifier.wrap(classifier, options.purifier, processor=processor)

photo = (torch.rand(3, 300, 400) * 255).byte()  # your image: a PIL image, an array or a tensor
inputs = processor(photo, return_tensors="pt")
with torch.inference_mode():
    label = model(**inputs).logits.argmax(-1).item()

print(classifier.config.id2label[label])
