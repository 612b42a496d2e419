"""purifier convert: published checkpoints become folders; everything else is refused with an error."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

from purifier import OptionError, Purifier, UnsafeFileError, WeightsError
from purifier.cli import command, main
from purifier.commands.convert import convert_checkpoint
from purifier.methods.nrp import NRP, NRPResG

State = dict[str, Tensor]


def small_nrp() -> State:
    return NRP(filters=6, blocks=2, growth=4).state_dict()


def small_resg() -> State:
    return NRPResG(filters=6, blocks=3).state_dict()


def saved(folder: Path, content: object, name: str = "checkpoint.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def assert_loads(folder: Path, state: State) -> None:
    loaded = Purifier.from_pretrained(folder).method.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key].float()) for key in state)


@pytest.mark.parametrize(
    ("state", "method", "options"),
    [
        (small_nrp(), "nrp", {"filters": 6, "blocks": 2, "growth": 4}),
        (small_resg(), "nrp-resg", {"filters": 6, "blocks": 3}),
    ],
)
def test_a_state_dict_becomes_a_folder_that_loads_and_computes_the_same(
    state: State, method: str, options: dict[str, int], tmp_path: Path
) -> None:
    source = saved(tmp_path, state)
    made = convert_checkpoint(source, tmp_path / "out")
    assert (made.method, made.options, made.folder) == (method, options, tmp_path / "out")
    assert_loads(tmp_path / "out", state)
    twin = (NRP if method == "nrp" else NRPResG)(**options)
    twin.load_state_dict(state)
    images = torch.rand(1, 3, 8, 9)
    expected = twin(images).clamp(0, 1)
    assert torch.equal(Purifier.from_pretrained(tmp_path / "out")(images), expected)


def test_the_published_size_of_resg_is_recognised(tmp_path: Path) -> None:
    state = NRPResG().state_dict()
    made = convert_checkpoint(saved(tmp_path, state, "NRP_resG.pth"), tmp_path / "out")
    assert made.options == {"filters": 64, "blocks": 23}
    assert made.parameters == 1_702_211
    assert_loads(tmp_path / "out", state)


def real_esrgan_names(state: State) -> State:
    return {key.replace("RRDB_trunk.", "body.").replace(".RDB", ".rdb"): value for key, value in state.items()}


def other(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: OrderedDict(state),
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"params": state},
        lambda state: {"params": other(state), "params_ema": state},
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}, "optimizer": {"lr": 1}},
        lambda state: {"model": {"params_ema": real_esrgan_names(state), "params": other(state)}},
        real_esrgan_names,
    ],
)
def test_wrapped_and_renamed_state_dicts_are_found(wrap: Callable[[State], Any], tmp_path: Path) -> None:
    state = small_nrp()
    convert_checkpoint(saved(tmp_path, wrap(state)), tmp_path / "out")
    assert_loads(tmp_path / "out", state)


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    state = small_resg()
    save_file(state, tmp_path / "a.safetensors")
    convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out")
    assert_loads(tmp_path / "out", state)


def test_an_old_style_pickle_without_an_archive_is_read(tmp_path: Path) -> None:
    state = small_resg()
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")
    assert_loads(tmp_path / "out", state)


def test_half_precision_is_widened_without_a_change_of_value(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in small_resg().items()}
    convert_checkpoint(saved(tmp_path, state), tmp_path / "out")
    assert_loads(tmp_path / "out", state)


def test_the_folder_names_its_source(tmp_path: Path) -> None:
    source = saved(tmp_path, small_resg(), "NRP_resG.pth")
    convert_checkpoint(source, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert config["converted_from"] == "NRP_resG.pth"
    assert config["sha256_of_source"] == digest
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown\n")
    assert "user's own copy of a published checkpoint" in card
    assert "No figures were measured" in card
    assert digest in card


class Marker:
    """Pickles to a call that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("hidden", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_the_code_is_not_run(
    archive: bool, hidden: bool, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    content = {**small_resg(), "extra": Marker(marker)} if hidden else Marker(marker)
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(
        UnsafeFileError, match=r"nothing but tensors, got a\.pth, which holds a call of \w+\.system and"
    ):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_pickled_network_is_refused_as_code(tmp_path: Path) -> None:
    torch.save(NRPResG(filters=2, blocks=1), tmp_path / "a.pth")
    with pytest.raises(
        UnsafeFileError, match=r"holds a call of purifier\.methods\.nrp\.NRPResG .* save its state dict"
    ):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


def test_a_pickled_number_of_numpy_is_refused_as_code(tmp_path: Path) -> None:
    source = saved(tmp_path, {"state_dict": small_resg(), "best": np.float64(0.5)})
    with pytest.raises(UnsafeFileError, match=r"holds a call of numpy\.\S*scalar "):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_refused_as_code(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Conv2d(3, 3, 3), torch.rand(1, 3, 8, 8)).save(tmp_path / "a.pt")
    with pytest.raises(UnsafeFileError, match="holds a TorchScript program"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "out")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("archive", [True, False])
def test_a_truncated_file_is_refused(archive: bool, share: float, tmp_path: Path) -> None:
    torch.save(small_resg(), tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"got a\.pth of [\d,]+ bytes, which cannot be read .* truncated"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", bytes(64)]
)
def test_another_kind_of_file_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=r"expected a checkpoint that torch\.save or safetensors wrote"):
        convert_checkpoint(tmp_path / name, tmp_path / "out")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected a checkpoint file, got .*a\.pth, which does not exist"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


def without(state: State, *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "to hold a state dict .* got list"),
        ({}, "to hold a state dict .* got an empty dict"),
        ({"epoch": 3, "net": 1}, "state dict of tensors, .* got other entries: epoch, net"),
        ({"conv.weight": torch.zeros(1)}, "to be NRP .* or NRP resG .* got tensors named conv.weight"),
        (
            {**small_resg(), "bn.weight": torch.zeros(6)},
            "to be nrp-resg with filters=6, blocks=3, got the unknown bn.w",
        ),
        (without(small_resg(), "conv_last.bias"), "to be nrp-resg .*, got no conv_last.bias"),
        (without(small_resg(), "conv_first.weight"), "a convolution conv_first.weight of shape .* got none"),
        (
            {**small_resg(), "conv_last.weight": torch.zeros(12, 6, 3, 3)},
            r"got conv_last.weight of shape \(12, 6, 3, 3\) instead of \(3, 6, 3, 3\)",
        ),
        ({**small_resg(), "conv_last.bias": torch.zeros(3).int()}, "got conv_last.bias of torch.int32"),
        (
            {**small_resg(), "conv_last.bias": torch.full((3,), torch.nan)},
            "values that are not finite in conv_last.bias",
        ),
        (
            {key: value for key, value in small_resg().items() if not key.startswith("recon_trunk.1.")},
            "the blocks recon_trunk.0, .* got none numbered 1",
        ),
        (
            {**small_nrp(), "conv_up1.weight": torch.zeros(6, 6, 3, 3), "conv_hr.weight": torch.zeros(6, 6, 3, 3)},
            "got the unknown conv_up1.weight, conv_hr.weight",
        ),
    ],
)
def test_another_network_is_refused_with_what_differs(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"expected checkpoint.pth .*{message}"):
        convert_checkpoint(saved(tmp_path, content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_in_it_is_written_to_only_with_overwrite(tmp_path: Path) -> None:
    source = saved(tmp_path, small_resg())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"an empty or a new folder, .* pass --overwrite"):
        convert_checkpoint(source, tmp_path / "out")
    convert_checkpoint(source, tmp_path / "out", overwrite=True)
    assert_loads(tmp_path / "out", torch.load(source, weights_only=True))
    with pytest.raises(OptionError, match="which is a file"):
        convert_checkpoint(source, tmp_path / "out" / "mine.txt")


def test_the_command_prints_the_method_and_the_folder(tmp_path: Path) -> None:
    source = saved(tmp_path, small_resg(), "NRP_resG.pth")
    result = CliRunner().invoke(command, ["convert", str(source), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert f"converted NRP_resG.pth (nrp-resg, 2,313 parameters) to {tmp_path / 'out'}" in result.output


def test_an_unsafe_file_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path, Marker(tmp_path / "marker"))
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(source), str(tmp_path / "out")])
    assert stop.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: expected a file with nothing but tensors, got checkpoint.pth")
    assert not (tmp_path / "marker").exists()
