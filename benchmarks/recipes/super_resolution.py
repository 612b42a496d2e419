"""Makes weights/wavelet-sr of the network that `npm pack @upscalerjs/esrgan-slim` downloads (MIT licence).

    npm pack @upscalerjs/esrgan-slim && tar xzf upscalerjs-esrgan-slim-1.0.0.tgz
    PURIFIER_KIT=<folder> python -m benchmarks.recipes.super_resolution package --out weights/wavelet-sr

Prints the PSNR of photographs that were shrunk to half their size and enlarged again, by the network and by bicubic
interpolation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kit import photographs
from benchmarks.recipes.alloy_judge import held_out
from purifier import Purifier
from purifier.methods.wavelet_sr import WaveletSR
from purifier.training.settings import PhotographTraining
from purifier.training.validation import psnr

# Layers of the published network, in the order of ours.
ONCE = {
    "F_m1": "first", "F_0": "second", "GFF_1": "fuse.0", "GFF_2": "fuse.1",
    "UPN1": "head.0", "UPN2": "head.2", "UPN3": "head.4", "SR": "last",
}  # fmt: skip


def names(layers: int) -> dict[str, str]:
    """Returns our names of the published layers."""
    dense = {f"F_{k + 1}_1": f"layers.{k}.grow" for k in range(layers)}
    return ONCE | dense | {f"LFF_{k + 1}": f"layers.{k}.join" for k in range(layers)}


def read_weights(folder: Path, layers: int) -> dict[str, Tensor]:
    """Reads the weights of a tfjs model in `folder`.

    The published network takes values in [0, 255]. With biases divided by 255 it takes values in [0, 1] and is
    otherwise the same, because its only nonlinearity is the ReLU.
    """
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"]
    values = np.concatenate([np.fromfile(folder / path, np.float32) for group in manifest for path in group["paths"]])
    known, found, start = names(layers), {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        end = start + int(np.prod(entry["shape"]))
        value = torch.from_numpy(values[start:end].reshape(entry["shape"]).copy())
        start = end
        layer, kind = entry["name"].split("/")
        if kind == "kernel":
            found[f"{known[layer]}.weight"] = value.permute(3, 2, 0, 1).contiguous()
        else:
            found[f"{known[layer]}.bias"] = value / 255
    return found


@torch.no_grad()
def compare(method: WaveletSR, images: Tensor) -> dict[str, float]:
    """Returns the PSNR, in dB, of images (N, 3, H, W) that were shrunk and enlarged again."""
    small = F.interpolate(images, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    found = {"network": method.network(small), "bicubic": F.interpolate(small, scale_factor=2, mode="bicubic")}
    return {name: psnr(enlarged.clamp(0, 1), images) for name, enlarged in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    method = WaveletSR()
    method.network.load_state_dict(read_weights(args.package / "models" / "x2", method.layers))
    Purifier(method, name="wavelet-sr").save_pretrained(args.out)
    images = held_out(PhotographTraining(data=photographs()), 48)
    for name, value in compare(method, images).items():
        print(f"{name}: {value:.2f} dB on {len(images)} photographs")


if __name__ == "__main__":
    main()
