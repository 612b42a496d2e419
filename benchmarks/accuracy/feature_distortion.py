"""NRP's figures 3 and 4: how far attacks move features as their steps grow, and from which layer SSP transfers best.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.feature_distortion

    steps    BIM (I-FGSM) and MI-FGSM on MobileNetV2, and SSP on VGG-19 at relu3_3, with growing numbers of steps
    layers   SSP of 30 steps on single layers of VGG-19, MobileNetV2 and ResNet-50

All are in Linf at 16/255, on the first of the NIPS-2017 evaluation images. EfficientNet-Lite0 and Lite2 look at the
results; neither was attacked. The fooling rate is the share of images on which a classifier's prediction changes. The
feature distortion is the mean absolute change of VGG-19's features at relu3_3, as a share of their mean on the clean
image. Finished images are kept in --work, and a run that was stopped resumes. Result: feature_distortion.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.accuracy.headline import nips
from benchmarks.kit import environment, kit_module, model, share, write_result
from benchmarks.lite import lite
from benchmarks.markdown import percent, table
from purifier._files import write_text
from purifier.attacks import BIM, MIFGSM, SSP, features_at

Kind = type[BIM] | type[MIFGSM] | type[SSP]
NAME = "feature_distortion"
E16 = 16 / 255
ALPHA, SSP_ALPHA = 1.6 / 255, 2 / 255
STEPS = (1, 2, 5, 10, 20, 50, 100)
# VGG-19's layers up to relu3_4, by the number of modules before the next; then layers of the other networks.
VGG = {"relu1_2": 4, "relu2_2": 9, "relu3_1": 12, "relu3_2": 14, "relu3_3": 16, "relu3_4": 18}
MOBILENET = ("features.3", "features.6", "features.10", "features.13", "features.17")
RESNET = ("layer1", "layer2", "layer3", "layer4")
JUDGES: dict[str, Callable[[], nn.Module]] = {
    "EfficientNet-Lite0": lambda: lite(0),
    "EfficientNet-Lite2": lambda: lite(2),
}


class Watched(nn.Module):
    """A network that keeps the images of some of its calls, by the number of the call."""

    def __init__(self, network: nn.Module, calls: Sequence[int]) -> None:
        super().__init__()
        self.network, self.wanted = network, set(calls)
        self.calls, self.seen = 0, dict[int, Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        if self.calls in self.wanted:
            self.seen[self.calls] = images.detach().clone()
        self.calls += 1
        found: Tensor = self.network(images)
        return found


def iterates(attack: Kind, network: nn.Module, image: Tensor, label: Tensor, seed: int) -> dict[int, Tensor]:
    """Returns what one attack has after each number of STEPS, from a single run with a fixed step size.

    Args:
        attack: BIM or MIFGSM on `network`, or SSP on the features that `network` returns.
        network: Its gradient decides the steps.
        image: (1, 3, H, W) in [0, 1].
        label: (1,).
        seed: Of the attack's random numbers.
    """
    # The call after T steps sees their result; SSP's first call sees the clean image, and its second no step.
    before = 1 if attack is SSP else 0
    watched = Watched(network, [steps + before for steps in STEPS]).eval()
    longest = max(STEPS) + 1
    made = _ssp(watched, longest) if attack is SSP else attack(eps=E16, alpha=ALPHA, steps=longest)
    made.seeded(seed)(watched, image, label)
    return {steps: watched.seen[steps + before] for steps in STEPS}


def by_steps() -> Callable[[int, Tensor, Tensor], dict[str, Tensor]]:
    """Returns the function that attacks an image with growing numbers of steps."""
    source, features = model("mobilenet_v2"), kit_module().vgg19_features(16).requires_grad_(False)
    runs: dict[str, tuple[Kind, nn.Module]] = {
        "BIM": (BIM, source), "MI-FGSM": (MIFGSM, source), "SSP": (SSP, features)
    }  # fmt: skip

    def attacked(seed: int, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        found = {name: iterates(attack, network, image, label, seed) for name, (attack, network) in runs.items()}
        return {f"{name}, {steps}": moved for name, kept in found.items() for steps, moved in kept.items()}

    return attacked


def by_layer() -> Callable[[int, Tensor, Tensor], dict[str, Tensor]]:
    """Returns the function that attacks an image by SSP on each layer."""
    layers: dict[str, Any] = {f"VGG-19, {name}": kit_module().vgg19_features(upto) for name, upto in VGG.items()}
    for text, name, prefixed in (("MobileNetV2", "mobilenet_v2", MOBILENET), ("ResNet-50", "resnet50", RESNET)):
        network = model(name)
        layers |= {f"{text}, {layer}": features_at(network, f"net.{layer}") for layer in prefixed}

    def attacked(seed: int, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {name: _ssp(features, 30).seeded(seed)(None, image, None) for name, features in layers.items()}

    return attacked


def _ssp(features: Any, steps: int) -> SSP:
    return SSP(features, eps=E16, alpha=SSP_ALPHA, steps=steps, distance="squared")


PARTS = {"steps": by_steps, "layers": by_layer}


def measured(part: str, pictures: Any, count: int, work: Path, judges: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """Returns for each image and attack the distortion, and whether each judge's prediction changed."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{part}.json"
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    if len(done) >= count:
        return done[:count]
    attack, extract = PARTS[part](), kit_module().vgg19_features(16).requires_grad_(False)
    for index in tqdm(range(len(done), count), desc=part, unit="image"):
        image, label = pictures.images[index : index + 1], pictures.labels[index : index + 1]
        moved = attack(index, image, label)
        with torch.inference_mode():
            clean, classes = extract(image), {name: int(judge(image).argmax()) for name, judge in judges.items()}
            found = {
                name: {
                    "distortion": float((extract(x) - clean).abs().mean() / clean.abs().mean()),
                    "changed": {judge: int(network(x).argmax()) != classes[judge] for judge, network in judges.items()},
                }
                for name, x in moved.items()
            }
        done.append(found)
        write_text(path, json.dumps(done))
    return done


def summary(images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns for each attack the mean distortion, and the fooling rate of each judge with its interval."""
    found = {}
    for name, first in images[0].items():
        rates = {}
        for judge in first["changed"]:
            hits = sum(image[name]["changed"][judge] for image in images)
            rates[judge] = share(hits, len(images))
        found[name] = {"distortion": sum(image[name]["distortion"] for image in images) / len(images), "fooled": rates}
    return found


def markdown(result: Mapping[str, Any], part: str) -> str:
    """The table of one part."""
    rows = result["rows"][part]
    judges = list(next(iter(rows.values()))["fooled"])
    head = ["attack", "steps"] if part == "steps" else ["network", "layer"]
    lines = [
        [*name.split(", "), f"{row['distortion']:.2f}"]
        + [percent(row["fooled"][judge]["share"], row["fooled"][judge]["interval"]) for judge in judges]
        for name, row in rows.items()
    ]
    heads = [*head, "feature distortion", *(f"fooling rate of {judge}, %" for judge in judges)]
    return f"n = {result['settings']['images']} images.\n\n" + table(heads, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path("runs/feature_distortion"), help="folder of finished images")
    args = parser.parse_args(arguments)
    pictures, judges = nips(), {name: make() for name, make in JUDGES.items()}
    rows = {part: summary(measured(part, pictures, args.images, args.work, judges)) for part in PARTS}
    settings = {
        "images": args.images,
        "eps": E16,
        "alpha": {"logits": ALPHA, "SSP": SSP_ALPHA},
        "source": "mobilenet_v2",
    }
    write_result(NAME, {"settings": settings, "rows": rows, "environment": environment()})
    for part in PARTS:
        print(markdown({"settings": settings, "rows": rows}, part))


if __name__ == "__main__":
    main()
