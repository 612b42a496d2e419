"""purifier purify: which files are written, with which content, and runs that resume."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from purifier import InputError, OptionError, OutputError, Purifier
from purifier.cli import command, main
from purifier.commands.purify import run
from purifier.data.outputs import Job, plan
from tests.builders import lock_folder

COMMAND = [sys.executable, "-m", "purifier", "purify"]


def photograph(path: Path, size: tuple[int, int] = (20, 14), seed: int = 0, **options: Any) -> Image.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    image.save(path, **options)
    return image


def purify(*arguments: object) -> Result:
    defaults = ["--purifier", "gs", "--dtype", "float32", "--device", "cpu"]
    return CliRunner().invoke(command, ["purify", *map(str, arguments), *defaults])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_file_is_purified_as_the_library_purifies_it(tmp_path: Path) -> None:
    photograph(tmp_path / "a.png")
    result = purify(tmp_path / "a.png", tmp_path / "b.png")
    assert result.exit_code == 0, result.output
    assert "purified 1, skipped 0, failed 0" in result.output
    expected = Purifier.from_pretrained("gs").purify_image(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "b.png"), np.asarray(expected))


def test_a_file_goes_into_a_folder_under_its_own_name(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg")
    assert purify(tmp_path / "a.jpg", tmp_path / "out").exit_code == 0
    assert set(files(tmp_path / "out")) == {"a.png"}


def test_a_gate_leaves_a_clean_image_nearly_unchanged(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 4, (64, 64, 3)).copy()
    ramp[:, 32:] //= 2
    Image.fromarray(ramp).save(tmp_path / "a.png")
    for name, gate in (("plain", []), ("gated", ["--gate", "alloy-s"])):
        assert purify(tmp_path / "a.png", tmp_path / f"{name}.png", *gate).exit_code == 0
    plain, gated = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("plain", "gated"))
    assert np.abs(gated - ramp).mean() < 0.5 * np.abs(plain - ramp).mean()
    assert "without one" in str(purify(tmp_path / "a.png", tmp_path / "b.png", "--gate", "gs").exception)


def test_a_folder_tree_is_mirrored(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "b/notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / "in" / name).write_text("no image")
        else:
            photograph(tmp_path / "in" / name)
    result = purify(tmp_path / "in", tmp_path / "out")
    assert "purified 3, skipped 0, failed 0" in result.output
    assert set(files(tmp_path / "out")) == {"a.png", "b/c.png", "b/d/e.png"}


def test_lossless_output_is_exact_also_from_jpeg_with_an_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(tmp_path / "in" / "a.jpg", exif=exif)
    assert purify(tmp_path / "in", tmp_path / "out", "--iterations", 0).exit_code == 0
    with Image.open(tmp_path / "in" / "a.jpg") as stored:
        assert np.array_equal(pixels(tmp_path / "out" / "a.png"), np.rot90(np.asarray(stored), -1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_images_keep_their_mode(mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray(values[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    else:
        Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
    assert purify(tmp_path / "a.png", tmp_path / "b.png", "--iterations", 0).exit_code == 0
    assert np.array_equal(pixels(tmp_path / "b.png"), pixels(tmp_path / "a.png"))
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == mode


def test_a_second_run_skips_existing_outputs_unless_overwrite_is_given(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "in" / "b.png", seed=1)
    purify(tmp_path / "in", tmp_path / "out")
    whole = files(tmp_path / "out")
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    (tmp_path / "out" / "b.png").unlink()
    assert "purified 1, skipped 1, failed 0" in purify(tmp_path / "in", tmp_path / "out").output
    assert files(tmp_path / "out") == {"a.png": b"mine", "b.png": whole["b.png"]}
    assert "purified 2, skipped 0, failed 0" in purify(tmp_path / "in", tmp_path / "out", "--overwrite").output
    assert files(tmp_path / "out") == whole


def test_a_source_that_was_replaced_is_purified_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.png"):
        photograph(source / name)
    assert purify(source, target).exit_code == 0
    later = (target / "a.png").stat().st_mtime_ns + 10**9
    photograph(source / "a.png", seed=5)
    os.utime(source / "a.png", ns=(later, later))
    result = purify(source, target)
    assert "purified 1, skipped 1" in result.output
    assert (target / "a.png").read_bytes() != (target / "b.png").read_bytes()


def test_pictures_that_are_no_outputs_are_kept_also_if_they_are_older(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    for target in (tmp_path / "out" / "a.png", tmp_path / "mine.png"):
        photograph(target, seed=3)
        os.utime(target, ns=(0, 0))
        before = target.read_bytes()
        folder = target.parent.name == "out"
        result = purify(*((tmp_path / "in", tmp_path / "out") if folder else (tmp_path / "in" / "a.png", target)))
        assert "purified 0, skipped 1" in result.output and target.read_bytes() == before
        assert "settings are unknown (1)" in result.output


def test_a_single_file_does_not_go_into_a_folder_of_other_settings(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photograph(tmp_path / "in" / name)
    assert purify(tmp_path / "in" / "a.png", tmp_path / "out", "--iterations", 3).exit_code == 0
    error = purify(tmp_path / "in" / "b.png", tmp_path / "out" / "b.png", "--iterations", 9).exception
    assert isinstance(error, OptionError) and "made with these settings, got others" in str(error)
    assert purify(tmp_path / "in" / "b.png", tmp_path / "out" / "b.png", "--iterations", 3).exit_code == 0
    assert "skipped 2" in purify(tmp_path / "in", tmp_path / "out", "--iterations", 3).output


def test_existing_outputs_of_other_settings_are_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    assert "purified 1" in purify(tmp_path / "in", tmp_path / "out", "--tile", 32).output
    made = files(tmp_path / "out")
    result = purify(tmp_path / "in", tmp_path / "out", "--iterations", 3)
    assert isinstance(result.exception, OptionError)
    assert "got others (purifier.options.iterations: 7 there, 3 here); choose another DST" in str(result.exception)
    # Outputs do not depend on tiles or the batch size.
    again = purify(tmp_path / "in", tmp_path / "out", "--batch-size", 1)
    assert "skipped 1" in again.output and "note" not in again.output
    assert files(tmp_path / "out") == made
    assert "purified 1" in purify(tmp_path / "in", tmp_path / "out", "--iterations", 3, "--overwrite").output
    assert files(tmp_path / "out") != made
    assert "skipped 1" in purify(tmp_path / "in", tmp_path / "out", "--iterations", 3).output
    assert isinstance(purify(tmp_path / "in", tmp_path / "out").exception, OptionError)


def test_an_emptied_folder_takes_other_settings(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    purify(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out" / "a.png").unlink()
    result = purify(tmp_path / "in", tmp_path / "out", "--iterations", 3)
    assert "got others" in str(result.exception), "another run may be about to write"
    os.utime(tmp_path / "out" / ".purifier.json", (time.time() - 3600,) * 2)
    assert "purified 1" in purify(tmp_path / "in", tmp_path / "out", "--iterations", 3).output


def test_images_of_unknown_settings_are_kept_with_a_note(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "out" / "a.png")
    for _ in range(2):
        result = purify(tmp_path / "in", tmp_path / "out")
        assert result.exit_code == 0 and "skipped 1" in result.output
        assert "note: kept the images in DST whose settings are unknown (1); use --overwrite" in result.stderr
    photograph(tmp_path / "b.png")
    assert "note" not in purify(tmp_path / "in" / "a.png", tmp_path / "c.png").output
    assert (
        "note: kept the images in DST whose settings are unknown (1)"
        in purify(tmp_path / "in" / "a.png", tmp_path / "b.png").stderr
    )
    assert not list(tmp_path.rglob(".purifier.json"))


def test_overwriting_a_part_of_the_images_removes_the_record(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        photograph(tmp_path / "in" / f"{name}.png", seed=number)
    purify(tmp_path / "in", tmp_path / "out")
    only = tmp_path / "in" / "a.png"
    assert "purified 1" in purify(only, tmp_path / "out", "--iterations", 3, "--overwrite").output
    for options in ([], ["--iterations", 3]):
        assert (
            "note: kept the images in DST whose settings are unknown (2)"
            in purify(tmp_path / "in", tmp_path / "out", *options).stderr
        )


def test_a_folder_that_holds_the_sources_has_a_record_too(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    assert "purified 1" in purify(tmp_path / "in", tmp_path).output
    again = purify(tmp_path / "in", tmp_path)
    assert "skipped 1" in again.output and "note" not in again.output
    assert isinstance(purify(tmp_path / "in", tmp_path, "--iterations", 3).exception, OptionError)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    (tmp_path / "file").touch()
    result = purify(tmp_path / "in", tmp_path / "file" / "out")
    assert isinstance(result.exception, OutputError)
    assert "expected a place that can be written, got" in str(result.exception)


def test_two_sources_with_one_short_output_name_get_long_names(tmp_path: Path) -> None:
    for number, name in enumerate(("a.jpg", "a.png", "b.jpg", "c/a.png")):
        photograph(tmp_path / "in" / name, seed=number)
    assert purify(tmp_path / "in", tmp_path / "out", "--iterations", 0).exit_code == 0
    assert set(files(tmp_path / "out")) == {"a.jpg.png", "a.png.png", "b.png", "c/a.png"}
    for name, output in (("a.jpg", "a.jpg.png"), ("a.png", "a.png.png"), ("b.jpg", "b.png")):
        assert np.array_equal(pixels(tmp_path / "in" / name), pixels(tmp_path / "out" / output))


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "a.png", "a.jpg.png"],
        ["a.jpg", "a.png", "a.jpg.png", "a.jpg.webp", "a.jpg.png.png", "a.png.png"],
        ["a.jpg", "A.png"],
        ["x.bmp", "x.tif", "x.tiff", "x.webp"],
    ],
)
def test_no_two_files_ever_share_an_output(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    targets = [str(job.target).casefold() for job in plan(tmp_path, tmp_path / "out")]
    assert len(targets) == len(set(targets)) == len(names)


def test_format_keep_writes_each_file_in_its_own_format(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.webp", "c.tif"):
        photograph(tmp_path / "in" / name)
    assert purify(tmp_path / "in", tmp_path / "out", "--format", "keep").exit_code == 0
    assert set(files(tmp_path / "out")) == {"a.jpg", "a.png", "b.webp", "c.tif"}
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("b.webp", "WEBP"), ("c.tif", "TIFF")):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == kind


def test_outputs_in_the_source_folder_are_not_sources(tmp_path: Path) -> None:
    photograph(tmp_path / "a.png")
    assert "purified 1, skipped 0" in purify(tmp_path, tmp_path / "out").output
    assert "purified 0, skipped 1" in purify(tmp_path, tmp_path / "out").output
    assert "purified 1, skipped 0" in purify(tmp_path, tmp_path / "out", "--overwrite").output
    assert set(files(tmp_path)) == {"a.png", "out/a.png"}


def test_files_that_cannot_be_read_are_reported_and_the_others_purified(tmp_path: Path) -> None:
    for number in range(3):
        photograph(tmp_path / "in" / f"{number}.png", seed=number)
    (tmp_path / "in" / "0bad.png").write_text("no image")
    photograph(tmp_path / "in" / "1cut.png", size=(64, 64))
    data = (tmp_path / "in" / "1cut.png").read_bytes()
    (tmp_path / "in" / "1cut.png").write_bytes(data[: len(data) // 2])
    result = purify(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "purified 3, skipped 0, failed 2" in result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "0bad.png, which cannot be read: its format is unknown" in errors[0]
    assert "1cut.png, which cannot be read" in errors[1]
    assert set(files(tmp_path / "out")) == {"0.png", "1.png", "2.png"}


def test_a_folder_that_cannot_be_read_fails_and_the_others_are_purified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "in" / "locked" / "b.png")
    photograph(tmp_path / "in" / "z" / "c.png")
    lock_folder(monkeypatch, "locked")
    result = purify(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "purified 2, skipped 0, failed 1" in result.stdout
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert error.endswith("locked: Permission denied")
    assert set(files(tmp_path / "out")) == {"a.png", "z/c.png"}


def test_a_batch_that_does_not_fit_in_memory_is_purified_one_by_one(tmp_path: Path) -> None:
    for number in range(3):
        photograph(tmp_path / "in" / f"{number}.png", seed=number)
    purifier = Purifier.from_pretrained("gs")
    calls: list[int] = []

    def forgetful(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(images) > 1 or len(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return purifier(images)

    summary = run(plan(tmp_path / "in", tmp_path / "out"), forgetful)  # type: ignore[arg-type]
    assert calls == [3, 1, 1, 1]
    assert summary.written == 2
    assert [(path.name, reason) for path, reason in summary.failures] == [("1.png", "out of memory")]


def test_a_batch_has_images_of_one_size_and_large_images_come_alone(tmp_path: Path) -> None:
    for number in range(5):
        photograph(tmp_path / "in" / f"{number}.png", size=(8, 8))
    photograph(tmp_path / "in" / "2between.png", size=(9, 8))
    for number in range(2):
        Image.new("RGB", (2000, 1100)).save(tmp_path / "in" / f"big{number}.png")
    sizes: list[tuple[int, ...]] = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        sizes.append((len(images), *images.shape[2:]))
        return images

    run(plan(tmp_path / "in", tmp_path / "out"), watched, batch_size=3)  # type: ignore[arg-type]
    assert sorted(sizes) == [(1, 8, 9), (1, 1100, 2000), (1, 1100, 2000), (2, 8, 8), (3, 8, 8)]


def test_a_resumed_run_computes_the_same_batches(tmp_path: Path) -> None:
    for number in range(6):
        photograph(tmp_path / "in" / f"{number}.png", size=(8, 8), seed=number)
    jobs = plan(tmp_path / "in", tmp_path / "out")
    seen: list[torch.Tensor] = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images

    run(jobs, watched, batch_size=3)  # type: ignore[arg-type]
    jobs[4].target.unlink()
    summary = run(jobs, watched, batch_size=3)  # type: ignore[arg-type]
    assert (summary.written, summary.skipped) == (1, 5)
    assert len(seen) == 3
    assert torch.equal(seen[1], seen[2])


def test_tiles_give_the_same_output(tmp_path: Path) -> None:
    photograph(tmp_path / "a.png", size=(90, 70))
    purify(tmp_path / "a.png", tmp_path / "whole.png")
    purify(tmp_path / "a.png", tmp_path / "tiled.png", "--tile", 32)
    difference = pixels(tmp_path / "whole.png").astype(int) - pixels(tmp_path / "tiled.png")
    assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        ("nothing", "out", InputError, "an image file or a folder of images, got .*nothing, which does not exist"),
        ("empty", "out", InputError, r"expected images \(\.png, .*\) below .*empty, got none"),
        ("in", "in", OptionError, "a DST other than SRC"),
        ("in", "in/a.png", OptionError, "a folder to write to, as SRC is a folder, got .*, which is a file"),
        ("in/a.png", "in/a.png", OptionError, "outputs that replace no source"),
        ("in/a.png", "out.gif", InputError, "a file name that ends in one of"),
        ("nested/in", "nested", OptionError, "outputs that replace no source"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_written(
    source: str, target: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "nested" / "in" / "in" / "b.png")
    photograph(tmp_path / "nested" / "in" / "b.png")
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    with pytest.raises(error, match=message):
        plan(tmp_path / source, tmp_path / target)
    assert files(tmp_path) == before


def test_a_wrong_option_of_the_purifier_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        main(["purify", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--purifier", "jpeg", "--iterations", "3"])
    assert stop.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: expected the options quality for 'jpeg', got 'iterations'")


def test_old_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    old, new = (tmp_path / "out" / f".a.png.{digit * 16}.part" for digit in "12")
    old.write_bytes(b"half")
    new.write_bytes(b"another run may be writing this")
    os.utime(old, (time.time() - 3600,) * 2)
    run([Job(tmp_path / "in" / "a.png", tmp_path / "out" / "a.png")], Purifier.from_pretrained("gs"))
    assert not old.exists()
    assert new.exists()


@pytest.mark.slow
def test_a_killed_run_is_completed_with_the_files_of_an_uninterrupted_one(tmp_path: Path) -> None:
    for number in range(14):
        photograph(tmp_path / "in" / f"{number:02}.png", size=(160, 120) if number % 3 else (120, 120), seed=number)
    options = ["--purifier", "tvm", "--device", "cpu", "--dtype", "float32", "--batch-size", "4"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = subprocess.Popen([*COMMAND, str(tmp_path / "in"), str(broken), *options], stdout=subprocess.DEVNULL)

    def run_to(out: Path) -> Result:
        return CliRunner().invoke(command, ["purify", str(tmp_path / "in"), str(out), *options], catch_exceptions=False)

    deadline = time.time() + 120
    while len(files(broken)) < 5 and time.time() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    left = files(broken)
    assert 5 <= len(left) < 14
    assert f"purified {14 - len(left)}, skipped {len(left)}, failed 0" in run_to(broken).stdout
    assert run_to(whole).exit_code == 0 and len(files(whole)) == 14
    assert files(broken) == files(whole)
    assert left.items() <= files(whole).items()


def test_every_format_is_purified_in_a_folder_and_the_rest_is_counted(tmp_path: Path) -> None:
    kinds = {"png": "PNG", "gif": "GIF", "webp": "WEBP", "jfif": "JPEG", "ppm": "PPM", "bmp": "BMP", "tif": "TIFF"}
    for number, (suffix, kind) in enumerate(kinds.items()):
        photograph(tmp_path / "in" / f"{number}.{suffix}", format=kind)
    for name in ("a.txt", "b.txt", "c.mov"):
        (tmp_path / "in" / name).touch()
    result = purify(tmp_path / "in", tmp_path / "out")
    assert "purified 7, skipped 0, failed 0; not pictures, skipped 3: 2 .txt, 1 .mov" in result.output
    assert set(files(tmp_path / "out")) == {f"{number}.png" for number in range(7)}
    for number, suffix in enumerate(kinds):
        assert purify(tmp_path / "in" / f"{number}.{suffix}", tmp_path / "one.png", "--overwrite").exit_code == 0


def test_an_animation_is_a_failure_with_its_name(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    photograph(tmp_path / "in" / "a.png")
    frames[0].save(tmp_path / "in" / "b.gif", save_all=True, append_images=frames[1:])
    result = purify(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "purified 1, skipped 0, failed 1" in result.output
    assert "b.gif: expected a single picture, got 2 frames, an animation (GIF)" in result.stderr


def test_format_keep_keeps_exif_and_refuses_formats_of_few_colours(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Maker"
    photograph(tmp_path / "in" / "a.jpg", exif=exif, dpi=(300, 300), icc_profile=b"a profile")
    photograph(tmp_path / "in" / "b.gif")
    photograph(tmp_path / "in" / "c.ppm")
    result = purify(tmp_path / "in", tmp_path / "out", "--format", "keep")
    assert result.exit_code == 1
    assert "purified 2, skipped 0, failed 1" in result.output
    assert "got 'b.gif'; .gif holds too few colours; choose .png" in result.stderr
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert (image.size, image.getexif()[271], image.getexif().get(0x0112, 1)) == ((14, 20), "Maker", 1)
        assert (image.info["icc_profile"], image.info["dpi"]) == (b"a profile", (300, 300))


def test_links_out_of_the_source_folder_are_said(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    result = purify(tmp_path / "in", tmp_path / "out")
    assert (
        f"note: {tmp_path / 'in' / 'link'} leads out of the source folder, to {tmp_path / 'elsewhere'}" in result.stderr
    )
    assert set(files(tmp_path / "out")) == {"a.png", "link/b.png"}


def test_a_folder_with_the_name_of_an_output_is_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "0.png")
    (tmp_path / "out" / "0.png").mkdir(parents=True)
    result = purify(tmp_path / "in", tmp_path / "out")
    assert isinstance(result.exception, OptionError)
    assert "expected outputs that replace files only, got" in str(result.exception)


def test_the_largest_picture_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph(tmp_path / "a.png", size=(40, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused = purify(tmp_path / "a.png", tmp_path / "b.png")
    assert refused.exit_code == 1
    assert "expected at most 0.001 megapixels, got 40 x 30 pixels" in refused.stderr
    assert purify(tmp_path / "a.png", tmp_path / "b.png", "--max-megapixels", 0.0012).exit_code == 0


@pytest.mark.parametrize("source", ["x" * 300, "https://example.org/a.png", "in/self.png"])
def test_sources_that_cannot_be_looked_at_are_refused(source: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "self.png").symlink_to(tmp_path / "in" / "self.png")
    result = purify(tmp_path / source if "http" not in source else source, tmp_path / "out")
    assert isinstance(result.exception, InputError)


def test_an_output_whose_name_would_be_too_long_is_a_failure(tmp_path: Path) -> None:
    long = "n" * 250
    for suffix in ("jpg", "png"):
        photograph(tmp_path / "in" / f"{long}.{suffix}")
    photograph(tmp_path / "in" / "a.png")
    result = purify(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "purified 1, skipped 0, failed 2" in result.output
    assert "File name too long" in result.stderr
