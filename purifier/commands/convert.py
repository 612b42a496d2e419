"""purifier convert: converts a published NRP checkpoint to a folder that `Purifier.from_pretrained` loads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from purifier import Purifier, _format
from purifier._errors import OptionError, WeightsError, shown
from purifier._pickled import load_pickle, plain_tensors
from purifier._random import Unfilled
from purifier._safetensors import sha256
from purifier._version import __version__
from purifier.commands._terminal import echo
from purifier.methods import build

# Keys of a state dict inside a checkpoint; "params_ema" is the moving average, which is the one for inference.
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
# Dictionaries inside one another.
_DEEPEST = 8
_MOST_BYTES = 1 << 30
_SHOWN = 4

_CARD = """\
---
license: unknown
library_name: purifier
tags:
- adversarial-purification
---

# {method}, converted from {file}

The user's own copy of a published checkpoint, converted with `purifier convert` (purifier {version}). Its licence is
unknown: ask the checkpoint's authors before you redistribute it.

- method: `{method}`, {options}, {parameters:,} parameters
- converted from: `{file}`, SHA-256 `{digest}`
- how: the tensors were read without running any code in the file, renamed to this library's names, compared with the
  method's shapes, and written as safetensors in float32; no weight was changed or left out
- paper: Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020,
  <https://arxiv.org/abs/2006.04924>

No figures were measured for this copy. `{method}` was trained to remove perturbations that were made without knowledge
of it; an attacker who knows it can bypass it.

```python
from purifier import Purifier

purify = Purifier.from_pretrained("./{folder}")
```
"""


@dataclass(frozen=True)
class Converted:
    """A purifier that was converted from a checkpoint.

    Attributes:
        folder: Its folder.
        method: "nrp" or "nrp-resg".
        options: The method's options, derived from the tensors' shapes.
        parameters: Number of parameters.
        sha256: SHA-256 of the checkpoint file.
    """

    folder: Path
    method: str
    options: dict[str, int]
    parameters: int
    sha256: str


@click.command("convert")
@click.argument("source", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Write into OUT even if it has files in it.")
def command(source: Path, out: Path, overwrite: bool) -> None:
    """Convert a published NRP checkpoint.

    CHECKPOINT is a .pth file (NRP.pth, NRP_resG.pth, also of Real-ESRGAN's training code) or a .safetensors file. Code
    in it is not run. OUT is the folder to write, which Purifier.from_pretrained(OUT) loads.
    """
    made = convert_checkpoint(source, out, overwrite=overwrite)
    echo(f"converted {source.name} ({made.method}, {made.parameters:,} parameters) to {made.folder}")
    echo(f"load it with Purifier.from_pretrained(Path({str(made.folder)!r}))")


def convert_checkpoint(source: Path, out: Path, *, overwrite: bool = False) -> Converted:
    """Converts a checkpoint file to a purifier's folder, loads the folder and compares every tensor.

    Args:
        source: A .pth or .safetensors file with the state dict of NRP or NRP (resG), possibly inside another dict.
        out: The folder, which is made if it does not exist.
        overwrite: Whether `out` may have files in it.

    Raises:
        UnsafeFileError: If reading the file would run code.
        WeightsError: If the file cannot be read, or is a checkpoint of another network.
        OptionError: If `out` is a file, or a folder with files in it.
    """
    if out.exists() and not out.is_dir():
        raise OptionError(f"expected a folder to write, got {out}, which is a file; give another OUT")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise OptionError(f"expected an empty or a new folder, got {out} with files in it; pass --overwrite")
    method, options, state = identify(rename(unwrap(read_checkpoint(source), source)), source.name)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    made = Converted(out, method, options, sum(tensor.numel() for tensor in state.values()), digest)
    _write(made, state, source.name)
    expected = {key: sha256({key: tensor}) for key, tensor in state.items()}
    # Freed before the weights are loaded once more, so that memory holds them once.
    del state
    loaded = Purifier.from_pretrained(out).method.state_dict()
    different = [key for key in expected if sha256({key: loaded[key]}) != expected[key]]
    if different:
        raise WeightsError(
            f"expected {out} to load the tensors that were written to it, got others for {_some(different)}; the disk "
            "may be failing: convert again into another folder"
        )
    return made


def _write(made: Converted, state: Mapping[str, Tensor], file: str) -> None:
    name, options = made.method, ", ".join(f"{key}={value}" for key, value in made.options.items())
    facts = {"method": name, "options": options, "parameters": made.parameters, "file": file, "digest": made.sha256}
    card = _CARD.format(**facts, version=__version__, folder=made.folder.name)
    config = {"kind": "purifier", "format": _format.FORMAT, "name": name, "method": name, "options": made.options}
    origin = {"converted_from": file, "sha256_of_source": made.sha256, "converted_with": f"purifier {__version__}"}
    _format.write(made.folder, {**config, **origin}, state, card)


def read_checkpoint(path: Path) -> Any:
    """Reads a .safetensors file, or a pickle without running any code in it.

    Raises:
        UnsafeFileError: If the pickle contains code.
        WeightsError: If the file does not exist, is too large or damaged.
    """
    if not path.is_file():
        raise WeightsError(f"expected a checkpoint file, got {path}, which does not exist or is not a file")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise WeightsError(
            f"expected a checkpoint of at most {_MOST_BYTES:,} bytes, got {path.name} of {size:,}; NRP has 66 MB"
        )
    if path.suffix != ".safetensors":
        return load_pickle(path)
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # besides its own errors, safetensors raises KeyError and others for unknown dtypes
        raise WeightsError(
            f"expected a checkpoint that torch.save or safetensors wrote, got {path.name} of {size:,} bytes, which "
            f"cannot be read ({shown(error)}); it may be truncated or another kind of file: download it again"
        ) from None


def unwrap(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in the content of a checkpoint file.

    Args:
        checkpoint: A state dict, or a dict that has one at "params_ema", "params", "state_dict" or "model".
        path: The file.

    Raises:
        WeightsError: If there is no state dict of ordinary tensors.
    """
    found = checkpoint
    for _ in range(_DEEPEST):
        inner = isinstance(found, Mapping) and [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)]
        if not inner:
            break
        found = inner[0]
    others = []
    if isinstance(found, Mapping):
        others = [str(key) for key, value in found.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if not isinstance(found, Mapping) or not found or others:
        got = f"other entries: {_some(others)}" if others else "an empty dict" if found == {} else type(found).__name__
        raise WeightsError(
            f"expected {path.name} to hold a state dict of tensors, bare or in one of {', '.join(_WRAPPERS)}, got "
            f"{got}; save the network's state dict and convert that"
        )
    return plain_tensors(found, path)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the keys of DataParallel, torch.compile and Real-ESRGAN to those of the published checkpoints."""
    renamed = dict(state)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in renamed)), None):
        renamed = {key.removeprefix(prefix): value for key, value in renamed.items()}
    return {re.sub(r"^body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2.", key): value for key, value in renamed.items()}


def identify(state: dict[str, Tensor], name: str) -> tuple[str, dict[str, int], dict[str, Tensor]]:
    """Determines the network of a state dict and its options, and checks every tensor.

    Args:
        state: Tensors by their published names. The network's are removed.
        name: The file's name, for messages.

    Returns:
        The method's name, its options, and the tensors in float32.

    Raises:
        WeightsError: If the network is another one, or the state dict is incomplete.
    """
    method, trunk = _which(state, name)
    numbers = {int(found[1]) for key in state if (found := re.match(rf"{trunk}\.(\d{{1,6}})\.", key))}
    gaps = sorted(set(range(len(numbers))) - numbers)
    if gaps or not numbers:
        raise WeightsError(
            f"expected {name} to have the blocks {trunk}.0, {trunk}.1, ..., got none numbered "
            f"{gaps[0] if gaps else 0}; the checkpoint is incomplete: download it again"
        )
    options = {"filters": _width(state, "conv_first.weight", name), "blocks": len(numbers)}
    if method == "nrp":
        options["growth"] = _width(state, f"{trunk}.0.RDB1.conv1.weight", name)
    try:
        with Unfilled("meta"):
            expected = build({"method": method, "options": options}).state_dict()
    except OptionError as error:
        raise WeightsError(f"expected {name} to be {method} of a usual size: {error}") from None
    shape = ", ".join(f"{key}={value}" for key, value in options.items())
    _compare(expected, state, f"{name} to be {method} with {shape}")
    return method, options, _widened(state, expected)


def _widened(state: dict[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """Moves tensors out of a state dict and to float32, one by one."""
    return {key: state.pop(key).detach().to(torch.float32) for key in keys}


def _which(state: Mapping[str, Tensor], name: str) -> tuple[str, str]:
    for method, trunk in (("nrp", "RRDB_trunk"), ("nrp-resg", "recon_trunk")):
        if any(key.startswith(f"{trunk}.") for key in state):
            return method, trunk
    raise WeightsError(
        f"expected {name} to be NRP (conv_first, RRDB_trunk, trunk_conv) or NRP resG (conv_first, recon_trunk, "
        f"conv_last), got tensors named {_some(state)}; only these two networks can be converted"
    )


def _width(state: Mapping[str, Tensor], key: str, name: str) -> int:
    if key not in state or state[key].ndim != 4:
        got = "none" if key not in state else f"one of shape {tuple(state[key].shape)}"
        raise WeightsError(
            f"expected {name} to have a convolution {key} of shape (out, in, 3, 3), got {got}; the checkpoint is "
            "incomplete or of another network"
        )
    return state[key].shape[0]


def _compare(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raises one WeightsError that names every difference between `state` and `expected`."""
    wrong = []
    if missing := [key for key in expected if key not in state]:
        wrong.append(f"no {_some(missing)}")
    if unknown := [key for key in state if key not in expected]:
        wrong.append(f"the unknown {_some(unknown)}")
    shared = [key for key in expected if key in state]
    shapes = [
        f"{key} of shape {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in shared
        if state[key].shape != expected[key].shape
    ]
    if shapes:
        wrong.append(_some(shapes))
    if kinds := [f"{key} of {state[key].dtype}" for key in shared if not state[key].is_floating_point()]:
        wrong.append(_some(kinds))
    elif values := [key for key in shared if not bool(state[key].isfinite().all())]:
        wrong.append(f"values that are not finite in {_some(values)}")
    if wrong:
        raise WeightsError(
            f"expected {what}, got {'; '.join(wrong)}; the checkpoint is incomplete, or of a network that cannot be "
            "converted"
        )


def _some(names: Any) -> str:
    """Returns the first few names and how many more there are."""
    listed = [name if len(name) < 200 else shown(name) for name in names]
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest
