"""Exported files have the library's outputs, also at other sizes and batches than the example's."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, PurifiedModel, Purifier, PurifierError, WeightsError
from purifier._hub import bundled_config
from purifier._version import __version__
from purifier.inference import _graphs
from purifier.inference import export as exporting
from purifier.inference.export import export, files_sha256, read_metadata
from tests.builders import pictures, small_method, small_purifier

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Odd, small, and larger than what GS smooths by one dense matrix.
SHAPES = [(1, 3, 33, 47), (3, 3, 8, 5), (2, 3, 3, 390)]
# Every part of every method once: the chain has those of "gs" and "ncis", and the alloy those of plainer ones.
GRAPHS = ["alloy with scales and a gate", "gated median", "nrp-resg", "chain gs+ncis"]
TINY = [(1, 3, 1, 1), (2, 3, 1, 6), (1, 3, 2, 2)]


class Classifier(nn.Module):
    """Takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(images)).relu().mean((-2, -1)))
        return out


def classifier() -> nn.Module:
    torch.manual_seed(3)
    return Classifier().eval()


def chained() -> Purifier:
    return Purifier.chain(small_purifier("gs"), small_purifier("ncis"))


def made_for(case: str) -> Purifier:
    if "+" in case:
        return chained()
    if case.startswith("alloy"):
        return Purifier(small_method("alloy", levels=2, gate=3, iterations=1))
    if case == "gated median":
        return Purifier(small_method("gated", method=small_method("median"), gate=3))
    return small_purifier(case)


def run(path: Path, images: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {"images": images.numpy()})]


def assert_equal_outputs(path: Path, module: nn.Module, shapes: list[Any], mean: Any = 0, std: Any = 1) -> None:
    channels = partial(torch.tensor, dtype=torch.float32)
    for number, shape in enumerate(shapes):
        images = (pictures(*shape, seed=number) - channels(mean).view(-1, 1, 1)) / channels(std).view(-1, 1, 1)
        with torch.inference_mode():
            expected = module(images)
        (got,) = run(path, images)
        assert got.shape == expected.shape
        assert (got - expected).abs().max() < 1e-5


@pytest.mark.parametrize("case", [*GRAPHS, "wavelet-sr"])
def test_onnx_outputs_are_the_librarys_at_other_sizes_and_batches(case: str, tmp_path: Path) -> None:
    purifier = made_for(case)
    made = export(purifier, tmp_path / "p.onnx")
    assert made.difference is not None
    assert made.difference < 1e-5
    assert_equal_outputs(tmp_path / "p.onnx", purifier, SHAPES + TINY)


@pytest.mark.slow
def test_the_bundled_ncis_in_onnx(tmp_path: Path) -> None:
    purifier = Purifier.from_pretrained("ncis", iterations=2)
    export(purifier, tmp_path / "ncis.onnx")
    assert_equal_outputs(tmp_path / "ncis.onnx", purifier, SHAPES)
    facts = read_metadata(tmp_path / "ncis.onnx")
    assert facts["name"] == "ncis"
    assert facts["sha256"] == bundled_config("ncis")["files"]["model.safetensors"]
    config = json.loads(facts["config"])
    assert config["method"] == "ncis"
    assert config["options"]["iterations"] == 2
    assert config["files"] == bundled_config("ncis")["files"]


def test_a_wrapped_classifier_takes_normalised_images_of_any_size(tmp_path: Path) -> None:
    model = PurifiedModel(classifier(), small_purifier("gs"), mean=MEAN, std=STD)
    export(model, tmp_path / "model.onnx")
    assert_equal_outputs(tmp_path / "model.onnx", model, [(1, 3, 224, 224), *SHAPES], MEAN, STD)
    facts = read_metadata(tmp_path / "model.onnx")
    assert facts["kind"] == "wrapped model"
    assert facts["model"] == "Classifier"
    assert (json.loads(facts["mean"]), json.loads(facts["std"])) == (MEAN, STD)
    assert "(x - mean) / std" in facts["input"]
    assert model.model.training is False


def test_a_wrapped_model_of_bgr_images_states_their_order(tmp_path: Path) -> None:
    model = PurifiedModel(classifier(), small_purifier("ncis"), mean=MEAN, std=STD, channels="BGR")
    export(model, tmp_path / "model.onnx", size=(16, 16))
    facts = read_metadata(tmp_path / "model.onnx")
    assert facts["input"].startswith("float32 (N, 3, H, W), BGR, (x - mean) / std of x in [0, 1], with mean and std in")
    assert json.loads(facts["mean"]) == MEAN
    plain = PurifiedModel(classifier(), small_purifier("ncis"), channels="BGR")
    export(plain, tmp_path / "plain.onnx", size=(16, 16))
    assert read_metadata(tmp_path / "plain.onnx")["input"] == "float32 (N, 3, H, W), BGR, in [0, 1]"
    assert_equal_outputs(tmp_path / "plain.onnx", plain, [(2, 3, 16, 16)])


def test_a_model_of_one_size_needs_that_size_stated(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 10, 4)).eval()
    model = PurifiedModel(head, small_purifier("gs"))
    with pytest.raises(OptionError, match=r"captured as a graph, got .* give that size .*--size 224x224"):
        export(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    export(model, tmp_path / "model.onnx", size=(12, 10), opset=20)
    assert_equal_outputs(tmp_path / "model.onnx", model, [(1, 3, 12, 10), (3, 3, 12, 10)])
    facts = read_metadata(tmp_path / "model.onnx")
    assert (facts["size"], facts["smallest_size"], facts["opset"]) == ("12x10", "12x10", "20")
    proto = onnx.load(tmp_path / "model.onnx")
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [20]


def test_an_onnx_file_states_its_axes_names_and_metadata_and_no_path_of_this_machine(tmp_path: Path) -> None:
    purifier = small_purifier("bit-depth")
    made = export(purifier, tmp_path / "p.onnx")
    proto = onnx.load(tmp_path / "p.onnx")
    onnx.checker.check_model(proto)
    for value, name in ((proto.graph.input[0], "images"), (proto.graph.output[0], "purified")):
        assert value.name == name
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert axes == ["batch", 3, "height", "width"]
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert properties["purifier.name"] == "bit-depth"
    assert read_metadata(tmp_path / "p.onnx") == made.metadata
    assert made.metadata["version"] == __version__
    assert made.metadata["opset"] == "18"
    assert made.metadata["sha256"] == files_sha256({})
    assert b".py" not in (tmp_path / "p.onnx").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["p.onnx"]
    # The clamp is in the graph, the check of the values is not.
    (got,) = run(tmp_path / "p.onnx", pictures(1, 3, 8, 8, low=-3, high=4))
    assert (float(got.min()), float(got.max())) == (0, 1)


@pytest.mark.parametrize("case", GRAPHS)
def test_torch_export_outputs_are_the_librarys_at_other_sizes(case: str, tmp_path: Path) -> None:
    purifier = made_for(case)
    made = export(purifier, tmp_path / "p.pt2", format="torch-export")
    assert made.difference is not None
    assert made.difference < 1e-5
    # More than one patch, of the coarsest scale where there are several.
    patches = {"alloy with scales and a gate": 9, "gated median": 9, "chain gs+ncis": 3}
    smallest = patches.get(case, 1)
    module = torch.export.load(tmp_path / "p.pt2").module()
    for shape in [(*shape[:2], *(max(side, smallest) for side in shape[2:])) for shape in SHAPES]:
        with torch.inference_mode():
            assert (module(pictures(*shape)) - purifier(pictures(*shape))).abs().max() < 1e-5
    facts = read_metadata(tmp_path / "p.pt2")
    assert facts == made.metadata
    assert facts["smallest_size"] == f"{smallest}x{smallest}"
    assert "opset" not in facts


def test_a_torch_export_file_of_a_wrapped_model_keeps_its_outputs(tmp_path: Path) -> None:
    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": self.conv(images), "aux": images.mean(1)}

    model = PurifiedModel(Segmenter().eval(), small_purifier("gs"))
    export(model, tmp_path / "m.pt2", format="torch-export")
    images = pictures(3, 3, 9, 11)
    with torch.inference_mode():
        got, expected = torch.export.load(tmp_path / "m.pt2").module()(images), model(images)
    assert got.keys() == expected.keys()
    assert all((got[key] - expected[key]).abs().max() < 1e-5 for key in got)
    program = _graphs.capture(model, (16, 20), any_size=True)
    assert _graphs.output_names(program, "output") == ["out", "aux"]


def test_tiles_are_left_out_of_a_graph(tmp_path: Path) -> None:
    export(small_purifier("gs").tiled(16), tmp_path / "p.pt2", format="torch-export")
    module = torch.export.load(tmp_path / "p.pt2").module()
    images = pictures(1, 3, 40, 70)
    assert (module(images) - small_purifier("gs")(images)).abs().max() < 1e-5


@pytest.mark.parametrize(("case", "reason"), [("jpeg", "Pillow"), ("tvm", "drawn"), ("dynamic", "noise")])
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_methods_without_a_graph_are_refused(case: str, reason: str, form: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"that can be exported as a graph, got '.*{reason}.* run it in Python"):
        export(small_purifier(case), tmp_path / "p", format=form)
    with pytest.raises(OptionError, match=reason):
        export(Purifier.chain(small_purifier("gs"), small_purifier(case)), tmp_path / "p", format=form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "expected format to be one of onnx, torch-export, got 'tflite'"),
        ({"opset": 17}, "expected opset to be an integer of at least 18, got 17"),
        ({"opset": 18, "format": "torch-export"}, "only ONNX has opsets"),
        ({"size": (224, 0)}, "expected size as height and width"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        export(small_purifier("gs"), tmp_path / "p.onnx", **options)


def test_an_unsupported_opset_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="an opset that the exporter supports, got 99; use 18"):
        export(small_purifier("bit-depth"), tmp_path / "p.onnx", opset=99)
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_wrong_targets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a Purifier or a model that purifier\.wrap returned, got Linear"):
        export(nn.Linear(2, 2), tmp_path / "p.onnx")
    with pytest.raises(OptionError, match=r"in eval mode, got .* call eval\(\) on it"):
        export(PurifiedModel(Classifier(), small_purifier("gs")), tmp_path / "p.onnx")
    with pytest.raises(OptionError, match=r"in float32 to export, got torch\.bfloat16"):
        export(small_purifier("gs").bfloat16(), tmp_path / "p.onnx")
    with pytest.raises(OptionError, match="which is a folder"):
        export(small_purifier("gs"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PurifierError, match="a place that can be written"):
        export(small_purifier("bit-depth"), tmp_path / "file" / "p.pt2", format="torch-export")


def test_a_file_with_other_outputs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.pt2").write_bytes(b"mine")
    monkeypatch.setattr(_graphs, "run_torch_export", lambda path, images: [images + 0.01])
    purifier = Purifier(small_method("gs", iterations=0))
    with pytest.raises(PurifierError, match=r"equal to 0.0001, got a difference of 0\.01 .* was not kept"):
        export(purifier, tmp_path / "p.pt2", format="torch-export")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_missing_packages_are_named_or_the_comparison_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    assert export(small_purifier("bit-depth"), tmp_path / "unchecked.onnx").difference is None
    monkeypatch.setattr(_graphs, "find_spec", lambda name: None)
    with pytest.raises(PurifierError, match=r"the package 'onnx' for ONNX files, .*torch-purifier\[export\]"):
        export(small_purifier("bit-depth"), tmp_path / "p.onnx")


def test_other_files_have_no_metadata(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="which does not exist"):
        read_metadata(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(WeightsError, match="expected a file from purifier export"):
        read_metadata(tmp_path / "text.onnx")
    torch.save({}, tmp_path / "other.pt2")
    with pytest.raises(WeightsError, match="none of its metadata"):
        read_metadata(tmp_path / "other.pt2")


def test_one_hash_stands_for_all_weights_files() -> None:
    assert files_sha256({"model.safetensors": "ab"}) == "ab"
    both = {"b.safetensors": "22", "a.safetensors": "11"}
    assert files_sha256(both) == files_sha256(dict(reversed(both.items())))
    assert files_sha256(both) != files_sha256({"a.safetensors": "11", "b.safetensors": "23"})


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_purifier_with_a_graph_for_one_size_asks_for_that_size(form: str, tmp_path: Path) -> None:
    purifier = small_purifier("resize-pad")
    with pytest.raises(OptionError, match=r"give that size \(size=\(224, 224\), --size 224x224\)"):
        export(purifier, tmp_path / "p", format=form)
    assert not list(tmp_path.iterdir())
    made = export(purifier, tmp_path / "p", format=form, size=(32, 48))
    assert made.difference is not None and made.difference < 1e-5


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_chain_that_has_one_purifier_twice_is_exported(form: str, tmp_path: Path) -> None:
    made = export(Purifier.chain(*[small_purifier("ncis")] * 2), tmp_path / "p", format=form)
    assert made.difference is not None and made.difference < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gs", "ncis", "alloy-s", "median"])
def test_the_older_exporter_of_torch_gives_the_same_outputs(name: str, tmp_path: Path) -> None:
    purifier, images = Purifier.from_pretrained(name), pictures(1, 3, 20, 24)
    torch.onnx.export(purifier, (images,), str(tmp_path / "p.onnx"), dynamo=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "p.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), purifier(images), rtol=0, atol=1e-5)
