"""Export of a purifier, or a model behind one, as a file that runs without this library.

The graph takes float32 images (N, 3, H, W). It contains the final clamp to [0, 1], but no checks of the images.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from purifier import _format
from purifier._convention import Convention
from purifier._errors import OptionError, PurifierError
from purifier._files import temporary_folder
from purifier._version import __version__
from purifier.inference import _graphs
from purifier.methods import Method, innermost

__all__ = ["Exported", "export", "read_metadata"]

FORMATS = ("onnx", "torch-export")
# The opset that the exporter writes. Newer ones are converted from it.
DEFAULT_OPSET = 18
# Largest difference, absolute or relative to the largest output, between a file's outputs and the module's.
TOLERANCE = 1e-4
# Sizes of the example images if the size stays open. A classifier may refuse small images.
_PURIFIER_SIZE = (32, 48)
_MODEL_SIZE = (224, 256)
_ODD_SIZE = (33, 47)


@dataclass(frozen=True)
class Exported:
    """A file that `export` wrote.

    Attributes:
        path: The file.
        metadata: Its metadata; see `read_metadata`.
        difference: Largest absolute difference between its outputs and the module's on random images. None if ONNX
            Runtime is not installed.
    """

    path: Path
    metadata: dict[str, str]
    difference: float | None


def export(
    target: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str = "onnx",
    size: tuple[int, int] | None = None,
    opset: int | None = None,
) -> Exported:
    """Writes a purifier, or a model behind one, as a file that runs without this library.

    The file takes `images`, float32 (N, 3, H, W): RGB in [0, 1], or the normalised images of a model that was wrapped
    with mean and std. Its output is `purified`, of the same shape and in [0, 1], or the output of the model. Images are
    not checked. The file is written after its outputs on random images were compared with the module's. The module
    does not change; a copy of a module on a GPU is exported from the CPU.

    Args:
        target: A `Purifier`, or a model that `wrap` returned.
        path: The file to write. An existing file is replaced.
        format: "onnx", or "torch-export" for `torch.export.load`.
        size: Height and width, for models that need a fixed size. None leaves them open, like the batch size.
        opset: ONNX operator set, 18 or newer. None means 18.

    Raises:
        OptionError: If the target cannot be captured as a graph, is in training mode or not in float32, or if an
            option is out of its range.
        PurifierError: If a package is missing, the file cannot be written, or its outputs differ from the module's.

    Example:
        >>> import tempfile
        >>> from purifier import Purifier
        >>> from purifier.inference.export import export
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(Purifier.from_pretrained("bit-depth"), f"{folder}/b.pt2", format="torch-export").difference
        0.0
    """
    opset = _check_options(Path(path), format, size, opset)
    _check_target(target, _purifier_of(target))
    return _write(_on_cpu(target), Path(path), format, size, opset)


def _write(target: nn.Module, path: Path, format: str, size: tuple[int, int] | None, opset: int) -> Exported:
    alone = target is _purifier_of(target)
    traced = size or (_PURIFIER_SIZE if alone else _MODEL_SIZE)
    program = _graphs.capture(target, traced, any_size=size is None)
    metadata = _describe(target, format, size, _graphs.smallest_size(program), opset)
    with drafted(path) as draft:
        if format == "onnx":
            _graphs.write_onnx(program, draft, metadata, opset=opset, output="purified" if alone else "output")
        else:
            _graphs.write_torch_export(program, draft, metadata, size is None)
        difference = _compare(target, draft, format, {traced} if size or not alone else {traced, _ODD_SIZE})
    return Exported(path, metadata, difference)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the metadata of a file that `export` wrote.

    Args:
        path: An ONNX or torch-export file. It is not run, and its weights are not loaded.

    Returns:
        kind ("purifier" or "wrapped model"); name; config, the JSON of config.json with method, options and the
        SHA-256 of every weights file; sha256, that of the weights (see `files_sha256`); version of this library;
        torch, its version; opset (ONNX only); input, the images that it takes, with mean and std if it has any;
        size, "any" or HEIGHTxWIDTH; smallest_size; model, the type of the wrapped model.

    Raises:
        OptionError: If the file does not exist.
        WeightsError: If `export` did not write it.
        PurifierError: If the package onnx is missing.
    """
    if not Path(path).is_file():
        raise OptionError(f"expected a file from purifier export, got {os.fspath(path)!r}, which does not exist")
    return _graphs.read_metadata(Path(path))


def files_sha256(digests: Mapping[str, str]) -> str:
    """Returns one SHA-256 for all weights files of a purifier.

    Args:
        digests: SHA-256 of every weights file that `save_pretrained` writes, by name, as in config.json.

    Returns:
        The SHA-256 of the file if there is one file; otherwise that of the lines "DIGEST  NAME", sorted by name, as
        sha256sum writes them. A purifier without weights has no lines.
    """
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _check_options(path: Path, format: str, size: tuple[int, int] | None, opset: int | None) -> int:
    if format not in FORMATS:
        raise OptionError(f"expected format to be one of {', '.join(FORMATS)}, got {format!r}")
    if opset is not None and format != "onnx":
        raise OptionError(f"expected no opset with format {format!r}, got {opset}; only ONNX has opsets")
    opset = DEFAULT_OPSET if opset is None else opset
    if isinstance(opset, bool) or not isinstance(opset, int) or opset < DEFAULT_OPSET:
        raise OptionError(f"expected opset to be an integer of at least {DEFAULT_OPSET}, got {opset!r}")
    if size is not None and not (len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise OptionError(f"expected size as height and width in pixels, got {size!r}")
    if path.is_dir():
        raise OptionError(f"expected a file to write, got {path}, which is a folder; name a file in it")
    return opset


def _purifier_of(target: Any) -> Any:
    purifier = getattr(target, "purifier", target)
    if not isinstance(getattr(purifier, "method", None), Method):
        raise OptionError(
            f"expected a Purifier or a model that purifier.wrap returned, got {type(target).__name__}; wrap it first; "
            "if it has one attached, remove that before: handle.remove()"
        )
    return purifier


def _check_target(target: nn.Module, purifier: Any) -> None:
    for leaf in innermost(purifier.method):
        if leaf.export_obstacle is not None:
            raise OptionError(
                f"expected a purifier that can be exported as a graph, got {purifier.name!r}: {leaf.export_obstacle}, "
                "so no graph can hold it; export the purifier without it, and run it in Python"
            )
    model = getattr(target, "model", None)
    if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
        raise OptionError(
            "expected a model in eval mode, got one (or a part of one) in training mode; call eval() on it"
        )
    values = [*target.parameters(), *target.buffers()]
    others = {value.dtype for value in values if value.is_floating_point()} - {torch.float32}
    if others:
        raise OptionError(
            f"expected a purifier and a model in float32 to export, got {', '.join(sorted(map(str, others)))}; convert "
            "them with .float(), or load the purifier with dtype='float32'"
        )


def _on_cpu(target: nn.Module) -> nn.Module:
    places = {value.device.type for value in (*target.parameters(), *target.buffers())}
    return target if places <= {"cpu"} else copy.deepcopy(target).to("cpu")


def _describe(
    target: Any, format: str, size: tuple[int, int] | None, smallest: tuple[int, int], opset: int
) -> dict[str, str]:
    purifier = _purifier_of(target)
    alone = target is purifier
    digests = _format.digests(purifier.method.state_dict())
    described = {
        "kind": "purifier" if alone else "wrapped model",
        "name": purifier.name,
        "config": json.dumps({**purifier._config(), "files": digests}),
        "sha256": files_sha256(digests),
        "version": __version__,
        "torch": str(torch.__version__),
        "input": _input_of(target),
        "size": _show(size) if size else "any",
        "smallest_size": _show(smallest),
    }
    if format == "onnx":
        described["opset"] = str(opset)
    if not alone:
        described["model"] = type(target.model).__name__
        if target.mean is not None:
            described |= {"mean": json.dumps(target.mean), "std": json.dumps(target.std)}
    return described


def _input_of(target: Any) -> str:
    convention = getattr(target, "convention", Convention())
    text = f"float32 (N, 3, H, W), {convention.channels}, "
    if convention.normalisation is None:
        return text + "in [0, 1]"
    order = ", with mean and std in the order of RGB" if convention.channels != "RGB" else ""
    return f"{text}(x - mean) / std of x in [0, 1]{order}"


def _show(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yields a file in a new folder, and moves it to `path` at the end unless there was an error.

    Other files in that folder, into which ONNX may write weights, are moved beside it first.

    Raises:
        PurifierError: If the place cannot be written.
    """
    # The folder is beside the file, so that the move is atomic.
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(temporary_folder(path))
        except OSError as error:
            raise PurifierError(f"expected a place that can be written, got {path}: {error}") from error
        yield folder / path.name
        try:
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                file.replace(path.with_name(file.name))
        except OSError as error:
            raise PurifierError(f"expected a file that can be written, got {path}: {error}") from error


def _compare(target: Any, draft: Path, format: str, sizes: set[tuple[int, int]]) -> float | None:
    """Runs the file on random images. Returns the largest difference, or None without ONNX Runtime."""
    if format == "onnx" and find_spec("onnxruntime") is None:
        return None
    # Rounding methods turn a difference in the last bit into one of a whole level.
    exact = all(leaf.differentiable for leaf in innermost(_purifier_of(target).method))
    images = [_random_images(target, size) for size in sorted(sizes)]
    return max(check_outputs(target, draft, format, one, exact=exact) for one in images)


def check_outputs(target: nn.Module, draft: Path, format: str, images: Tensor, *, exact: bool = True) -> float:
    """Runs a file on images, and returns the largest difference from the module's outputs.

    Raises:
        PurifierError: If the file does not run, or its outputs differ by more than `TOLERANCE` and are `exact`.
    """
    run = _graphs.run_onnx if format == "onnx" else _graphs.run_torch_export
    with torch.inference_mode():
        expected = pytree.tree_leaves(target(images))
    try:
        got = run(draft, images)
    except Exception as error:  # the runtime's own errors
        raise PurifierError(
            f"expected a file that runs, got {_graphs._line(error)}; it was not kept. Give the image size "
            "(size=(224, 224), --size 224x224), or try another opset"
        ) from error
    difference, scale = _difference(got, expected)
    if exact and not difference <= TOLERANCE * max(1.0, scale):
        height, width = images.shape[-2:]
        raise PurifierError(
            f"expected outputs equal to {TOLERANCE:g}, got a difference of {difference:.3g} on random images of "
            f"{_show((height, width))}; the file was not kept. Give the image size, or use another opset or format"
        )
    return difference


def _random_images(target: Any, size: tuple[int, int]) -> Tensor:
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return getattr(target, "convention", Convention()).from_unit(images, images)


def _difference(got: list[Tensor], expected: list[Any]) -> tuple[float, float]:
    """Returns the largest absolute difference and the largest absolute expected value."""
    wanted = [value for value in expected if isinstance(value, Tensor)]
    if [value.shape for value in got] != [value.shape for value in wanted]:
        return float("inf"), 0.0
    pairs = [(a.double(), b.double()) for a, b in zip(got, wanted, strict=True) if a.numel()]
    with suppress(ValueError):
        return max(float((a - b).abs().max()) for a, b in pairs), max(float(b.abs().max()) for _, b in pairs)
    return 0.0, 0.0
