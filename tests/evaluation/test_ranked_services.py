"""Evaluation of services with ranked labels: pairs, choice of iterations, answers asked once, and the command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from purifier import InputError, OptionError, Purifier
from purifier.attacks import PGD
from purifier.cli import command
from purifier.data.sets import UnlabelledImages
from purifier.evaluation import unlabelled_images
from purifier.evaluation.metrics.ranked import ranked_scores
from purifier.evaluation.ranked import RankedEvaluation, RankedSettings, client, evaluate_ranked, write_ranked

NAMES = [f"class {number}" for number in range(12)]
FEW = RankedSettings(pairs=4, validation_pairs=2, k=2)


class Coarse(nn.Module):
    """A linear classifier of the four quarters' means, with weights that an attack changes easily."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(12, 12, generator=torch.Generator().manual_seed(3)))

    def forward(self, images: Tensor) -> Tensor:
        weight = self.get_buffer("weight")
        return nn.functional.adaptive_avg_pool2d(images - 0.5, 2).flatten(1) @ weight.T * 20


class Service:
    """The same classifier as a service of PIL images. It counts its calls, and can fail after some of them."""

    def __init__(self, failing_after: int | None = None) -> None:
        self.model, self.failing_after = Coarse().eval(), failing_after
        self.seen: Counter[bytes] = Counter()

    def __call__(self, picture: Image.Image) -> list[str]:
        if self.failing_after is not None and self.seen.total() >= self.failing_after:
            raise ConnectionError("the service is away")
        self.seen[picture.tobytes()] += 1
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        return [NAMES[index] for index in self.model(pixels)[0].topk(5).indices.tolist()]


@pytest.fixture
def data(tmp_path: Path) -> UnlabelledImages:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        coarse = Image.fromarray(rng.integers(90, 166, (2, 2, 3), dtype=np.uint8))
        coarse.resize((24, 24), Image.Resampling.NEAREST).save(folder / f"{number:02}.png")
    return unlabelled_images(folder, 16)


def run(service: Callable[[Image.Image], Any], data: UnlabelledImages, out: Path, **options: Any) -> RankedEvaluation:
    given: dict[str, Any] = {
        "surrogates": [Coarse().eval()],
        "purifiers": {"gs": Purifier.from_pretrained("gs"), "jpeg": Purifier.from_pretrained("jpeg")},
        "attack": PGD(eps=0.2, alpha=0.05, steps=10, targeted=True),
        "settings": FEW,
        "name": "service",
        **options,
    }
    return evaluate_ranked(service, data, out=out, **given)


def records(folder: Path, method: str = "", iterations: int = 0) -> dict[int, dict[str, Any]]:
    """The answers for pairs, or for a purifier with a number of iterations (0: whatever it has)."""
    found = []
    for file in (folder / "records").glob("*.jsonl"):
        head, *lines = map(json.loads, file.read_text().splitlines())
        purifier = head["settings"].get("purifier")
        own = (purifier["method"], purifier["options"].get("iterations")) if purifier else ("", None)
        if own[0] == method and iterations in (0, own[1]):
            found.append({record["index"]: record for record in lines})
    (only,) = found
    return only


def test_pairs_have_no_label_in_common_and_the_rest_is_left_out(data: UnlabelledImages, tmp_path: Path) -> None:
    found = run(Service(), data, tmp_path / "out")
    asked = records(tmp_path / "out")
    tried = sorted({index // 2 for index in asked})
    disjoint = [n for n in tried if not set(asked[2 * n]["labels"]) & set(asked[2 * n + 1]["labels"])]
    assert (found.pairs, found.tried) == (4, len(tried)) and len(disjoint) == 4
    # Without a purifier the figures follow from what a pair is.
    none = found.rows[0]
    assert (none.clean.prediction_accuracy, none.attacked.prediction_accuracy, none.mean) == (1, 0, 0.5)
    for index in disjoint:
        clean = data.load([index])[0][0]
        attacked = np.asarray(Image.open(tmp_path / "out" / "pictures" / "attacked" / f"{index:06d}.png"))
        change = torch.from_numpy(attacked.copy()).permute(2, 0, 1).float() / 255 - clean
        assert 0 < change.abs().max() <= 0.2 + 0.6 / 255
    # The figures of a purifier are those of the recorded answers.
    purified = records(tmp_path / "out", "jpeg")
    truths = [asked[2 * index]["labels"] for index in disjoint]
    assert found.rows[2].clean == ranked_scores(truths, [purified[2 * n]["labels"] for n in disjoint], k=2)
    assert found.rows[2].attacked == ranked_scores(truths, [purified[2 * n + 1]["labels"] for n in disjoint], k=2)


def test_iterations_are_chosen_on_pairs_of_their_own(data: UnlabelledImages, tmp_path: Path) -> None:
    gs = Purifier.from_pretrained("gs")
    purifiers = {"gs": gs, "jpeg": Purifier.from_pretrained("jpeg")}
    found = run(Service(), data, tmp_path / "out", purifiers=purifiers, iterations=[3, 1])
    assert set(found.choices) == {"gs"} and list(found.choices["gs"]) == [1, 3]
    best = max(found.choices["gs"].values())
    chosen = found.rows[1].iterations
    assert found.choices["gs"][chosen or 0] == best and found.rows[2].iterations is None
    # The purifier that was given is as it was.
    assert gs.iterations == Purifier.from_pretrained("gs").iterations
    # Every candidate was asked of the validation pairs, and only the chosen one of the others.
    counts = {n: len(records(tmp_path / "out", "gs", n)) for n in (1, 3)}
    assert counts == {n: 2 * (2 + 4) if n == chosen else 2 * 2 for n in (1, 3)}


def test_no_answer_is_asked_for_twice(data: UnlabelledImages, tmp_path: Path) -> None:
    whole = Service()
    expected = run(whole, data, tmp_path / "whole")
    assert expected.calls == whole.seen.total()
    calls = 0
    for after in (1, 5, 9):
        failing = Service(failing_after=after)
        with pytest.raises(
            InputError, match=r"ranked labels from the client, got .*away.*; the answers so far are kept"
        ):
            run(failing, data, tmp_path / "broken")
        calls += failing.seen.total()
    found = run(Service(), data, tmp_path / "broken")
    assert found.rows == expected.rows and found.calls == expected.calls - calls
    assert run(Service(failing_after=0), data, tmp_path / "broken").calls == 0
    with pytest.raises(OptionError, match="other settings"):
        run(Service(), data, tmp_path / "broken", attack=PGD(eps=0.1, targeted=True))


def test_more_pairs_keep_the_answers(data: UnlabelledImages, tmp_path: Path) -> None:
    before = run(Service(), data, tmp_path / "out").calls
    more = RankedSettings(pairs=5, validation_pairs=2, k=2)
    found = run(Service(), data, tmp_path / "out", settings=more)
    assert found.pairs == 5 and 0 < found.calls < before


def test_an_untargeted_attack_starts_from_the_predicted_class(data: UnlabelledImages, tmp_path: Path) -> None:
    found = run(Service(), data, tmp_path / "out", attack=PGD(eps=0.2, alpha=0.05, steps=10))
    assert found.pairs == 4


def test_calls_keep_to_the_rate(data: UnlabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(client.time, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(client.time, "sleep", slept.append)
    found = run(Service(), data, tmp_path / "out", settings=RankedSettings(pairs=4, k=2, per_second=4))
    assert slept[0] == 0 and slept[1:] == pytest.approx([0.25] * (found.calls - 1))


@pytest.mark.parametrize("answer", ["cat", None, 3, ["cat", 4]])
def test_an_answer_that_is_no_list_of_labels_is_refused(answer: Any, data: UnlabelledImages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a list of labels, the likeliest first, from the client"):
        run(lambda picture: answer, data, tmp_path / "out")


def test_too_few_pairs_are_an_error_or_said(data: UnlabelledImages, tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"images whose labels all change under the attack, got 0 .and 16 with a label in common.; give more",
    ):
        run(Service(), data, tmp_path / "weak", attack=PGD(eps=0.001, targeted=True))
    many = RankedSettings(pairs=50, k=2)
    found = run(Service(), data, tmp_path / "out", settings=many)
    assert found.tried == 16 and 0 < found.pairs < 16
    # A service that knows fewer labels than are compared has no pairs.
    with pytest.raises(InputError, match=r"16 with fewer labels than are compared.; compare fewer labels than 2"):
        run(lambda picture: ["cat"], data, tmp_path / "one")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"settings": {"pairs": 3}}, "RankedSettings"),
        ({"iterations": [0]}, "iterations"),
        ({"iterations": [1, 1000]}, "iterations"),
        ({"iterations": 5}, "iterations as a list of numbers"),
        ({"surrogates": []}, "model"),
        ({"surrogates": Coarse().eval()}, "surrogates as a list"),
        ({"surrogates": [nn.Flatten(0).eval()]}, "surrogates that classify, with the same classes.*768"),
        ({"surrogates": [nn.Linear(3, 3)]}, "surrogates that take images .1, 3, 16, 16. in .0, 1., got"),
        ({"surrogates": [nn.Sequential(Coarse(), nn.Dropout())]}, "eval mode"),
        (
            {"surrogates": [Coarse().eval(), nn.Flatten().eval()]},
            "same classes.*12.*768.*; leave out those that differ",
        ),
        ({"purifiers": {"gs": "gs"}}, "purifiers as a dict from names to Purifier"),
        ({"purifiers": {"none": Purifier.from_pretrained("gs")}}, "another name than 'none'"),
        ({"attack": "PGD"}, "expected an attack such as PGD"),
        ({"name": 3}, "name as a text"),
        ({"name": ""}, "name=..., which tells services apart"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_odd_arguments_are_refused(options: dict[str, Any], match: str, data: UnlabelledImages, tmp_path: Path) -> None:
    service = Service()
    with pytest.raises((InputError, OptionError), match=match):
        run(service, data, tmp_path / "out", **options)
    # Nothing was paid for.
    assert not service.seen


def test_results_inside_the_images_are_refused(data: UnlabelledImages) -> None:
    with pytest.raises(OptionError, match="outside the folder of images"):
        run(Service(), data, data.root / "results")


def test_other_purifiers_and_another_order_keep_the_answers(data: UnlabelledImages, tmp_path: Path) -> None:
    gs, jpeg, median = (Purifier.from_pretrained(name) for name in ("gs", "jpeg", "median"))
    first = run(Service(), data, tmp_path / "out", purifiers={"gs": gs, "jpeg": jpeg})
    again = run(Service(failing_after=0), data, tmp_path / "out", purifiers={"other name": jpeg, "gs": gs})
    assert again.calls == 0 and [row.attacked for row in again.rows[1:]] == [row.attacked for row in first.rows[:0:-1]]
    more = run(Service(), data, tmp_path / "out", purifiers={"median": median, "jpeg": jpeg, "gs": gs})
    assert more.calls == 2 * 4 and more.rows[2].attacked == first.rows[2].attacked


def test_pictures_of_an_earlier_attack_are_made_again(data: UnlabelledImages, tmp_path: Path) -> None:
    run(Service(), data, tmp_path / "out")
    for path in (tmp_path / "out" / "records").glob("*.jsonl"):
        path.unlink()
    with pytest.raises(InputError, match=r"got 0 .and 16 with a label in common"):
        run(Service(), data, tmp_path / "out", attack=PGD(eps=0.001, targeted=True))


def test_random_purifiers_are_seeded(data: UnlabelledImages, tmp_path: Path) -> None:
    noisy = {"noisy": Purifier.from_pretrained("gs", iterations=1).dynamic(sigma=0.3, eps=0.3)}
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(run(Service(), data, tmp_path / f"{seed}", purifiers=noisy).rows)
    assert found[0] == found[1]


def test_unreadable_pictures_are_left_out(data: UnlabelledImages, tmp_path: Path) -> None:
    data.files[0].write_bytes(b"no picture")
    found = run(Service(), data, tmp_path / "out", settings=RankedSettings(pairs=50, k=2))
    assert found.left["unreadable"] == 1 and found.tried == 16
    text = write_ranked(found, tmp_path / "out")["markdown"].read_text()
    assert f"{found.pairs} (50 were asked for), of 16 images tried" in text and "1 unreadable" in text


def test_empty_answers_for_attacked_pictures_are_no_pairs(data: UnlabelledImages, tmp_path: Path) -> None:
    clean = {Image.fromarray(np.asarray(Image.open(path).resize((16, 16)))).tobytes() for path in data.files}
    assert len(clean) == 16
    service, seen = Service(), set[bytes]()

    def shy(picture: Image.Image) -> list[str]:
        # The clean picture comes first, then its attacked form.
        first = len(seen) % 2 == 0
        seen.add(picture.tobytes())
        return service(picture) if first else []

    with pytest.raises(InputError, match="16 with fewer labels"):
        run(shy, data, tmp_path / "out")


def test_settings_are_checked() -> None:
    odd = (
        {"pairs": 0},
        {"k": -1},
        {"per_second": -1.0},
        {"per_second": 1e-300},
        {"validation_pairs": 1.5},
        {"seed": 2**70},
    )
    for options in odd:
        with pytest.raises(OptionError):
            RankedSettings(**options)  # type: ignore[arg-type]


def test_files_have_all_figures(data: UnlabelledImages, tmp_path: Path) -> None:
    found = run(Service(), data, tmp_path / "out", iterations=[1, 2])
    files = write_ranked(found, tmp_path / "out", command="purifier evaluate")
    result = json.loads(files["json"].read_text())
    assert [row["purifier"] for row in result["rows"]] == ["none", "gs", "jpeg"] and result["tried"] == found.tried
    assert result["rows"][1]["attacked"]["prediction_accuracy"]["share"] == found.rows[1].attacked.prediction_accuracy
    text = files["markdown"].read_text()
    assert (
        f"gs i={found.rows[1].iterations}" in text
        and "attacked: top 2" in text
        and "on other pairs (2), gs: i=1" in text
    )


CLIENT = """
from tests.evaluation.test_ranked_services import Coarse, Service

def ask(picture):
    return Service()(picture)

def build():
    return Coarse().eval()
"""


def test_the_command_evaluates_a_service(
    data: UnlabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.py"
    file.write_text(CLIENT)
    given = ["evaluate", "--task", "ranked", "--client", f"{file}:ask", "--surrogate", f"{file}:build"]
    given += ["--data", str(data.root), "--size", "16", "--purifier", "gs", "--out", str(tmp_path / "out")]
    some = ["--attack", "PGD:targeted=true,steps=10", "--eps", "0.2", "--pairs", "3", "--top", "2"]
    done = CliRunner().invoke(command, [*given, *some, "--validation-pairs", "1", "--iterations", "1,2"])
    assert done.exit_code == 0, done.output
    assert "without a label in common: 3, of" in done.output and "| gs i=" in done.output
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result["settings"]["service"] == f"{file}:ask" and result["pairs"] == 3
    again = CliRunner().invoke(command, [*given, *some, "--pairs", "2", "--overwrite"])
    assert again.exit_code == 0 and "in common: 2, of" in again.output
    files = sorted((tmp_path / "out").rglob("*.jsonl"))
    for wrong, match in (
        (["--model", "reference:demo"], "expected options of --task ranked, got --model"),
        (["--votes", "3"], "got --votes"),
        (["--iterations", "0"], "iterations"),
        (["--iterations", "one"], "expected numbers such as 1,2,5 for --iterations"),
        (["--attack", "FGSM"], "expected one --attack at one --eps"),
    ):
        refused = CliRunner().invoke(command, [*given, *some, *wrong, "--overwrite"])
        assert isinstance(refused.exception, OptionError) and match in str(refused.exception)
        # What was paid for is kept.
        assert sorted((tmp_path / "out").rglob("*.jsonl")) == files
