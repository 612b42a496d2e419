"""Every page of docs/frameworks is a complete program, and so are the programs of other pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from click.testing import CliRunner

from purifier import methods
from purifier.commands.evaluate import command as evaluate
from tests.scenes import class_folders

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
@pytest.mark.parametrize("page", ["certified", "detection"])
def test_the_first_program_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = compile(programs(DOCS / f"{page}.md")[0], page, "exec", dont_inherit=True)
    exec(program, {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_the_programs_about_extensions_run_and_their_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path.as_posix())
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    box, use, brighten, guess = programs(DOCS / "extending.md")
    for name, program in {"box": box, "brighten": brighten, "guess": guess}.items():
        (tmp_path / f"{name}.py").write_text(program)
    exec(compile(use, "use.py", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("torch.Size") == 2
    # The command, with a small model and two pictures.
    line = re.search(r"    purifier evaluate (.*?)\n\n", (DOCS / "extending.md").read_text(), flags=re.DOTALL)
    assert line is not None
    scenes = class_folders(tmp_path / "data", each=1)
    text = line[1].replace("\\", "").replace("torchvision:resnet50", "reference:demo").replace("steps=40", "steps=1")
    options = ["--size", "32", "--images", "2", "--probe-images", "0", "--labels", "labels.csv"]
    files = sorted(path.relative_to(scenes).as_posix() for path in scenes.rglob("*.png"))
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{name},{n}\n" for n, name in enumerate(files)))
    done = CliRunner().invoke(evaluate, [*text.replace("IMAGES", scenes.as_posix()).split(), *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "RUN" / "report.html").exists()


def programs(page: Path) -> list[str]:
    """The programs on a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_is_a_page_for_each_framework() -> None:
    names = {"data", "lightning", "pytorch", "timm", "torchvision", "transformers", "yolo"}
    assert {page.stem for page in PAGES} == names
