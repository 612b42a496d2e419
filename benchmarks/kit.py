"""What the benchmark scripts share: the kit's images and models, and results that say how they were made."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import purifier
from purifier._files import write_text

RESULTS = Path(__file__).parent / "results"


def kit() -> Path:
    """Returns the folder that PURIFIER_KIT names."""
    folder = os.environ.get("PURIFIER_KIT")
    if not folder or not Path(folder).is_dir():
        raise SystemExit("expected PURIFIER_KIT=<folder> with the measuring kit, got " + repr(folder))
    return Path(folder)


def kit_module() -> Any:
    """Imports the kit's loaders."""
    spec = importlib.util.spec_from_file_location("kit_models", kit() / "kit_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(name: str, device: str | torch.device = "cpu") -> nn.Module:
    """Loads one of the kit's models: RGB in [0, 1] in, eval mode, no parameter gradients."""
    return getattr(kit_module(), name)().requires_grad_(False).to(device, memory_format=torch.channels_last)


def imagenet(count: int, size: int = 224) -> tuple[Tensor, Tensor]:
    """Returns the first `count` of the 400 evaluation images (N, 3, size, size) and their labels."""
    from purifier.data.images import to_tensor

    folder = kit() / "imagenet_nips400"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:count]
    images = []
    for row in rows:
        with Image.open(folder / "images" / row["file"]) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            images.append(to_tensor(np.asarray(resized)))
    return torch.stack(images), torch.tensor([int(row["label"]) for row in rows])


@torch.inference_mode()
def correct(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 20) -> int:
    """Counts the images that the network gets right."""
    pairs = zip(images.split(batch), labels.split(batch), strict=True)
    return sum(int((network(x).argmax(1) == y).sum()) for x, y in pairs)


def interval(right: int, count: int) -> tuple[float, float]:
    """95 % Wilson interval of right / count."""
    z, p = 1.96, right / count
    middle, reach = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low, high = ((middle + side * reach) / (1 + z * z / count) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def environment() -> dict[str, Any]:
    """Versions, commit and machine, for the result file."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS)
    return {
        "purifier": purifier.__version__,
        "commit": git.stdout.strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def begun_result(path: Path, settings: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Reads a result file to go on from, or starts one with these rows; refuses one of other settings."""
    result: dict[str, Any] = {"settings": settings, "weights": {}, "rows": rows}
    if path.exists():
        result = json.loads(path.read_text())
    if result["settings"] != settings:
        raise SystemExit(f"{path} was made with {result['settings']}, not {settings}; choose another --name")
    return result


def write_result(name: str, result: dict[str, Any]) -> None:
    """Writes benchmarks/results/<name>.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"{name}.json", json.dumps(result, indent=1) + "\n")


def sources(given: Sequence[str]) -> dict[str, str]:
    """Reads NAME[=FOLDER] into names of purifiers, and for each what to load."""
    return {text.partition("=")[0]: text.partition("=")[2] or text for text in given}


class _Scaled(nn.Module):
    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images)


def feature_extractor() -> nn.Module:
    """VGG-19 up to relu3_3, scaled so that its mean feature over the kit's photographs is 1.

    Its own scale is 380 times that, beside which the pixel loss and the critic would count for nothing.
    """
    return _Scaled(kit_module().vgg19_features(16).requires_grad_(False), 1 / 380).eval()


class _Out(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)["out"]
        return found


def deeplab() -> nn.Module:
    """DeepLabV3's logits (N, 21, H, W)."""
    return _Out(model("deeplabv3_voc")).eval()


class _Centre(nn.Module):
    """A network that sees the middle of an image, half as high and as wide."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows, columns = (slice(size // 4, size // 4 + -(-size // 2)) for size in (height, width))
        found: Tensor = self.network(images[..., rows, columns])
        return found


def centre_extractor() -> nn.Module:
    """`feature_extractor` on the middle quarter of a crop: as good a sample of its loss, at a quarter of the cost."""
    return _Centre(feature_extractor()).eval()


def mobilenet() -> nn.Module:
    """MobileNetV2: logits, and at layer "net.features" its last convolutional features.

    On a CPU it computes in float32 also where others run in half precision, which slows depthwise convolutions there.
    """
    network = model("mobilenet_v2")
    given = network.forward

    def forward(images: Tensor) -> Tensor:
        if images.device.type != "cpu":
            return given(images)
        with torch.autocast("cpu", enabled=False):
            return given(images.float())

    network.forward = forward  # type: ignore[method-assign]
    return network
