"""Evaluations of classifiers: counts, resumed runs, and refused input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import purifier
from purifier import InputError, OptionError, Purifier, evaluation
from purifier._records import read_records
from purifier.attacks import BPDA, FGSM, PGD, SSP, Aware, Blind, DeepFool, Square, Transfer
from purifier.cli import command
from purifier.evaluation import (
    Attacked,
    Evaluation,
    EvaluationSettings,
    LabelledImages,
    LoadedModel,
    Row,
    labelled_images,
)
from purifier.evaluation.rows import WORST_CASE
from tests.builders import unchanged
from tests.scenes import COLOURS, Colours, Detached, class_folders

QUICK = EvaluationSettings(batch_size=5, pictures=2, probe_images=0)
ATTACK = PGD(eps=8 / 255, steps=3)


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    return labelled_images(class_folders(tmp_path / "data"), 16, classes=COLOURS)


@pytest.fixture
def gs() -> Purifier:
    return Purifier.from_pretrained("gs", iterations=2)


def evaluate(
    data: LabelledImages,
    out: Path,
    purifiers: dict[str, Any],
    *,
    model: Any = None,
    settings: EvaluationSettings = QUICK,
    attacks: dict[str, Any] | None = None,
    threats: dict[str, Any] | None = None,
    **options: Any,
) -> Evaluation:
    return evaluation.evaluate(
        Colours() if model is None else model,
        data,
        purifiers=purifiers,
        attacks={"PGD": ATTACK} if attacks is None else attacks,
        threats={"blind": Blind(), "aware": Aware()} if threats is None else threats,
        out=out,
        settings=settings,
        **options,
    )


def find(result: Evaluation, purifier: str, threat: str, **facts: Any) -> Any:
    (row,) = [
        row
        for row in result.rows
        if (row.purifier, row.threat) == (purifier, threat)
        and all(getattr(row, name) == value for name, value in facts.items())
    ]
    return row


def kept(folder: Path) -> dict[str, Any]:
    """All predictions by cell and image, without the times."""
    return {
        path.stem: {index: record["predictions"] for index, record in read_records(path).items()}
        for path in sorted((folder / "records").glob("*.jsonl"))
        if not path.stem.startswith("checks")
    }


def test_rows_count_the_models_predictions(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    model = Colours()
    result = evaluate(data, tmp_path / "out", {"gs": gs}, model=model)
    images, labels = data.load(range(12))
    clean = model(images).argmax(1)
    row = find(result, "none", "none")
    assert (row.images, row.standard) == (12, int((clean == labels).sum())) and row.restored == 12
    purified = model(gs(images)).argmax(1)
    row = find(result, "gs", "none")
    assert (row.standard, row.restored) == (int((purified == labels).sum()), int((purified == clean).sum()))
    for name, threat in (("none", "blind"), ("gs", "blind"), ("gs", "aware")):
        row = find(result, name, threat)
        said = [r["predictions"]["given"][name] for r in read_records(cell(result, row)).values()]
        right_before = ((clean if name == "none" else purified) == labels).tolist()
        right_after = [guess == label for guess, label in zip(said, labels.tolist(), strict=True)]
        assert row.robust == sum(right_after)
        assert row.fooled == sum(b and not a for b, a in zip(right_before, right_after, strict=True))
        assert row.restored == sum(guess == int(c) for guess, c in zip(said, clean, strict=True))
        assert (row.eps, row.norm, row.steps) == (8 / 255, "Linf", 3)
        assert 0 < row.settings["largest_linf"] <= 8 / 255 + 1e-6
    # An attacker who knows more does not do worse, here where gradients are true.
    assert find(result, "none", "blind").robust < row.standard
    assert find(result, "gs", "aware").robust <= find(result, "gs", "blind").robust
    assert row.milliseconds > 0


def cell(result: Evaluation, row: Row) -> Path:
    return result.folder / "records" / f"{row.settings['cell']}.jsonl"


def test_blind_attacks_run_once_for_all_purifiers_and_never_call_them(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    calls = []
    model = Colours()

    class Counting(nn.Module):
        differentiable, random = True, False

        def purify(self, images: Tensor) -> Tensor:
            calls.append(torch.is_grad_enabled())
            return images

    evaluate(data, tmp_path / "out", {"a": Counting(), "b": Counting()}, model=model, threats={"blind": Blind()})
    # Clean and attacked, three batches, and two batches with pictures: for each purifier, never with gradients.
    assert len(calls) == 2 * (2 * 3 + 2) and not any(calls)


def test_worst_cases_are_the_minimum_per_image_over_aware_attacks_of_one_ball(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    attacks = {"PGD": ATTACK, "FGSM": FGSM(eps=8 / 255), "small": PGD(eps=1 / 255, steps=2)}
    threats = {"aware": Aware(), "bpda": BPDA()}
    result = evaluate(data, tmp_path / "out", {"gs": gs}, attacks=attacks, threats=threats)
    row = find(result, "gs", WORST_CASE, eps=8 / 255)
    labels = data.labels
    cells = [f"{threat}--gs--{attack}" for threat in threats for attack in ("PGD", "FGSM")]
    records = [read_records(tmp_path / "out" / "records" / f"{name}.jsonl") for name in cells]
    right = [all(r[i]["predictions"]["given"]["gs"] == labels[i] for r in records) for i in range(12)]
    assert row.robust == sum(right)
    assert row.settings["over"] == ["PGD (aware)", "PGD (bpda)", "FGSM (aware)", "FGSM (bpda)"]
    assert row.robust <= min(
        find(result, "gs", t, eps=8 / 255, attack=a).robust for t in threats for a in ("PGD", "FGSM")
    )
    assert find(result, "gs", WORST_CASE, eps=1 / 255).robust >= row.robust


def test_rounding_and_dtypes_are_measured_beside_the_plain_figures(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    settings = replace(QUICK, eight_bit=True, defend_dtypes=("bfloat16",))
    result = evaluate(data, tmp_path / "out", {"gs": gs}, settings=settings)
    forms = {(r.purifier, r.eight_bit, r.dtype) for r in result.rows if r.threat == "blind"}
    assert forms == {
        *(("gs", bits, dtype) for bits in (False, True) for dtype in ("float32", "bfloat16")),
        *(("none", bits, "float32") for bits in (False, True)),
    }
    assert gs.dtype == torch.float32
    images, labels = data.load(range(12))
    half = gs.__class__(gs.method).to(torch.bfloat16)
    expected = int((Colours()(half((images * 255).round() / 255)).argmax(1) == labels).sum())
    assert find(result, "gs", "none", eight_bit=True, dtype="bfloat16").standard == expected
    gs.to(torch.float32)


def test_eight_bit_rounding_undoes_perturbations_of_less_than_half_a_step(data: LabelledImages, tmp_path: Path) -> None:
    exact = replace(data, size=None)  # stored values are whole steps
    tiny = {"tiny": PGD(eps=0.4 / 255, steps=20)}
    result = evaluate(exact, tmp_path / "out", {}, attacks=tiny, settings=replace(QUICK, eight_bit=True))
    assert find(result, "none", "blind", eight_bit=True).fooled == 0


def test_random_purifiers_give_the_same_again(data: LabelledImages, tmp_path: Path) -> None:
    noisy = {"noisy": Purifier.from_pretrained("gs", iterations=1).dynamic(sigma=0.2, eps=0.2)}
    threats = {"aware:samples=2": Aware(samples=2)}
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for place, folder in enumerate(folders):
        torch.manual_seed(place)
        evaluate(data, folder, noisy, threats=threats, settings=replace(QUICK, seed=place // 2))
    a, b, c = map(kept, folders)
    assert a == b != c


def test_a_run_resumes_after_its_batches_were_cut_at_any_place(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    evaluate(data, whole, {"gs": gs})
    expected = kept(whole)
    path = whole / "records" / "aware--gs--PGD.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for keep in (b"".join(lines[:4]), b"".join(lines[:7])[:-9], b""):
        path.write_bytes(keep)
        evaluate(data, whole, {"gs": gs})
        assert kept(whole) == expected


ENTRY = f"{Path(__file__).parents[1] / 'scenes.py'}:colours"


def arguments(folder: Path, out: Path) -> list[str]:
    return [
        "evaluate", "--model", ENTRY,
        "--data", str(folder), "--size", "16", "--batch-size", "3", "--purifier", "gs:iterations=1,dynamic=true",
        "--attack", "PGD:steps=2", "--threat", "blind", "--threat", "aware:samples=2", "--device", "cpu",
        "--out", str(out),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_was_killed_gives_what_an_uninterrupted_one_gives(data: LabelledImages, tmp_path: Path) -> None:
    folder, out, whole = tmp_path / "data", tmp_path / "out", tmp_path / "whole"
    start = [sys.executable, "-c", "from purifier.cli import main; main()", *arguments(folder, out)]
    slow = {**os.environ, "SLOW_MODEL": "0.3"}
    run = subprocess.Popen(start, env=slow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    watched = out / "records" / "blind--PGD-steps=2-eps=8_255.jsonl"
    deadline = time.monotonic() + 120
    while not read_records(watched):
        assert run.poll() is None and time.monotonic() < deadline, run.stdout.read()
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    # As a kill in the middle of a write leaves it.
    watched.write_bytes(watched.read_bytes()[:-10])
    assert 0 < len(read_records(watched)) < 12
    assert not (out / "results.json").exists()
    for place in (out, whole):
        done = CliRunner().invoke(command, arguments(folder, place))
        assert done.exit_code == 0, done.output
    assert kept(out) == kept(whole)
    counts = [
        [
            {k: v for k, v in row.items() if k != "milliseconds"}
            for row in json.loads((place / "results.json").read_text())["rows"]
        ]
        for place in (out, whole)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: {"attacks": {"PGD": PGD(eps=8 / 255, steps=4)}}, r"attack.steps: 3 there, 4 here"),
        (lambda s: {"settings": replace(QUICK, seed=1)}, r"seed: 0 there, 1 here"),
        (lambda s: {"settings": replace(QUICK, batch_size=4)}, r"batch_size: 5 there, 4 here"),
        (lambda s: {"settings": replace(QUICK, eight_bit=True)}, r"variants: \['given'\] there"),
        (
            lambda s: {"purifiers": {"gs": Purifier.from_pretrained("gs", iterations=3)}},
            r"purifiers.gs.options.iterations: 2",
        ),
        (lambda s: {"data": s.pick(range(11))}, r"data: .* there, .* here; images: 12 there, 11 here"),
        (lambda s: {"threats": {"blind": Blind(), "aware": Aware(samples=2)}}, r"threat.samples: 1 there, 2 here"),
    ],
)
def test_results_of_other_settings_are_never_mixed_in(
    data: LabelledImages, gs: Purifier, tmp_path: Path, change: Callable[[LabelledImages], dict[str, Any]], text: str
) -> None:
    evaluate(data, tmp_path / "out", {"gs": gs})
    before = kept(tmp_path / "out")
    options = {"data": data, "purifiers": {"gs": gs}, **change(data)}
    with pytest.raises(OptionError, match=rf"{text}.*choose another --out"):
        evaluate(options.pop("data"), tmp_path / "out", options.pop("purifiers"), **options)
    assert kept(tmp_path / "out") == before


def test_another_model_is_another_setting(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    evaluate(data, tmp_path / "out", {"gs": gs})
    other = Colours()
    other.scale.data += 1
    with pytest.raises(OptionError, match=r"model\.sha256: "):
        evaluate(data, tmp_path / "out", {"gs": gs}, model=other)


def test_models_of_normalised_images_are_measured_as_their_plain_twins(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    plain = Colours()
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = plain
            self.eval()

        def forward(self, images: Tensor) -> Tensor:
            return self.plain(images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1))

    one = evaluate(data, tmp_path / "a", {"gs": gs}, model=plain)
    other = evaluate(data, tmp_path / "b", {"gs": gs}, model=Twin(), mean=mean, std=std)
    assert [(r.standard, r.robust) for r in one.rows] == [(r.standard, r.robust) for r in other.rows]


@pytest.mark.parametrize("way", ["wrap", "attach"])
def test_a_purifier_in_front_of_the_model_is_switched_off(
    data: LabelledImages, gs: Purifier, tmp_path: Path, way: str
) -> None:
    model: nn.Module = Colours()
    one = evaluate(data, tmp_path / "a", {"gs": gs}, model=model)
    if way == "wrap":
        model = purifier.wrap(model, "bit-depth", bits=1)
    else:
        purifier.attach(model, "bit-depth", bits=1)
    other = evaluate(data, tmp_path / "b", {"gs": gs}, model=model)
    figures = [[(row.purifier, row.attack, row.standard, row.robust) for row in run.rows] for run in (one, other)]
    assert figures[0] == figures[1] and other.settings["model"] == one.settings["model"]


def test_transfer_attacks_surrogates_alone(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    surrogate = Colours()
    threats = {"transfer": Transfer(surrogate, names=["twin"])}
    twin = evaluate(data, tmp_path / "a", {"gs": gs}, threats=threats)
    blind = evaluate(data, tmp_path / "b", {"gs": gs}, threats={"transfer": Blind()})
    assert find(twin, "gs", "transfer").robust == find(blind, "gs", "blind").robust
    surrogate.scale.data += 1
    with pytest.raises(OptionError, match=r"threat\.models"):
        evaluate(data, tmp_path / "a", {"gs": gs}, threats=threats)


def test_combinations_without_meaning_are_skipped_with_a_reason(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    features = nn.Conv2d(3, 2, 3).eval()
    purifiers = {"gs": gs, "jpeg": Purifier.from_pretrained("jpeg")}
    attacks = {"PGD": ATTACK, "SSP": SSP(features, steps=2), "Square": Square(queries=5)}
    result = evaluate(
        data, tmp_path / "out", purifiers, attacks=attacks, threats={"blind": Blind(), "aware": Aware(), "bpda": BPDA()}
    )
    left_out = {(s.attack, s.threat, s.purifier) for s in result.skipped}
    assert left_out == {
        ("PGD", "aware", "jpeg"),
        *(("SSP", threat, name) for threat in ("aware", "bpda") for name in purifiers),
        *(("Square", "bpda", name) for name in purifiers),
    }
    shown = {(r.settings["attack_key"], r.threat, r.purifier) for r in result.rows if "attack_key" in r.settings}
    assert not shown & left_out
    assert ("Square", "aware", "jpeg") in shown and ("SSP", "blind", "gs") in shown


@pytest.mark.parametrize("form", ["tensor", "folder"])
def test_images_attacked_beforehand_give_the_figures_of_their_attack(
    data: LabelledImages, gs: Purifier, tmp_path: Path, form: str
) -> None:
    model = Colours()
    images, labels = data.load(range(12))
    attacked = ATTACK.seeded(0)(model, images, labels)
    given = attacked
    if form == "folder":
        for path, image in zip(data.files, attacked, strict=True):
            target = tmp_path / "attacked" / path.relative_to(data.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(target)
        given = labelled_images(tmp_path / "attacked", 16, classes=COLOURS)
        attacked = given.load(range(12))[0]
    attacks = {"PGD": Attacked(images=given, attack=ATTACK), "FGSM": FGSM(eps=8 / 255)}
    result = evaluate(data, tmp_path / "out", {"gs": gs, "more": gs}, model=model, attacks=attacks)
    for name, shown in (("none", attacked), ("gs", gs(attacked)), ("more", gs(attacked))):
        row = find(result, name, "blind", attack="PGD")
        assert row.robust == int((model(shown).argmax(1) == labels).sum())
        assert (row.eps, row.steps) == (8 / 255, 3)
    # What was attacked without knowledge of a purifier has no aware figure.
    assert {row.attack for row in result.rows if row.threat == "aware"} == {"FGSM"}
    other = {"PGD": Attacked(images=images, attack=ATTACK)}
    with pytest.raises(OptionError, match=r"attacked: .* there, .* here"):
        evaluate(data, tmp_path / "out", {"gs": gs, "more": gs}, model=model, attacks=other)


def test_images_attacked_on_a_surrogate_count_as_a_transfer(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    surrogate = Transfer(Colours(), names=["twin"])
    images, labels = data.load(range(12))
    attacked = Attacked(images=list(ATTACK(Colours(), images, labels)), attack=ATTACK, threat=surrogate)
    result = evaluate(data, tmp_path / "out", {"gs": gs}, attacks={"PGD": attacked}, threats={})
    assert find(result, "gs", "transfer").settings["threat"]["surrogates"] == ["twin"]


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (lambda images: images[:5], "expected 12 attacked images for 'PGD', one for each clean image, got 5"),
        (lambda images: images[..., :9], r"expected attacked images of the clean images' shapes"),
    ],
)
def test_attacked_images_that_are_not_those_of_the_data_are_refused(
    data: LabelledImages, tmp_path: Path, cut: Callable[[Tensor], Tensor], text: str
) -> None:
    attacked = Attacked(images=cut(data.load(range(12))[0]), attack=ATTACK)
    with pytest.raises(InputError, match=text):
        evaluate(data, tmp_path / "out", {}, attacks={"PGD": attacked})


def test_unbounded_attacks_state_the_size_of_their_perturbations(
    data: LabelledImages, gs: Purifier, tmp_path: Path
) -> None:
    result = evaluate(data, tmp_path / "out", {}, attacks={"DeepFool": DeepFool(steps=20)}, threats={"blind": Blind()})
    row = find(result, "none", "blind")
    assert row.eps is None and row.settings["median_l2"] > 0


def test_the_self_checks_find_a_purifier_with_a_fault(data: LabelledImages, tmp_path: Path) -> None:
    settings = replace(QUICK, probe_images=6)
    result = evaluate(data, tmp_path / "out", {"bits": Purifier.from_pretrained("bit-depth")}, settings=settings)
    assert ("bits", "quantising purifier") in {(name, finding.check) for name, finding in result.findings}
    assert (None, "blind figure without an aware one") in {(name, finding.check) for name, finding in result.findings}
    # Kept, not measured again.
    again = evaluate(data, tmp_path / "out", {"bits": Purifier.from_pretrained("bit-depth")}, settings=settings)
    assert again.findings == result.findings


def test_images_outside_the_trained_range_are_found(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    settings = replace(QUICK, probe_images=4, trained_eps={"gs": 2 / 255}, trained_size={"gs": 224})
    result = evaluate(data, tmp_path / "out", {"gs": gs}, settings=settings)
    assert any(finding.check.startswith("outside") for name, finding in result.findings if name == "gs")


def test_model_and_purifier_stay_as_they_were(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    model = Colours()
    with unchanged(model), unchanged(gs):
        state = torch.random.get_rng_state()
        evaluate(data, tmp_path / "out", {"gs": gs}, model=model, settings=replace(QUICK, probe_images=3))
        assert torch.equal(torch.random.get_rng_state(), state)


def test_progress_counts_every_image_of_every_cell(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    told = []
    evaluate(data, tmp_path / "out", {"gs": gs}, progress=told.append)
    assert sum(told) == 3 * 12
    evaluate(data, tmp_path / "out", {"gs": gs}, progress=told.append)
    assert sum(told) == 2 * 3 * 12


def test_progress_counts_the_self_checks_too(data: LabelledImages, gs: Purifier, tmp_path: Path) -> None:
    told = []
    evaluate(data, tmp_path / "out", {"gs": gs}, settings=replace(QUICK, probe_images=3), progress=told.append)
    assert sum(told) == 3 * 12 + 3


def test_nan_outputs_count_as_wrong(data: LabelledImages, tmp_path: Path) -> None:
    class Broken(Colours):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.nan

    result = evaluate(data, tmp_path / "out", {}, model=Broken(), attacks={}, threats={})
    assert result.rows[0].standard == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval()},
            InputError,
            r"expected labels within 0..1, .*got 2",
        ),
        ({"model": nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())}, InputError, "expected a model in eval mode"),
        ({"model": Detached()}, InputError, "expected a model that gives gradients"),
        ({"model": lambda images: {"out": images}}, InputError, r"expected logits \(N, classes\) .*got a dict of out"),
        (
            {"model": lambda images: images},
            InputError,
            r"expected logits \(N, classes\).*got a tensor of shape \(1, 3, 16",
        ),
        *(
            (
                {"model": lambda x, dtype=dtype: x.flatten(1)[:, :3].to(dtype)},
                InputError,
                f"got a tensor .*{dtype}",
            )
            for dtype in (torch.bool, torch.complex64, torch.int64)
        ),
        (
            {"model": lambda images: torch.empty(len(images), 3, device="meta")},
            InputError,
            r"expected logits \(N, classes\).*without values",
        ),
        ({"purifiers": {"none": Purifier.from_pretrained("gs")}}, OptionError, "expected purifiers by other names"),
    ],
)
def test_what_does_not_fit_is_refused(
    data: LabelledImages, tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    purifiers = options.pop("purifiers", {})
    with pytest.raises(error, match=text):
        evaluate(data, tmp_path / "out", purifiers, **options)


def test_an_unreadable_image_stops_the_run_with_its_name(data: LabelledImages, tmp_path: Path) -> None:
    data.files[7].write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"{data.files[7].name}, which cannot be read"):
        evaluate(data, tmp_path / "out", {})


def test_a_loaded_model_is_evaluated_under_its_own_identity(data: LabelledImages, tmp_path: Path) -> None:
    loaded = LoadedModel("mine", Colours(), COLOURS, {"name": "mine"})
    result = evaluate(data, tmp_path / "out", {}, model=loaded, attacks={})
    assert result.settings["model"] == {"name": "mine", "normalisation": None}


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"ignore_index": 3}, "expected ignore_index for segmentation only, got it for classification"),
        ({"loss": "cls"}, "expected loss for detection only, got it for classification"),
    ],
)
def test_options_of_another_task_are_refused(
    data: LabelledImages, tmp_path: Path, option: dict[str, Any], text: str
) -> None:
    with pytest.raises(OptionError, match=text):
        evaluate(data, tmp_path / "out", {}, **option)
    assert not (tmp_path / "out").exists()


def test_data_of_no_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected data of one of the types LabelledImages, .* got list"):
        evaluate([], tmp_path / "out", {})


@pytest.mark.parametrize("name", ["evaluate_classifier", "evaluate_detector", "evaluate_segmenter"])
def test_functions_of_the_first_version_name_their_successor(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"{name} was removed in 0.2; call purifier.evaluation.evaluate"):
        getattr(evaluation, name)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="expected batch_size to be an integer from 1"):
        EvaluationSettings(batch_size=0)
