"""Model repositories of NVIDIA Triton: a purifier, a model, and the ensemble of both, as ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from purifier._errors import OptionError
from purifier._files import write_text, writing
from purifier._version import __version__
from purifier.inference import _graphs
from purifier.inference.export import DEFAULT_OPSET, check_outputs, drafted, export

# Names of the three models.
PURIFIER, MODEL, ENSEMBLE = "purifier", "model", "purified_model"
# Triton waits this long for other requests of one size, in microseconds.
_DELAY = 2000
_EXAMPLE = (224, 256)
# Data types by the numbers of onnx.TensorProto.
_TYPES = {1: "TYPE_FP32", 10: "TYPE_FP16", 7: "TYPE_INT64", 6: "TYPE_INT32", 9: "TYPE_BOOL", 11: "TYPE_FP64"}

# A tensor of a model: name, data type, and dimensions without the batch; -1 is any.
Port = tuple[str, str, Sequence[int]]


def export_triton(
    purifier: nn.Module,
    repository: Path,
    model: nn.Module | None = None,
    *,
    size: tuple[int, int] | None = None,
    opset: int = DEFAULT_OPSET,
    max_batch_size: int = 32,
) -> list[Path]:
    """Writes a model repository of Triton, with dynamic batching.

    "purifier" takes images, float32 (N, 3, H, W), RGB in [0, 1]. "model" takes purified ones. "purified_model" is the
    ensemble, which takes images and returns the outputs of the model. Triton batches requests of one size.

    Args:
        purifier: A `Purifier` in float32.
        repository: The folder. Models of these names are replaced, the configuration last.
        model: A model of images in [0, 1] in eval mode, which normalises them itself. None writes the purifier only.
        size: Height and width, for models that need a fixed size. None leaves them open.
        opset: ONNX operator set, 18 or newer.
        max_batch_size: The largest number of images in a batch.

    Returns:
        The folders of the models.

    Raises:
        OptionError: If something cannot be captured as a graph, or an option is out of its range.
        PurifierError: If a package is missing, a file cannot be written, or outputs differ from the module's.
    """
    if max_batch_size < 1:
        raise OptionError(f"expected max_batch_size of at least 1, got {max_batch_size}")
    path = _version_folder(repository, PURIFIER) / "model.onnx"
    export(purifier, path, size=size, opset=opset)
    _configure(repository / PURIFIER, path, max_batch_size)
    if model is None:
        return [repository / PURIFIER]
    path = _version_folder(repository, MODEL) / "model.onnx"
    _export_model(model, path, size, opset)
    outputs = _configure(repository / MODEL, path, max_batch_size)
    _version_folder(repository, ENSEMBLE)
    sides = list(size) if size else [-1, -1]
    ports = _ports("input", [(_graphs.INPUT, "TYPE_FP32", [3, *sides])]) + _ports("output", outputs)
    head = _head(ENSEMBLE, "ensemble", max_batch_size)
    write_text(repository / ENSEMBLE / "config.pbtxt", head + ports + _steps([name for name, *_ in outputs]))
    return [repository / name for name in (PURIFIER, MODEL, ENSEMBLE)]


def _version_folder(repository: Path, name: str) -> Path:
    folder = repository / name / "1"
    with writing(repository):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _export_model(model: nn.Module, path: Path, size: tuple[int, int] | None, opset: int) -> None:
    """Writes a model without a purifier, after its outputs were compared."""
    if any(part.training for part in model.modules()):
        raise OptionError("expected a model in eval mode, got one in training mode; call eval() on it")
    program = _graphs.capture(model, size or _EXAMPLE, any_size=size is None)
    images = torch.rand(2, 3, *(size or _EXAMPLE), generator=torch.Generator().manual_seed(0))
    with drafted(path) as draft:
        _graphs.write_onnx(program, draft, {"kind": "model", "version": __version__}, opset=opset, output="output")
        check_outputs(model, draft, "onnx", images)


def _configure(folder: Path, path: Path, max_batch_size: int) -> list[Port]:
    """Writes config.pbtxt of an ONNX file; returns its outputs."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    inputs, outputs = ([_port(value) for value in values] for values in (graph.input, graph.output))
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY} }}\n"
    text = _head(folder.name, "onnxruntime_onnx", max_batch_size) + _ports("input", inputs) + _ports("output", outputs)
    write_text(folder / "config.pbtxt", text + batching)
    return outputs


def _port(value: Any) -> Port:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TYPES:
        raise OptionError(f"expected outputs that Triton knows, got {value.name!r} of ONNX type {tensor.elem_type}")
    sides = [side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim[1:]]
    return value.name, _TYPES[tensor.elem_type], sides


def _head(name: str, platform: str, max_batch_size: int) -> str:
    return f'name: "{name}"\nplatform: "{platform}"\nmax_batch_size: {max_batch_size}\n'


def _ports(kind: str, ports: Sequence[Port]) -> str:
    lines = [
        f'  {{ name: "{name}" data_type: {form} dims: [ {", ".join(map(str, dims))} ] }}' for name, form, dims in ports
    ]
    return f"{kind} [\n" + ",\n".join(lines) + "\n]\n"


def _steps(outputs: Sequence[str]) -> str:
    made = "\n".join(f'      output_map {{ key: "{name}" value: "{name}" }}' for name in outputs)
    return (
        "ensemble_scheduling {\n  step [\n"
        f'    {{\n      model_name: "{PURIFIER}"\n      model_version: -1\n'
        f'      input_map {{ key: "{_graphs.INPUT}" value: "{_graphs.INPUT}" }}\n'
        '      output_map { key: "purified" value: "purified" }\n    },\n'
        f'    {{\n      model_name: "{MODEL}"\n      model_version: -1\n'
        f'      input_map {{ key: "{_graphs.INPUT}" value: "purified" }}\n{made}\n    }}\n  ]\n}}\n'
    )
