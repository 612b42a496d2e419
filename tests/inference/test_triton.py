"""Model repositories of Triton: their ONNX files, run in the order of the ensemble, are the purified model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from purifier import OptionError, Purifier, PurifierError, reference_model
from purifier.cli import command
from purifier.inference import _graphs
from purifier.inference.triton import export_triton

MODEL = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["export", *map(str, arguments)])


def ensemble(repository: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs the steps of an ensemble's configuration as Triton does; returns its tensors by name."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra export")
    text = (repository / "purified_model" / "config.pbtxt").read_text()
    tensors = {"images": images}
    for step in re.split(r"model_name: ", text)[1:]:
        name = re.match(r'"(\w+)"', step)[1]  # type: ignore[index]
        inputs = dict(re.findall(r'input_map { key: "(\w+)" value: "(\w+)" }', step))
        outputs = dict(re.findall(r'output_map { key: "(\w+)" value: "(\w+)" }', step))
        session = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx")
        values = session.run(list(outputs), {key: tensors[value] for key, value in inputs.items()})
        tensors |= dict(zip(outputs.values(), values, strict=True))
    return tensors


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """alloy-s in front of the demo classifier."""
    folder = tmp_path_factory.mktemp("repository")
    export_triton(Purifier.from_pretrained("alloy-s"), folder, reference_model("demo").eval(), max_batch_size=16)
    return folder


@pytest.mark.slow
def test_the_steps_of_the_ensemble_are_the_purified_model(repository: Path) -> None:
    purifier, model = Purifier.from_pretrained("alloy-s"), reference_model("demo").eval()
    for shape in ((3, 3, 64, 64), (1, 3, 47, 70)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = purifier.wrap(model)(images).numpy()
        assert np.abs(ensemble(repository, images.numpy())["output"] - expected).max() <= 1e-3
    text = (repository / "purifier" / "config.pbtxt").read_text()
    assert 'platform: "onnxruntime_onnx"\nmax_batch_size: 16\n' in text and "dynamic_batching {" in text
    assert '{ name: "images" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }' in text
    assert (
        '{ name: "output" data_type: TYPE_FP32 dims: [ 5 ] }'.replace("5", str(len(model.classes)))
        in (repository / "purified_model" / "config.pbtxt").read_text()
    )
    assert (repository / "purified_model" / "1").is_dir()


def test_the_command_puts_the_normalisation_into_the_model(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    torch.manual_seed(0)
    model = ("--model", f"{tmp_path / 'mine.py'}:build", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.2")
    result = run("gs", "--triton", tmp_path / "repo", "--size", "32x40", *model)
    assert result.exit_code == 0, result.output
    assert [line.rsplit("/", 1)[1] for line in result.output.splitlines()] == ["purifier", "model", "purified_model"]
    images = np.full((2, 3, 32, 40), 0.5, np.float32)
    found = ensemble(tmp_path / "repo", images)
    assert found["output"].shape == (2, 5) and np.abs(found["purified"] - 0.5).max() <= 1e-6
    assert "dims: [ 3, 32, 40 ]" in (tmp_path / "repo" / "purified_model" / "config.pbtxt").read_text()


def test_a_purifier_alone_is_a_repository_too(tmp_path: Path) -> None:
    assert run("gs", "--triton", tmp_path / "repo").exit_code == 0
    assert {path.name for path in (tmp_path / "repo").iterdir()} == {"purifier"}


def test_either_a_file_or_a_repository_is_written(tmp_path: Path) -> None:
    assert run("gs").exit_code == 2 and run("gs", tmp_path / "a.onnx", "--triton", tmp_path / "repo").exit_code == 2


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected a model in eval mode"):
        export_triton(Purifier.from_pretrained("gs"), tmp_path, nn.Sequential(nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize("outputs", [[torch.zeros(2, 5)], [torch.zeros(1)], RuntimeError("no such operator")])
def test_a_model_whose_file_differs_or_does_not_run_is_not_kept(
    outputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)).eval()

    def broken(path: Path, images: torch.Tensor) -> list[torch.Tensor]:
        if path.parent.parent.parent.name != "model":
            return run_onnx(path, images)
        if isinstance(outputs, Exception):
            raise outputs
        return list(outputs)

    run_onnx = _graphs.run_onnx
    monkeypatch.setattr(_graphs, "run_onnx", broken)
    with pytest.raises(PurifierError, match="not kept"):
        export_triton(Purifier.from_pretrained("bit-depth"), tmp_path, model, size=(32, 40))
    assert list((tmp_path / "model" / "1").iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what OpenVINO says of its own code
def test_openvino_runs_the_onnx_file(repository: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    purifier = Purifier.from_pretrained("alloy-s")
    file = repository / "purifier" / "1" / "model.onnx"
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((2, 3, 64, 80), (1, 3, 33, 47)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = purifier(images).numpy()
        assert np.abs(compiled({"images": images.numpy()})["purified"] - expected).max() <= 1e-3
