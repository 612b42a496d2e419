"""Small purifiers with seeded weights, images and hub caches."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import Purifier, _hub
from purifier.methods import METHODS, Method

# Options that make a method small. Methods that are not listed are small by default.
SMALL: dict[str, dict[str, Any]] = {
    "alloy": {"filters": 6, "blocks": 2},
    "gad": {"filters": 4, "blocks": 2},
    "gad-residual": {"filters": 4, "blocks": 1},
    "gs": {"iterations": 3},
    "ncis": {"iterations": 2, "filters": 6, "layers": 4, "kernel_size": 5},
    "nrp": {"filters": 6, "blocks": 2, "growth": 4},
    "nrp-resg": {"filters": 6, "blocks": 2},
    "tvm": {"steps": 10},
    "wavelet-sr": {"filters": 6, "growth": 2, "layers": 2},
}
CASES = [*sorted(METHODS), "dynamic"]


def small_method(name: str, **options: Any) -> Method:
    """Builds a method with seeded random weights and outputs that lie mostly in (0, 1)."""
    torch.manual_seed(7)
    if name == "chain":
        return METHODS["chain"]([small_method("gs"), small_method("ncis"), small_method("median")])  # type: ignore[call-arg]
    if name == "gated":
        options = {"method": small_method("ncis"), "gate": 3, **options}
    method = METHODS[name](**{**SMALL.get(name, {}), **options})
    enliven(method)
    return method


def enliven(module: nn.Module) -> None:
    """Randomises biases and PReLU slopes, and scales the last convolution to the range of an image."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.PReLU):
                part.weight.uniform_(0.1, 0.5)
            elif isinstance(part, nn.Conv2d) and part.bias is not None:
                part.bias.normal_(std=0.1)
        if convolutions:
            last = convolutions[-1]
            if not last.weight.any():
                last.weight.normal_(std=0.3)
            last.weight.mul_(0.1)
            # The network of NCIS outputs a change of a smoothed image, the others output the image.
            if last.bias is not None and not any("out_conv" in name for name, _ in module.named_modules()):
                last.bias.add_(0.5)


@contextmanager
def stand_in(folder: Path) -> Iterator[None]:
    """Bundles only the purifier "gs", and "soft", which loads "gs"."""
    for name in ("soft", "gs"):
        Purifier(METHODS["gs"](iterations=2), name=name).save_pretrained(folder / name)
    config = folder / "soft" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "trained": False, "stand_in": "gs"}))
    with pytest.MonkeyPatch.context() as patch:
        files = _hub.resources.files
        patch.setattr(_hub.resources, "files", lambda name: folder if name == "purifier.weights" else files(name))
        patch.setattr(_hub, "warn_once", lambda *arguments, **options: None)
        yield


def small_purifier(case: str) -> Purifier:
    """Builds one of `CASES`."""
    if case == "chain":
        return Purifier.chain(*(small_purifier(name) for name in ("gs", "ncis", "median")))
    if case == "dynamic":
        return small_purifier("ncis").dynamic(sigma=0.05, eps=16 / 255)
    return Purifier(small_method(case))


def seeded(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns the function with torch's generator seeded before every call."""

    def call(images: Tensor) -> Tensor:
        torch.manual_seed(1)
        return function(images)

    return call


def pictures(
    *shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0, dtype: torch.dtype | None = None
) -> Tensor:
    """Random images, uniform in [low, high]."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Checks that a module's parameters, buffers, modes, hooks and requires_grad are the same afterwards."""
    before = _facts(module)
    values = {key: value.clone() for key, value in module.state_dict().items() if not value.is_meta}
    yield
    assert _facts(module) == before
    after = module.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in values.items())


def _facts(module: nn.Module) -> list[Any]:
    return [
        (
            name,
            id(part),
            part.training,
            len(part._forward_hooks),
            len(part._forward_pre_hooks),
            len(part._backward_hooks),
        )
        for name, part in module.named_modules()
    ] + [
        (name, id(value), value.dtype, value.device, value.requires_grad, value.grad is None, value._version)
        for name, value in [*module.named_parameters(), *module.named_buffers()]
    ]


def edit_config(folder: Path, **changes: Any) -> None:
    """Changes values of a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rehash(folder: Path) -> None:
    """Updates the hashes in config.json to the present weights files."""
    edit_config(
        folder, files={f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.safetensors")}
    )


def fake_hub(cache: Path, repo: str, folder: Path, commit: str = "a" * 40, branch: str = "main") -> None:
    """Puts a folder into a hub cache, in the layout of huggingface_hub."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(commit)
    shutil.copytree(folder, root / "snapshots" / commit)


def lock_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes the folders of one name unreadable, for root too."""
    scanned = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return scanned(path)

    monkeypatch.setattr(os, "scandir", refusing)
