"""What the benchmarks share: the kit's images and models (see KIT.md), and result files that say how they were made."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import purifier
from purifier import Purifier
from purifier._files import write_text
from purifier._identity import weights_sha256
from purifier.data.images import to_tensor
from purifier.evaluation import LabelledImages, labelled_images
from purifier.evaluation.metrics.classification import interval

# Options of alloys that purify every image, whatever their gate says.
OPEN_GATE = {"gate_bias": 20.0, "gate_threshold": 0.0}
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def kit() -> Path:
    """Returns the folder that PURIFIER_KIT names."""
    folder = os.environ.get("PURIFIER_KIT")
    if not folder or not Path(folder).is_dir():
        raise SystemExit(f"expected PURIFIER_KIT=<folder> with the kit of benchmarks/KIT.md, got {folder!r}")
    return Path(folder)


def kit_module() -> Any:
    """Imports the kit's loaders, kit_models.py."""
    spec = importlib.util.spec_from_file_location("kit_models", kit() / "kit_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(name: str, device: str | torch.device = "cpu") -> nn.Module:
    """Loads one of the kit's models: RGB in [0, 1] in, eval mode, no parameter gradients."""
    return getattr(kit_module(), name)().requires_grad_(False).to(device, memory_format=torch.channels_last)


def classified(count: int) -> LabelledImages:
    """Returns the first `count` of the 400 evaluation images, 224 x 224, with their ImageNet labels."""
    folder = kit() / "imagenet_nips400"
    found = labelled_images(folder / "images", 224, labels=folder / "labels.csv")
    return found.pick(range(min(count, len(found))))


def imagenet(count: int, size: int = 224) -> tuple[Tensor, Tensor]:
    """Returns those images (N, 3, size, size) resized by Pillow, and their labels."""
    data, images = classified(count), []
    for path in data.files:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            images.append(to_tensor(np.asarray(resized)))
    return torch.stack(images), torch.tensor(data.labels)


def photographs() -> tuple[str, ...]:
    """Returns the kit's folders of photographs to train on; a smaller kit may lack objects/train."""
    return tuple(str(kit() / name) for name in ("photos", "objects/train") if (kit() / name).is_dir())


@torch.inference_mode()
def correct(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 20) -> int:
    """Counts the images that the network classifies correctly."""
    pairs = zip(images.split(batch), labels.split(batch), strict=True)
    return sum(int((network(x).argmax(1) == y).sum()) for x, y in pairs)


def environment() -> dict[str, Any]:
    """Returns versions, commit and machine, for the result file."""
    changes = _git("status", "--porcelain", "--", "purifier", "weights", "benchmarks/*.py")
    return {
        "purifier": purifier.__version__,
        "commit": _git("rev-parse", "HEAD") or "",
        "uncommitted_changes": None if changes is None else bool(changes),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _git(*command: str) -> str | None:
    """Returns what a git command prints; None without git, or outside a repository."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, cwd=ROOT)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def weights_of(purifiers: Mapping[str, Purifier]) -> dict[str, str]:
    """Returns the SHA-256 of each purifier's weights, by which `tables --check` finds stale results."""
    return {name: weights_sha256(purifier.method) for name, purifier in purifiers.items()}


def read_result(name: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """Reads benchmarks/results/<name>.json; returns `missing` if it is given and there is no such file."""
    path = RESULTS / f"{name}.json"
    if missing is not None and not path.exists():
        return missing
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def as_folder(name: str) -> str:
    """Returns a name as that of a folder: letters and digits stay, all else becomes a hyphen."""
    return "".join(c if c.isalnum() else "-" for c in name)


def result_names(pattern: str) -> list[str]:
    """Returns the names of the results that match a glob pattern, sorted."""
    return sorted(path.stem for path in RESULTS.glob(f"{pattern}.json"))


def share(hits: int, of: int) -> dict[str, Any]:
    """Returns a share and its 95 % interval as result files hold them."""
    return {"share": hits / of, "interval": list(interval(hits, of))}


def write_result(name: str, result: dict[str, Any]) -> None:
    """Writes benchmarks/results/<name>.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"{name}.json", json.dumps(result, indent=1) + "\n")


def sources(given: Sequence[str]) -> dict[str, str]:
    """Reads NAME[=FOLDER] arguments: the names of purifiers, and for each the name or folder to load."""
    return {text.partition("=")[0]: text.partition("=")[2] or text for text in given}


def load_sources(given: Sequence[str]) -> dict[str, Purifier]:
    """Loads the purifiers of NAME[=FOLDER] arguments."""
    return {name: Purifier.from_pretrained(source) for name, source in sources(given).items()}
