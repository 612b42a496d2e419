"""The folder form of a purifier: what is written comes back, and damaged folders are refused."""

from __future__ import annotations

import hashlib
import pickle
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file

from purifier import OptionError, Purifier, WeightsError, _format, _hub, list_purifiers
from tests.builders import edit_config, pictures, rehash, small_purifier

IMAGES = pictures(1, 3, 12, 14)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sharded_weights_load_unchanged(ncis_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_format, "SHARD_BYTES", 2000)
    small_purifier("ncis").save_pretrained(ncis_folder)
    shards = sorted(ncis_folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert max(len(load_file(shard)) for shard in shards) < len(small_purifier("ncis").method.state_dict())
    assert not (ncis_folder / "model.safetensors").exists()
    assert torch.equal(Purifier.from_pretrained(ncis_folder)(IMAGES), small_purifier("ncis")(IMAGES))


@pytest.mark.parametrize("name", sorted(name for name in list_purifiers() if _hub.is_trained(name)))
def test_the_bundled_weights_are_split_into_the_same_files_with_the_same_bytes(name: str) -> None:
    stored = {str(value.dtype).removeprefix("torch.") for value in _hub.fetch(name).state.values()}
    state = Purifier.from_pretrained(name, dtype=max(stored, default=None)).method.state_dict()
    assert _format.digests(state) == _hub.bundled_config(name).get("files", {})


@pytest.mark.parametrize("limit", [1, 2000, 10**9])
def test_the_shards_are_those_of_huggingface_hub(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_format, "SHARD_BYTES", limit)
    state = small_purifier("ncis").method.state_dict()
    expected = split_torch_state_dict_into_shards(state, max_shard_size=limit)
    assert list(_format.digests(state)) == list(expected.filename_to_tensors)
    assert _format._shards(state) == list(expected.filename_to_tensors.values())


def test_a_chain_that_has_one_purifier_twice_is_saved(tmp_path: Path) -> None:
    twice = Purifier.chain(*[small_purifier("ncis")] * 2)
    twice.save_pretrained(tmp_path)
    assert torch.equal(Purifier.from_pretrained(tmp_path)(IMAGES), twice(IMAGES))


def test_saving_again_removes_stale_shards_and_leaves_no_temporary_files(
    ncis_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_format, "SHARD_BYTES", 2000)
        small_purifier("ncis").save_pretrained(ncis_folder)
    small_purifier("ncis").save_pretrained(ncis_folder)
    assert names(ncis_folder) == ["README.md", "config.json", "model.safetensors"]
    small_purifier("gs").save_pretrained(ncis_folder)
    assert names(ncis_folder) == ["README.md", "config.json"]


def test_saving_again_keeps_files_of_others(ncis_folder: Path) -> None:
    for name in ("model_of_mine.safetensors", "model-00001-of-00002.safetensors"):
        (ncis_folder / name).write_bytes(b"mine")
    (ncis_folder.parent / "model.safetensors").write_bytes(b"mine")
    edit_config(
        ncis_folder, files={"model.safetensors": "0" * 64, "../model.safetensors": "0" * 64, "README.md": "0" * 64}
    )
    small_purifier("gs").save_pretrained(ncis_folder)
    assert names(ncis_folder) == [
        "README.md", "config.json", "model-00001-of-00002.safetensors", "model_of_mine.safetensors",
    ]  # fmt: skip
    assert (ncis_folder.parent / "model.safetensors").exists()


@pytest.mark.parametrize("text", ['{"model_type": "bert"}', '{"kind": "classifier"}', "[]", "{"])
def test_a_folder_of_another_library_is_not_written_to(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(OptionError, match=r"got .*, whose config\.json does not describe a purifier; give"):
        small_purifier("ncis").save_pretrained(tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]
    assert (tmp_path / "config.json").read_text() == text
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"


@pytest.mark.parametrize("written", [0, 3])
def test_a_failed_save_leaves_the_old_folder_readable(
    ncis_folder: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    monkeypatch.setattr(_format, "SHARD_BYTES", 2000)
    purify = small_purifier("ncis")
    purify.save_pretrained(ncis_folder)
    there = names(ncis_folder)
    with torch.no_grad():
        for weights in purify.method.parameters():
            weights.mul_(2)
    replacing, left = _format.replacing, iter(range(written))

    def full(path: Path) -> AbstractContextManager[Path]:
        if next(left, None) is None:
            raise OSError("no space left on device")
        return replacing(path)

    monkeypatch.setattr(_format, "replacing", full)
    with pytest.raises(OSError, match="no space left"):
        purify.save_pretrained(ncis_folder)
    assert names(ncis_folder) == there
    assert torch.equal(Purifier.from_pretrained(ncis_folder)(IMAGES), small_purifier("ncis")(IMAGES))


def test_the_card_is_kept_and_a_missing_one_is_generated(ncis_folder: Path, tmp_path: Path) -> None:
    assert (ncis_folder / "README.md").read_text().strip()
    (ncis_folder / "README.md").write_text("# measured\n")
    Purifier.from_pretrained(ncis_folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == "# measured\n"


def test_changed_options_are_saved(ncis_folder: Path, tmp_path: Path) -> None:
    purify = Purifier.from_pretrained(ncis_folder)
    purify.iterations = 4
    purify.save_pretrained(tmp_path / "again")
    assert Purifier.from_pretrained(tmp_path / "again").iterations == 4


def test_a_purifier_in_half_precision_saves_its_weights_in_half_precision(ncis_folder: Path) -> None:
    small_purifier("ncis").to(torch.bfloat16).save_pretrained(ncis_folder)
    (file,) = ncis_folder.glob("*.safetensors")
    assert {value.dtype for value in load_file(file).values()} == {torch.bfloat16}
    loaded = Purifier.from_pretrained(ncis_folder, dtype="bfloat16")
    assert torch.equal(loaded(IMAGES), small_purifier("ncis").to(torch.bfloat16)(IMAGES))


def test_a_truncated_file_is_refused(ncis_folder: Path) -> None:
    file = ncis_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"model\.safetensors of .* is damaged .* over \d+ bytes; fetch it again"):
        Purifier.from_pretrained(ncis_folder)


def test_a_changed_bit_is_refused_before_the_file_is_parsed(ncis_folder: Path) -> None:
    file = ncis_folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=f"expected SHA-256 .*, got {hashlib.sha256(data).hexdigest()}"):
        Purifier.from_pretrained(ncis_folder)


def test_a_tampered_hash_is_refused(ncis_folder: Path) -> None:
    edit_config(ncis_folder, files={"model.safetensors": "0" * 64})
    with pytest.raises(WeightsError, match=f"expected SHA-256 {'0' * 64}, got"):
        Purifier.from_pretrained(ncis_folder)


def test_a_file_that_is_not_safetensors_is_refused_although_its_hash_is_right(ncis_folder: Path) -> None:
    (ncis_folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    rehash(ncis_folder)
    with pytest.raises(WeightsError, match=r"model\.safetensors of .* is not a safetensors file"):
        Purifier.from_pretrained(ncis_folder)


def test_saving_to_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    with pytest.raises(OptionError, match=r"expected a folder to write to, got .*a\.png, which is a file"):
        Purifier.from_pretrained("gs").save_pretrained(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"picture"


def test_a_folder_without_config_is_refused(ncis_folder: Path) -> None:
    (ncis_folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"expected config\.json in .*, got none; make the folder with"):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe\x00", b""])
def test_a_config_that_is_not_json_is_refused(ncis_folder: Path, data: bytes) -> None:
    (ncis_folder / "config.json").write_bytes(data)
    with pytest.raises(WeightsError, match=r"config\.json of .* is not JSON: .*; fetch the folder again"):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("text", ['{"kind": "classifier"}', "{}", "[]", "3"])
def test_a_folder_of_another_kind_is_refused(ncis_folder: Path, text: str) -> None:
    (ncis_folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r'expected config\.json of .* to say "kind": "purifier"; it describes'):
        Purifier.from_pretrained(ncis_folder)


def test_a_newer_format_is_refused(ncis_folder: Path) -> None:
    edit_config(ncis_folder, format=_format.FORMAT + 1)
    with pytest.raises(WeightsError, match=r"expected format 1 in config\.json of .*, got 2; update purifier"):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("files", [None, [], "model.safetensors"], ids=str)
def test_a_malformed_list_of_files_is_refused(ncis_folder: Path, files: object) -> None:
    edit_config(ncis_folder, files=files)
    with pytest.raises(WeightsError, match=r'expected "files" in config\.json of .* to map file names to SHA-256, got'):
        Purifier.from_pretrained(ncis_folder)


def test_a_pickle_is_never_read(ncis_folder: Path) -> None:
    state = load_file(ncis_folder / "model.safetensors")
    (ncis_folder / "model.safetensors").unlink()
    torch.save(state, ncis_folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"got none; a pickle such as pytorch_model\.bin is never read"):
        Purifier.from_pretrained(ncis_folder)
    edit_config(ncis_folder, files={"pytorch_model.bin": "0" * 64})
    with pytest.raises(WeightsError, match=r"expected weights .*called \*\.safetensors .* got 'pytorch_model\.bin'"):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/model.safetensors", "sub/model.safetensors"])
def test_a_file_outside_the_folder_is_refused(ncis_folder: Path, file: str) -> None:
    other = ncis_folder.parent / "other"
    other.mkdir()
    data = (ncis_folder / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(data)
    edit_config(ncis_folder, files={file: hashlib.sha256(data).hexdigest()})
    with pytest.raises(WeightsError, match=r"expected weights .*called \*\.safetensors beside config\.json, got"):
        Purifier.from_pretrained(ncis_folder)
