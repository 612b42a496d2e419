"""purifier demo: the table, the figure, and its options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import purifier
from purifier._hub import general_purifiers
from purifier.cli import command, main
from purifier.commands.demo import _levels, default_photographs, run, table
from purifier.models.loading import LoadedModel
from purifier.models.reference import ReferenceClassifier

pytest.importorskip("matplotlib")

CLASSES = ("cat", "cup", "person", "something with a very long name, and a synonym")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ReferenceClassifier:
    """Replaces the bundled classifier by a faster one."""
    model = ReferenceClassifier(classes=CLASSES, widths=(8, 8), blocks=(1,)).eval()
    monkeypatch.setattr(purifier, "reference_model", lambda name: model)
    return model


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "garden.png")
    return tmp_path / "garden.png"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(command, ["demo", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["demo", *map(str, arguments)])
    assert stop.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    return errors[0]


@pytest.mark.slow
def test_the_demo_runs_as_installed_and_shows_every_purifier(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    text = invoke("--out", tmp_path)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    trained = general_purifiers()
    for stage in ("clean", "attacked", *trained):
        assert lines[stage].count("right") + lines[stage].count("wrong") == 3
    assert all(name in text.splitlines()[0] for name in ("chelsea", "coffee", "motorcycle_left"))
    assert "attacked 0/3" in lines["right:"]
    assert "(purifier-blind); one who does (purifier-aware) can bypass it." in text
    assert "This classifier was used in the training of alloy and alloy-s;" in text
    assert float(lines["took"].split()[1]) < 60
    with Image.open(tmp_path / "demo.png") as figure:
        assert figure.width > 4 * 256
        assert figure.height > 3 * 256


def test_the_table_and_the_figure_are_the_same_each_time(
    tiny: ReferenceClassifier, photograph: Path, tmp_path: Path
) -> None:
    outputs = [invoke(photograph, "--purifier", "gs", "--out", tmp_path / name) for name in "ab"]
    assert outputs[0].splitlines()[:6] == outputs[1].splitlines()[:6]
    assert (tmp_path / "a" / "demo.png").read_bytes() == (tmp_path / "b" / "demo.png").read_bytes()


def test_the_label_of_an_own_image_is_the_clean_prediction(
    tiny: ReferenceClassifier, photograph: Path, tmp_path: Path
) -> None:
    lines = invoke(photograph, "--purifier", "gs", "--purifier", "median", "--out", tmp_path).splitlines()
    assert lines[0].split() == ["garden"]
    assert [line.split()[0] for line in lines[1:5]] == ["clean", "attacked", "gs", "median"]
    # Without a true label, nothing is called right or wrong.
    assert lines[1].split()[-1] == "same" and lines[2].split()[-1] in ("same", "other")
    assert lines[6].startswith("same as clean: clean 1/1, attacked ")
    assert "the prediction for the clean image may be wrong" in lines[7]


def test_the_attack_stays_in_its_ball_and_does_not_depend_on_the_purifier(tiny: ReferenceClassifier) -> None:
    target = LoadedModel("tiny", tiny, CLASSES, {}, size=32)
    photographs = torch.rand(2, 3, 32, 32)
    clean, attacked, gs = run(
        target, photographs, ["cat", None], {"gs": purifier.Purifier.from_pretrained("gs")}, eps=0.1
    )
    alone = run(target, photographs, ["cat", None], {}, eps=0.1)[1]
    assert torch.equal(attacked.images, alone.images)
    assert (attacked.images - clean.images).abs().max() <= 0.1 + 1e-6
    assert torch.equal(gs.images, purifier.Purifier.from_pretrained("gs")(attacked.images))
    assert clean.right == [clean.labels[0] == 0, True]
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_photographs_that_do_not_fit_on_a_line_follow_below(tiny: ReferenceClassifier) -> None:
    stages = run(LoadedModel("tiny", tiny, CLASSES, {}, size=32), torch.rand(5, 3, 32, 32), [None] * 5, {}, eps=0.1)
    lines = table(stages, list("abcde"), CLASSES, ["cat"] * 5)
    assert [line.split() for line in lines if line[:8].isspace()] == [["a", "b", "c"], ["d", "e"]]
    assert max(map(len, (line.replace("\x1b[32m", "").replace("\x1b[31m", "") for line in lines))) < 120


def test_the_default_photographs_are_in_the_installed_package() -> None:
    pytest.importorskip("skimage")
    paths = default_photographs()
    assert [path.name for path in paths] == ["chelsea.png", "coffee.png", "motorcycle_left.png"]
    assert all(path.parent.parent.name == "skimage" for path in paths)


@pytest.mark.parametrize("missing", ["matplotlib", "skimage"])
def test_a_missing_package_is_named_with_its_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("purifier._extras.find_spec", lambda name: None if name == missing else find_spec(name))
    error = error_of(capsys)
    assert f"expected the package '{missing}'" in error
    assert 'pip install "torch-purifier[demo]"' in error


@pytest.mark.parametrize(("text", "levels"), [("4", 4), ("8/255", 8), ("0.5/1", 127.5), ("2.5", 2.5)])
def test_eps_is_read_as_a_fraction_or_in_units_of_pixels(text: str, levels: float) -> None:
    assert _levels(text) == pytest.approx(levels)


@pytest.mark.parametrize("eps", ["0", "300", "-1", "4/0", "x", "nan", "2/1"])
def test_eps_out_of_its_range_is_refused(eps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected --eps as 8/255, or as 8 in units of 1/255, above 0 and up to 255, got" in error_of(
        capsys, "--eps", eps
    )


def test_an_image_that_cannot_be_read_is_refused(
    tiny: ReferenceClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "which does not exist or is not a file" in error_of(capsys, tmp_path / "no.png", "--out", tmp_path)


def test_an_unknown_purifier_is_refused(photograph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "got 'jpg'; did you mean 'jpeg'" in error_of(capsys, photograph, "--purifier", "jpg")


def test_a_model_of_torchvision_is_attacked_at_its_own_image_size(
    monkeypatch: pytest.MonkeyPatch, photograph: Path, tmp_path: Path
) -> None:
    import torchvision

    stored = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: stored)
    lines = invoke(photograph, "--model", "squeezenet1_1", "--purifier", "gs", "--out", tmp_path).splitlines()
    assert lines[1].split()[-1] == "same"


def test_the_folder_of_the_figure_must_be_writable(
    tiny: ReferenceClassifier, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(capsys, photograph, "--purifier", "gs", "--out", photograph / "below")
    assert "expected a folder that can be written" in error
