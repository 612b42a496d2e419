"""Graphs of modules: captured with torch.export, written as files, and run."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from purifier._errors import OptionError, PurifierError, WeightsError

INPUT = "images"
# Prefix of the metadata properties in an ONNX file. A torch-export file has the metadata in one JSON file.
PREFIX = "purifier."
EXTRA_FILE = "purifier.json"


def capture(module: nn.Module, size: tuple[int, int], *, any_size: bool) -> torch.export.ExportedProgram:
    """Captures the graph of a module of images, for any batch size.

    Args:
        module: A module of float32 images (N, 3, H, W).
        size: Height and width of the example images.
        any_size: Whether height and width stay open.

    Raises:
        OptionError: If the module cannot be captured.
    """
    dynamic = torch.export.Dim.DYNAMIC
    axes = {0: dynamic, 2: dynamic, 3: dynamic} if any_size else {0: dynamic}
    # Two images, because torch.export would fix a batch size of one.
    example = torch.full((2, 3, *size), 0.5)
    try:
        with _quiet():
            program = torch.export.export(_Entry(module), (example,), dynamic_shapes=(axes,))
    except Exception as error:  # torch and the model raise many kinds of errors
        raise _no_graph(error, any_size) from error
    for node in program.graph.nodes:
        # Stack traces contain paths of this machine.
        node.meta.pop("stack_trace", None)
    return program


class _Entry(nn.Module):
    """Names the input of every graph `images`, whatever the module calls it."""

    def __init__(self, target: nn.Module) -> None:
        super().__init__()
        self.target = target
        # An assignment does not change the modes of the children, as eval() would.
        self.training = False

    def forward(self, images: Tensor) -> Any:
        return self.target(images)


def smallest_size(program: torch.export.ExportedProgram) -> tuple[int, int]:
    """Returns the smallest height and width for which a captured graph is valid."""
    name = next(spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT")
    images = next(node for node in program.graph.nodes if node.name == name).meta["val"]
    height, width = (_lowest(program, size) for size in images.shape[-2:])
    return height, width


def _lowest(program: torch.export.ExportedProgram, size: Any) -> int:
    if isinstance(size, int):
        return size
    low = int(program.range_constraints[size.node.expr].lower)
    # torch.export assumes at least 2 for every unconstrained size.
    return 1 if low <= 2 else low


def output_names(program: torch.export.ExportedProgram, name: str) -> list[str]:
    """Returns a name for every output tensor of a graph: `name` if it is the only one, else its key."""
    spec = program.call_spec.out_spec
    assert spec is not None
    paths = [path for path, _ in pytree.tree_leaves_with_path(pytree.tree_unflatten(range(spec.num_leaves), spec))]
    names = ["_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path in paths]
    return [f"{name}_{text}" if text.isdigit() else text or name for text in names]


def write_onnx(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str], *, opset: int, output: str
) -> None:
    """Writes a captured graph as an ONNX file. Weights of more than 2 GB go into a second file, PATH.data.

    Raises:
        OptionError: If ONNX cannot express it in this opset.
        PurifierError: If a package is missing.
    """
    _need("onnx", "onnxscript")
    images = next(node for node in program.graph.nodes if node.name == INPUT).meta["val"]
    named = {0: "batch", 2: "height", 3: "width"}
    axes = {axis: name for axis, name in named.items() if not isinstance(images.shape[axis], int)}
    try:
        with _quiet():
            converted: Any = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=output_names(program, output),
                dynamic_shapes=(axes,),
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds of errors
        raise _no_graph(error, len(axes) > 1) from error
    model = converted.model
    got = model.opset_imports.get("", opset)
    if got != opset:
        raise OptionError(f"expected an opset that the exporter supports, got {opset}; use {got}, which it wrote")
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    model.producer_name = "purifier"
    model.metadata_props.update({PREFIX + key: value for key, value in metadata.items()})
    converted.save(path)


def write_torch_export(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str], any_size: bool
) -> None:
    """Writes a captured graph with torch.export.save, and its metadata in a JSON file inside.

    Raises:
        OptionError: If the file format cannot hold the graph.
    """
    try:
        with _quiet(), path.open("wb") as file:
            torch.export.save(program, file, extra_files={EXTRA_FILE: json.dumps(dict(metadata), indent=2)})
    except OSError:
        raise
    except Exception as error:  # the serializer's own errors
        raise _no_graph(error, any_size) from error


def run_onnx(path: Path, images: Tensor) -> list[Tensor]:
    """Runs an ONNX file with ONNX Runtime on the CPU and returns its outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {INPUT: images.numpy()})]


def run_torch_export(path: Path, images: Tensor) -> list[Tensor]:
    """Loads and runs a torch-export file and returns its outputs."""
    with _quiet(), path.open("rb") as file:
        module = torch.export.load(file).module()
    with torch.inference_mode():
        return list(pytree.tree_leaves(module(images)))


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a file of `write_onnx` or `write_torch_export`, without loading its weights.

    Raises:
        WeightsError: If it is another file.
    """
    found = _torch_export_metadata(path) if zipfile.is_zipfile(path) else _onnx_metadata(path)
    if not found:
        raise WeightsError(f"expected a file from purifier export, got {path}, which has none of its metadata")
    return found


def _torch_export_metadata(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == EXTRA_FILE]
        values = json.loads(archive.read(names[0])) if names else {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _onnx_metadata(path: Path) -> dict[str, str]:
    _need("onnx")
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own errors, a missing file
        raise WeightsError(f"expected a file from purifier export, got {path}: {_line(error)}") from error
    return {p.key.removeprefix(PREFIX): p.value for p in model.metadata_props if p.key.startswith(PREFIX)}


def _need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise PurifierError(
                f"expected the package {package!r} for ONNX files, got none; install it with "
                'pip install "torch-purifier[export]"'
            )


def _no_graph(error: Exception, any_size: bool) -> OptionError:
    if any_size:
        advice = (
            "its graph may be valid for one image size only: give that size (size=(224, 224), --size 224x224), or use "
            "the other format"
        )
    else:
        advice = "export the purifier alone and run the model behind it, or use the other format"
    return OptionError(f"expected a purifier or model that can be captured as a graph, got {_line(error)}; {advice}")


def _line(error: BaseException) -> str:
    """Returns the type of an error's first cause, and the first line of its message."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
    return f"{type(error).__name__}: {text[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the logs and warnings of torch's exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
