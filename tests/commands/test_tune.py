"""The command `purifier tune`, on the bundled model and a handful of pictures."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from purifier import OptionError, Purifier
from purifier.cli import command, main
from purifier.commands.tune import describe_attack, make_tuning_attack, parse_numbers, report
from purifier.evaluation.tuning import Trial, Tuning, choose
from tests.builders import pictures, stand_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, image in enumerate((pictures(6, 3, 40, 40) * 255).round().byte()):
        path = tmp_path / "data" / ("cat", "dog", "cup")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path)
    return tmp_path / "data"


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("tune", "--model", "reference:demo", "--data", str(folder), "--purifier", "gs", "--size", "40"),
        *("--iterations", "1..2", "--attack", "PGD:steps=2", "--device", "cpu", "--out", str(out), *more),
    ]


def test_it_prints_draws_and_writes_what_it_chose(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(command, arguments(folder, out, "--kernel-size", "3,5", "--aware-images", "2"))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "reference:demo, gs, 6 images; PGD, Linf, eps 16/255, 2 steps"
    assert any(line.startswith("no purifier") for line in lines)
    table = [line for line in lines if line.startswith("iterations=")]
    assert len(table) == 4 and sum(line.endswith("chosen") for line in table) == 1
    assert "purifier-blind: the attacker does not know the purifier" in result.output
    assert "of 2 images." in result.output
    record = json.loads((out / "tuning.json").read_text())
    chosen = Purifier.from_pretrained(out / "purifier")
    assert chosen.method.options == {"kernel_size": 5, "iterations": 7} | record["chosen"]
    with Image.open(out / "tuning.png") as figure:
        assert figure.format == "PNG"
    assert record["settings"]["attack"]["alpha"] == pytest.approx(4 / 255)


def test_results_inside_the_images_are_refused(folder: Path) -> None:
    result = CliRunner().invoke(command, arguments(folder, folder / "out"))
    assert isinstance(result.exception, OptionError) and "outside the folder of images" in str(result.exception)
    assert not (folder / "out").exists()


def test_a_second_run_gives_the_same_without_an_attack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CliRunner().invoke(command, arguments(folder, tmp_path / "out"))
    assert first.exit_code == 0 and "measure the chosen setting with --aware-images 50" in first.output
    monkeypatch.setattr("purifier.attacks.PGD.__call__", None)
    again = CliRunner().invoke(command, arguments(folder, tmp_path / "out"))
    assert again.output == first.output


def test_a_stand_in_is_called_by_its_own_name(folder: Path, tmp_path: Path) -> None:
    with stand_in(tmp_path / "bundled"):
        result = CliRunner().invoke(command, [*arguments(folder, tmp_path / "out"), "--purifier", "soft"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("reference:demo, gs, 6 images;") and "soft" not in result.output


def tuned(undefended: tuple[int, int], *trials: tuple[int, int]) -> Tuning:
    """A tuning with numbers of images right, clean and attacked, of 50."""

    def trial(options: dict[str, int], standard: int, blind: int) -> Trial:
        rights = (tuple(index < right for index in range(50)) for right in (standard, blind))
        return Trial(options=options, standard=next(rights), blind=next(rights))

    tried = tuple(trial({"iterations": place}, *right) for place, right in enumerate(trials, 1))
    none = trial({}, *undefended)
    return Tuning(trials=tried, undefended=none, chosen=choose(tried), aware=None, settings={})


def test_the_report_says_if_no_setting_is_worthwhile() -> None:
    text = "No setting has a higher mean than the model without a purifier"
    assert not any(text in line for line in report(tuned((45, 0), (44, 20)), "heading"))
    assert any(text in line for line in report(tuned((45, 0), (20, 20)), "heading"))


def test_the_report_names_settings_that_chance_may_tell_apart() -> None:
    lines = report(tuned((45, 0), (44, 20), (44, 19), (20, 20)), "heading")
    assert "These images do not distinguish iterations=1 from iterations=2. Use more images." in lines
    many = report(tuned((45, 0), *[(44, 20)] * 8), "heading")
    assert any("iterations=5 and 3 more. Use more images." in line for line in many)


def test_the_report_gives_every_share_with_its_interval() -> None:
    lines = report(tuned((45, 0), (44, 20)), "heading")
    assert "iterations=1   88.0 % (76.2 .. 94.4)   40.0 % (27.6 .. 53.8)   64.0 %  chosen" in lines


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--eps", "16"), "error: expected eps in units of the [0, 1] image range, got 16"),
        (("--iterations", "8..1"), "error: expected --iterations as 1..8 or 1,3,5, got '8..1'"),
        (("--kernel-size", "three"), "error: expected --kernel-size as 1..8 or 1,3,5, got 'three'"),
        (("--attack", "PGB"), "error: expected an attack out of"),
        (("--purifier", "jpeg"), "error: expected a purifier with iterations to tune, such as gs or ncis, got 'jpeg'"),
    ],
)
def test_wrong_calls_get_an_error_and_exit_code_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], text: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments(folder, tmp_path / "out", *more))
    assert stop.value.code == 1
    assert text in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "data", tmp_path / "out"))
    assert "error: expected a folder for each class" in capsys.readouterr().err


def test_numbers_are_read() -> None:
    assert parse_numbers("2..4", "--iterations") == [2, 3, 4]
    assert parse_numbers("1, 3,5", "--iterations") == [1, 3, 5]
    for text in ("", "1..", "1-8", "1,,2"):
        with pytest.raises(OptionError, match=r"expected --iterations as 1\.\.8 or 1,3,5"):
            parse_numbers(text, "--iterations")


def test_the_attack_has_the_defaults_of_evaluate_unless_it_says_otherwise() -> None:
    attack = make_tuning_attack("PGD", "16/255")
    assert (attack.eps, attack.alpha, attack.steps) == pytest.approx((16 / 255, 4 / 255, 10))
    assert make_tuning_attack("PGD:steps=3,alpha=2/255", "8/255").alpha == pytest.approx(2 / 255)
    assert make_tuning_attack("PGD:norm=L2", "0.5").alpha == pytest.approx(0.125)
    assert describe_attack(make_tuning_attack("PGD:norm=L2", "0.5")) == "PGD, L2, eps 0.5, 10 steps"
    assert describe_attack(make_tuning_attack("Square:queries=9", "8/255")) == "Square, Linf, eps 8/255, 9 queries"
    assert describe_attack(make_tuning_attack("MIFGSM", "4/255")).startswith("MIFGSM, Linf, eps 4/255")
