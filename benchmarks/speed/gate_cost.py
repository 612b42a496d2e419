"""What the default purifier costs on clean and on attacked images, where its gate skips the clean ones.

    PURIFIER_KIT=<folder> python -m benchmarks.speed.gate_cost [--purifier alloy-s[=FOLDER]]

With a `gate_floor` the network of the purifier runs only on images whose gate is open anywhere, with a `gate_threshold`
only on images with a higher score. For each form of the gate this states the share of images that are skipped, and the
time as a multiple of a ResNet-50's forward pass: over clean images of the evaluation, and over the same images after
PGD on MobileNetV2. All forms run in turn in one process, each once a round; a ratio is the median over the rounds.
Batches of 8 images of 224 x 224 pixels, float32, no gradients.

Results: benchmarks/results/gate_cost_cpu.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

from benchmarks import kit
from benchmarks.markdown import table
from benchmarks.speed.cost import seconds
from purifier import Purifier
from purifier._wrapping import DEFAULT
from purifier.attacks import PGD
from purifier.methods._gate import may_close

EPS = 4 / 255
ATTACK = PGD(eps=EPS, alpha=EPS / 10, steps=10)
# Options of the gate. The last form is what is shipped; the last two were chosen by recipes.gate_judge.
OPTIONS = ("gate_bias", "gate_floor", "gate_threshold")
FORMS = ((2.0, 0.0, 0.0), (2.0, 1 / 1021, 0.0), (2.0, 0.3, 0.0), (-1.0, 0.3, 0.0), (2.0, 0.0, 0.25))
Form = tuple[float, float, float]
Row = dict[str, Any]


def traffic(count: int) -> dict[str, Tensor]:
    """Returns clean images (N, 3, 224, 224) and the same ones under attack."""
    images, labels = kit.imagenet(count)
    network = kit.model("mobilenet_v2")
    pairs = zip(images.split(10), labels.split(10), strict=True)
    attacked = [ATTACK.seeded(0)(network, x, y) for x, y in tqdm(list(pairs), desc="attack")]
    return {"clean": images, "attacked": torch.cat(attacked)}


def skipped(purifier: Purifier, images: Tensor) -> float:
    """Returns the share of images for which the network does not run."""
    _, gate = purifier.gated_part()
    options = purifier.method.options
    if not may_close(purifier.method):
        return 0.0
    with torch.inference_mode():
        weights = gate(images, **{name: options[name] for name in OPTIONS})
    return 1 - weights.flatten(1).any(1).float().mean().item()


def measure(source: str, kinds: Sequence[Form], sets: dict[str, Tensor], *, rounds: int, batch: int) -> list[Row]:
    """Returns a row for each form: the share of skipped images and the median ratio to ResNet-50's time."""
    resnet = torchvision.models.resnet50(weights=None).eval().to(memory_format=torch.channels_last)
    purifiers = {kind: Purifier.from_pretrained(source, **_options(kind)) for kind in kinds}
    forms: dict[tuple[str, Form | None], Callable[[Tensor], Any]] = {(name, None): resnet for name in sets}
    forms |= {(name, kind): purifier for name in sets for kind, purifier in purifiers.items()}
    times: dict[tuple[str, Form | None], list[float]] = {form: [] for form in forms}
    with torch.inference_mode():
        for number in tqdm(range(rounds + 1), desc="rounds"):
            for (name, kind), call in forms.items():
                took = sum(seconds(call, part) for part in sets[name].split(batch))
                if number:  # the first round warms up
                    times[name, kind].append(took)
    return [
        {
            **_options(kind),
            **{f"{name}_skipped": skipped(purifiers[kind], images) for name, images in sets.items()},
            **{f"{name}_resnet50s": _ratio(times[name, kind], times[name, None]) for name in sets},
        }
        for kind in kinds
    ]


def _options(form: Form) -> dict[str, float]:
    return dict(zip(OPTIONS, form, strict=True))


def _ratio(times: Sequence[float], of_resnet: Sequence[float]) -> float:
    return median(a / b for a, b in zip(times, of_resnet, strict=True))


def markdown(found: dict[str, Any]) -> str:
    """The table of the result file."""
    heads = [
        "gate_bias",
        "gate_floor",
        "gate_threshold",
        "clean images skipped, %",
        "attacked",
        "cost on clean images, ResNet-50s",
        "on attacked ones",
    ]
    rows = [
        [
            f"{row['gate_bias']:g}",
            *(f"{row[name]:.2g}" for name in OPTIONS[1:]),
            *(f"{100 * row[f'{name}_skipped']:.0f}" for name in ("clean", "attacked")),
            *(f"{row[f'{name}_resnet50s']:.2f}" for name in ("clean", "attacked")),
        ]
        for row in found["rows"]
    ]
    return table(heads, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--purifier", default=DEFAULT, metavar="NAME[=FOLDER]")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--name", default="gate_cost_cpu", help="name of the result file")
    args = parser.parse_args(arguments)
    ((name, source),) = kit.sources([args.purifier]).items()
    sets = traffic(args.images)
    found = {
        "settings": vars(args),
        "weights": kit.weights_of({name: Purifier.from_pretrained(source)}),
        "rows": measure(source, FORMS, sets, rounds=args.rounds, batch=args.batch),
        "environment": kit.environment(),
    }
    kit.write_result(args.name, found)
    print(markdown(found))


if __name__ == "__main__":
    main()
