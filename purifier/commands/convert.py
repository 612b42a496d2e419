"""purifier convert: a published NRP checkpoint becomes a folder that `Purifier.from_pretrained` loads."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError, UnsafeFileError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Where checkpoints keep their state dict; the running average of the weights is what such networks are used with.
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
# What torch's restricted unpickler says of a pickle that wants to call something, as opposed to a damaged one.
_CODE = re.compile(r"unsupported global|whose module|unrecognized function|can only (create|build)|TorchScript", re.I)
_NAME = re.compile(r"(?:GLOBAL|function|but got) (?:<[a-z-]+ )?'?([\w.]+)")
_SHOWN = 4

_CARD = """\
---
license: unknown
library_name: purifier
tags:
- adversarial-purification
---

# {title}

The user's own copy of a published checkpoint, converted with `purifier convert` (purifier {version}). Its licence is
unknown to the converter: ask the checkpoint's authors before passing it on.

- method: `{method}`, {options}, {parameters:,} parameters
- converted from: `{file}`, SHA-256 `{digest}`
- how: the tensors were read without running any code in the file, their names mapped to this library's, their shapes
  checked against the method, and written as safetensors in float32; no weight was trained or left out
- paper: Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020

No figures were measured for this copy. `{method}` learned to remove perturbations made without knowledge of it; an
attacker who knows it can bypass it.

```python
from purifier import Purifier

purify = Purifier.from_pretrained("./{folder}")
```
"""


@dataclass(frozen=True)
class Converted:
    """What `convert_checkpoint` made.

    Attributes:
        folder: Where it is.
        method: "nrp" or "nrp-resg".
        options: The method's options, read off the tensors' shapes.
        parameters: How many numbers the weights are.
        sha256: Digest of the source file.
    """

    folder: Path
    method: str
    options: dict[str, int]
    parameters: int
    sha256: str


@click.command("convert")
@click.argument("source", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Write into OUT although there is something in it.")
def command(source: Path, out: Path, overwrite: bool) -> None:
    """Convert a published NRP checkpoint.

    CHECKPOINT is a .pth file (NRP.pth, NRP_resG.pth, also out of Real-ESRGAN's training code) or a .safetensors file;
    no code in it is run. OUT is the folder to write, which Purifier.from_pretrained(OUT) loads.
    """
    made = convert_checkpoint(source, out, overwrite=overwrite)
    click.echo(f"converted {source.name} ({made.method}, {made.parameters:,} parameters) to {made.folder}")
    click.echo(f"load it with Purifier.from_pretrained(Path({str(made.folder)!r}))")


def convert_checkpoint(source: Path, out: Path, *, overwrite: bool = False) -> Converted:
    """Turns a checkpoint file into a purifier's folder, loads that back and compares every tensor.

    Args:
        source: A .pth or .safetensors file with the state dict of NRP or NRP (resG), possibly wrapped.
        out: The folder; made if it is not there.
        overwrite: Whether `out` may have something in it.

    Raises:
        UnsafeFileError: The file would run code if it were read.
        WeightsError: It cannot be read, or is of another network.
        OptionError: `out` is not empty.
    """
    import torch

    from purifier import Purifier, _format
    from purifier._version import __version__

    if out.exists() and not out.is_dir():
        raise OptionError(f"expected a folder to write, got {out}, which is a file; give another OUT")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise OptionError(f"expected an empty or a new folder, got {out} with something in it; pass --overwrite")
    digest = _digest(source)
    method, options, state = identify(rename(unwrap(read_checkpoint(source), source.name)), source.name)
    parameters = sum(tensor.numel() for tensor in state.values())
    card = _CARD.format(
        title=f"{method}, converted from {source.name}",
        version=__version__,
        method=method,
        options=", ".join(f"{key}={value}" for key, value in options.items()),
        parameters=parameters,
        file=source.name,
        digest=digest,
        folder=out.name,
    )
    config = {"kind": "purifier", "format": _format.FORMAT, "name": method, "method": method, "options": options}
    origin = {"converted_from": source.name, "sha256_of_source": digest, "converted_with": f"purifier {__version__}"}
    try:
        _format.write(out, {**config, **origin}, state, card)
    except OSError as error:
        raise WeightsError(f"expected a folder that can be written, got {out}: {error}") from error
    loaded = Purifier.from_pretrained(out).method.state_dict()
    different = [key for key in state if not torch.equal(loaded[key], state[key])]
    if different:
        raise WeightsError(
            f"expected {out} to load the tensors that were written to it, got others for {_some(different)}; the disk "
            "may be failing: convert again into another folder"
        )
    return Converted(out, method, options, parameters, digest)


def read_checkpoint(path: Path) -> Any:
    """Reads a .safetensors file, or a pickle without running any code in it.

    Raises:
        UnsafeFileError: The pickle wants to call something.
        WeightsError: The file is not there or is damaged.
    """
    if not path.is_file():
        raise WeightsError(f"expected a checkpoint file, got {path}, which is not there or not a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        with warnings.catch_warnings():
            # torch announces what it then refuses.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives and pickles raise all kinds of errors
        if isinstance(error, RuntimeError | pickle.UnpicklingError) and _CODE.search(str(error)):
            raise _unsafe(path, str(error)) from None
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        raise WeightsError(
            f"expected a checkpoint that torch.save or safetensors wrote, got {path.name} of {path.stat().st_size:,} "
            f"bytes, which cannot be read ({reason[:200]}); it may be cut short or another kind of file: download it "
            "again"
        ) from None


def _unsafe(path: Path, reason: str) -> UnsafeFileError:
    if "TorchScript" in reason:
        holds = "a TorchScript program"
    else:
        name = _NAME.search(reason)
        holds = f"a call of {name[1].rstrip('.')}" if name else "a call of something"
    return UnsafeFileError(
        f"expected a file with nothing but tensors, got {path.name}, which holds {holds} and would run code if it were "
        "read; it was not run. Save the bare state dict where you trust the file "
        "(torch.save(model.state_dict(), 'weights.pth')) and convert that"
    )


def unwrap(checkpoint: Any, name: str) -> dict[str, Tensor]:
    """Finds the state dict in what a checkpoint file held.

    Args:
        checkpoint: The file's content: a state dict, or one inside "params_ema", "params", "state_dict" or "model".
        name: The file's name, for messages.

    Raises:
        WeightsError: There is none.
    """
    import torch

    found = checkpoint
    while isinstance(found, Mapping):
        inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not found:
        got = "nothing" if isinstance(found, Mapping) else type(found).__name__
        raise WeightsError(
            f"expected {name} to hold a state dict, bare or in one of {', '.join(_WRAPPERS)}, got {got}; save the "
            "network's state dict and convert that"
        )
    others = [str(k) for k, value in found.items() if not (isinstance(k, str) and isinstance(value, torch.Tensor))]
    if others:
        raise WeightsError(
            f"expected {name} to hold a state dict of tensors, bare or in one of {', '.join(_WRAPPERS)}, got other "
            f"entries: {_some(others)}; save the network's state dict and convert that"
        )
    return dict(found)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps key names of DataParallel, torch.compile and Real-ESRGAN to those of the published checkpoints."""
    renamed = dict(state)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in renamed)), None):
        renamed = {key.removeprefix(prefix): value for key, value in renamed.items()}
    return {re.sub(r"^body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2.", key): value for key, value in renamed.items()}


def identify(state: Mapping[str, Tensor], name: str) -> tuple[str, dict[str, int], dict[str, Tensor]]:
    """Tells which network a state dict is of, reads its options off the shapes and checks every tensor.

    Args:
        state: Tensors under the published names.
        name: The file's name, for messages.

    Returns:
        The method's name, its options, and the tensors in float32.

    Raises:
        WeightsError: It is of another network, or is not whole.
    """
    import torch

    from purifier.methods import build

    method, trunk = _which(state, name)
    numbers = {int(found[1]) for key in state if (found := re.match(rf"{trunk}\.(\d{{1,6}})\.", key))}
    gaps = sorted(set(range(len(numbers))) - numbers)
    if gaps or not numbers:
        raise WeightsError(
            f"expected {name} to have the blocks {trunk}.0, {trunk}.1, ..., got none numbered "
            f"{gaps[0] if gaps else 0}; the checkpoint is not whole: download it again"
        )
    options = {"filters": _width(state, "conv_first.weight", name), "blocks": len(numbers)}
    if method == "nrp":
        options["growth"] = _width(state, f"{trunk}.0.RDB1.conv1.weight", name)
    with torch.device("meta"):
        expected = build({"method": method, "options": options}).state_dict()
    shape = ", ".join(f"{key}={value}" for key, value in options.items())
    _compare(expected, state, f"{name} to be {method} with {shape}")
    return method, options, {key: state[key].detach().to(torch.float32) for key in expected}


def _which(state: Mapping[str, Tensor], name: str) -> tuple[str, str]:
    for method, trunk in (("nrp", "RRDB_trunk"), ("nrp-resg", "recon_trunk")):
        if any(key.startswith(f"{trunk}.") for key in state):
            return method, trunk
    raise WeightsError(
        f"expected {name} to be NRP (conv_first, RRDB_trunk, trunk_conv) or NRP resG (conv_first, recon_trunk, "
        f"conv_last), got tensors called {_some(state)}; only those two networks are converted"
    )


def _width(state: Mapping[str, Tensor], key: str, name: str) -> int:
    if key not in state or state[key].ndim != 4:
        got = "none" if key not in state else f"one of shape {tuple(state[key].shape)}"
        raise WeightsError(
            f"expected {name} to have a convolution {key} of shape (out, in, 3, 3), got {got}; the checkpoint is not "
            "whole or of another network"
        )
    return state[key].shape[0]


def _compare(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raises one WeightsError that names everything by which `state` differs from `expected`."""
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
            f"expected {what}, got {'; '.join(wrong)}; the checkpoint is not whole, or of another network that is not "
            "converted"
        )


def _some(names: Any) -> str:
    """The first few names and how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest


def _digest(path: Path) -> str:
    if not path.is_file():
        raise WeightsError(f"expected a checkpoint file, got {path}, which is not there or not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
