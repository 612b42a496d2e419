"""Reports: contents and wording of the page and the tables."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from purifier import Purifier
from purifier.attacks import FGSM, PGD, Aware, Blind
from purifier.evaluation import (
    Evaluation,
    EvaluationSettings,
    evaluate,
    labelled_images,
    masked_images,
    write_report,
)
from purifier.evaluation.report import curves
from purifier.evaluation.report.markdown import as_table, summary
from purifier.evaluation.rows import Row
from tests.scenes import COLOURS, Colours, Pixels, class_folders, mask_folders


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("report")
    data = labelled_images(class_folders(folder / "data"), 16, classes=COLOURS)
    attacks = {
        "PGD eps=4/255": PGD(eps=4 / 255, steps=2),
        "PGD eps=8/255": PGD(eps=8 / 255, steps=2),
        "FGSM eps=8/255": FGSM(eps=8 / 255),
    }
    return evaluate(
        Colours(),
        data,
        purifiers={"gs": Purifier.from_pretrained("gs", iterations=1), "bits": Purifier.from_pretrained("bit-depth")},
        attacks=attacks,
        threats={"blind": Blind(), "aware": Aware()},
        out=folder / "out",
        settings=EvaluationSettings(batch_size=6, pictures=2, probe_images=4),
    )


@pytest.fixture(scope="module")
def files(evaluation: Evaluation) -> dict[str, Path]:
    return write_report(evaluation, evaluation.folder, command="purifier evaluate <&>")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [(tag, value) for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in ("meta", "br", "img", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_alone(files: dict[str, Path]) -> None:
    text = files["html"].read_text()
    page = Page(text)
    assert all(link.startswith(("data:image/png;base64,", "#")) for _, link in page.links)
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert page.open == []
    assert text.count("<svg") >= 3
    assert "purifier evaluate &lt;&amp;&gt;" in text


def test_blind_and_aware_figures_stand_side_by_side_or_are_marked_as_missing(
    evaluation: Evaluation, files: dict[str, Path]
) -> None:
    for text in (files["html"].read_text(), files["markdown"].read_text()):
        assert re.search(r"Blind.{0,80}attacker does not know the purifier", text, re.S)
        assert re.search(r"Aware.{0,80}attacker knows the purifier", text, re.S)
        assert text.index("Blind") < text.index("Aware")
        assert "not measured" in text  # bit-depth has no exact gradient
    table = files["markdown"].read_text().split("## ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith("| PGD, L∞ 8/255, 2 steps | bits ")]
    assert "not measured" in line
    assert "same as blind" in table


def test_a_blind_figure_is_never_called_robust_alone(files: dict[str, Path]) -> None:
    for kind in ("html", "markdown"):
        # The self-checks speak of robustness in general.
        text = re.sub(r"(<h2>|## )Self-checks.*?(<h2>|## |$)", "", files[kind].read_text(), flags=re.S)
        text = re.sub(r"<[^>]+>", " ", text)
        for found in re.finditer("[Rr]obust", text):
            around = text[max(0, found.start() - 60) : found.end() + 60]
            assert re.search("threat|model that|images right", around), around


def test_the_figures_are_those_of_the_rows(evaluation: Evaluation, files: dict[str, Path]) -> None:
    stored = json.loads(files["json"].read_text())
    assert [Row.from_dict(row) for row in stored["rows"]] == evaluation.rows
    assert stored["versions"].keys() == {"purifier", "torch", "python"}
    assert stored["findings"] and stored["skipped"]
    row = next(r for r in evaluation.rows if (r.purifier, r.threat, r.eps) == ("gs", "aware", 8 / 255))
    low, high = row.robust_interval
    expected = f"{100 * row.robust_accuracy:.1f} % [{100 * low:.1f} – {100 * high:.1f}]"
    table = files["markdown"].read_text().split("## ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith("| PGD, L∞ 8/255, 2 steps | gs ")]
    assert expected in line


def test_every_row_has_its_number_of_images_and_interval(evaluation: Evaluation, files: dict[str, Path]) -> None:
    text = files["markdown"].read_text().split("## All measures")[1].split("## Self-checks")[0]
    lines = text.strip().splitlines()[2:]
    assert len(lines) == len(evaluation.rows)
    assert all("| 12 |" in line and "[" in line for line in lines)


def test_findings_state_their_condition_and_reason(evaluation: Evaluation, files: dict[str, Path]) -> None:
    text = files["html"].read_text()
    assert evaluation.findings
    for _, finding in evaluation.findings:
        for part in (finding.check, finding.raised_if, finding.explanation, finding.measured):
            assert html.escape(part).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text
        assert finding.measured in summary(evaluation) and finding.raised_if in files["markdown"].read_text()


def test_pictures_show_the_models_predictions(evaluation: Evaluation, files: dict[str, Path]) -> None:
    text = files["html"].read_text()
    strips = re.findall(r"<figcaption>.*?</figcaption>", text, re.S)
    assert any("perturbation × 10" in strip for strip in strips)
    assert any(name in strip for strip in strips for name in COLOURS)
    assert sum("clean" in strip for strip in strips) >= 2
    assert all(len(source) > 200 for _, source in Page(text).links if source.startswith("data:"))


def test_equal_evaluations_give_equal_pages(evaluation: Evaluation, files: dict[str, Path], tmp_path: Path) -> None:
    again = write_report(evaluation, tmp_path, command="purifier evaluate <&>")
    assert {kind: path.read_text() for kind, path in again.items()} == {k: p.read_text() for k, p in files.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.json", "table.md"]


def test_segmentation_has_both_measures(tmp_path: Path) -> None:
    images, masks = mask_folders(tmp_path)
    found = evaluate(
        Pixels(),
        masked_images(images, masks=masks),
        purifiers={"gs": Purifier.from_pretrained("gs", iterations=1)},
        attacks={"PGD": PGD(eps=0.03, steps=2)},
        threats={"blind": Blind()},
        out=tmp_path / "out",
        settings=EvaluationSettings(pictures=1),
    )
    files = write_report(found, tmp_path / "out")
    text = files["markdown"].read_text()
    assert "pixel accuracy / mIoU" in text and "not measured" in text
    page = files["html"].read_text()
    assert "Pixel accuracy / mIoU behind each purifier" in page and "MIoU" not in page
    assert "Figures are pixel accuracy / mIoU." in summary(found)
    assert "The self-checks are for classifiers" in text


def test_clean_figures_alone_make_a_report(tmp_path: Path) -> None:
    data = labelled_images(class_folders(tmp_path / "data", each=1), 16)
    found = evaluate(Colours(), data, purifiers={}, attacks={}, threats={}, out=tmp_path / "out")
    files = write_report(found, tmp_path / "out")
    assert "100.0 %" in files["markdown"].read_text() and "<svg" not in files["html"].read_text()
    assert "| no attack | none | 100.0 % [43.9 – 100.0] |" in files["markdown"].read_text()
    lines = summary(found).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["attack", "purifier", "standard"],
        ["no", "attack", "none", "100.0", "%"],
    ]
    assert "3 images. Figures are accuracy. No attack was measured" in summary(found)
    page = files["html"].read_text()
    assert "not measured" not in page.split("<h2>Self-checks")[0] and "No attack was measured" in page


def test_bars_in_cells_are_escaped() -> None:
    assert as_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"


def test_an_attack_of_several_lengths_has_a_curve(tmp_path: Path) -> None:
    data = labelled_images(class_folders(tmp_path / "data", each=2), 16)
    attacks = {
        "PGD 1": PGD(eps=0.03, steps=1), "PGD 4": PGD(eps=0.03, steps=4), "PGD 4x2": PGD(eps=0.03, steps=4, restarts=2),
    }  # fmt: skip
    gs = {"gs": Purifier.from_pretrained("gs", iterations=1)}
    found = evaluate(Colours(), data, purifiers=gs, attacks=attacks, threats={"blind": Blind()}, out=tmp_path / "out")
    page = write_report(found, tmp_path / "out")["html"].read_text()
    part = page[page.index("Against the length of the attack") :]
    (title,) = re.findall(r'aria-label="(PGD[^"]*)"', part)
    assert title.startswith("PGD, L∞ 0.03 · ") and "steps, times restarts" in part
    tint = dict.fromkeys(("none", "gs"), "#000000")
    rows = [row for row in found.rows if row.attack == "PGD" and row.purifier == "gs"]
    (curve,) = curves._curves(rows, curves._effort, tint)
    assert list(curve.places) == [1, 4, 8] and curve.share == [row.robust_accuracy for row in rows]
    (panel,) = curves.eps_panels(found.rows, tint)
    assert [one.title for one in panel] == ["PGD, 4 steps x 2 restarts · blind"]
    # An attack that is longer under another threat model hides no panel.
    longer = [replace(row, steps=9, settings={**row.settings, "threat": {}}, threat="aware") for row in rows]
    assert len(curves.eps_panels([*found.rows, *longer], tint)) == 2
    # Attacks with other options are no longer ones.
    targeted = [
        replace(row, settings={**row.settings, "attack": {**row.settings["attack"], "targeted": True}}) for row in rows
    ]
    assert len(curves.step_panels([*found.rows, *targeted], tint)) == 2
    one_length = [row for row in found.rows if row.steps != 4]
    assert curves.step_panels(one_length, tint) == []
