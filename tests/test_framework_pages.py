"""Every page of docs/frameworks is a complete program, and so are the programs of docs/extending.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

from purifier import methods

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted((DOCS / "frameworks").glob("*.md"))
# What would be downloaded, and what stands in for it.
OFFLINE = {
    "resnet18(weights=weights)": "resnet18(weights=None)",
    'weights="DEFAULT"': "weights=None, weights_backbone=None",
    "pretrained=True": "pretrained=False",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vision transformer with random weights, as `from_pretrained` takes it."""
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_program_of_a_page_runs(
    page: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = programs(page)
    for online, offline in {**OFFLINE, "google/vit-base-patch16-224": checkpoint.as_posix()}.items():
        program = program.replace(online, offline)
    exec(compile(program, page.name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(3), ids=["method", "attack", "threat"])
def test_the_programs_about_extensions_run(
    number: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    program = compile(programs(DOCS / "extending.md")[number], "extending.md", "exec", dont_inherit=True)
    exec(program, {"__name__": "__main__"})
    assert capsys.readouterr().out


def programs(page: Path) -> list[str]:
    """The programs on a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_is_a_page_for_each_framework() -> None:
    names = {"data", "lightning", "pytorch", "timm", "torchvision", "transformers", "yolo"}
    assert {page.stem for page in PAGES} == names
