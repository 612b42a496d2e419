"""Names, folders and hub repositories; what is wrong with a folder is said, not loaded."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoUrl
from safetensors.torch import load_file, save_file

import purifier
from purifier import NoWeightsError, OptionError, Purifier, PurifierWarning, UnknownNameError, WeightsError, _hub
from purifier.methods.gs import GaussianSmoothing
from tests.builders import edit_config, fake_hub, pictures, rehash, small_purifier

IMAGES = pictures(1, 3, 12, 14)
REPO = "org/name"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with trained weights."""
    small_purifier("ncis").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(source: str | Path, cache: Path, **options: object) -> Purifier:
    return Purifier.from_pretrained(source, cache_dir=cache, local_files_only=True, **options)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", purifier.list_purifiers())
@pytest.mark.filterwarnings("ignore:.* loads .* its own trained weights:purifier.PurifierWarning")
def test_every_listed_name_loads_offline(name: str) -> None:
    loaded = Purifier.from_pretrained(name)
    assert loaded.name == _hub.bundled_config(name).get("stand_in", name)
    assert loaded(IMAGES).shape == IMAGES.shape


def test_the_listed_names_are_sorted_and_leave_out_what_has_no_weights() -> None:
    listed = purifier.list_purifiers()
    assert listed == sorted(listed)
    assert (
        {"bit-depth", "gs", "jpeg", "median", "resize-pad", "tvm"}
        <= set(listed)
        <= set(_hub.list_purifiers(trained=False))
    )


def test_options_change_a_bundled_purifier() -> None:
    changed = Purifier.from_pretrained("gs", iterations=2, kernel_size=3)
    assert torch.equal(changed(IMAGES), Purifier(GaussianSmoothing(iterations=2, kernel_size=3))(IMAGES))


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_device_and_dtype_are_those_asked_for(dtype: str | torch.dtype) -> None:
    loaded = Purifier.from_pretrained("gs", device="cpu", dtype=dtype)
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.bfloat16)


def test_automatic_device_and_dtype_are_ones_that_are_here() -> None:
    loaded = Purifier.from_pretrained("gs", device="auto", dtype="auto")
    assert (
        loaded.device.type == (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type
    )
    assert loaded.dtype in (torch.float32, torch.bfloat16)


def test_a_bundled_name_wins_over_a_folder_of_that_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "gs")
    assert Purifier.from_pretrained("gs").name == "gs"
    assert Purifier.from_pretrained("./gs").name == "ncis"
    assert Purifier.from_pretrained(Path("gs")).name == "ncis"


def test_an_unknown_name_is_refused_with_the_nearest_ones() -> None:
    listed = r"expected one of alloy, alloy-s, bit-depth, .*got 'medain'; did you mean 'median'\?"
    with pytest.raises(UnknownNameError, match=listed):
        Purifier.from_pretrained("medain")
    with pytest.raises(UnknownNameError, match=r"got 'xxxxxxxx'$"):
        Purifier.from_pretrained("xxxxxxxx")


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(OptionError, match=r"for 'gs', got 'iteration', which is unknown; did you mean 'iterations'\?"):
        Purifier.from_pretrained("gs", iteration=3)


def test_an_option_out_of_its_range_is_refused() -> None:
    with pytest.raises(OptionError, match="expected bits to be an integer from 1 to 8, got 9"):
        Purifier.from_pretrained("bit-depth", bits=9)


def test_an_option_that_the_weights_fix_is_refused(folder: Path) -> None:
    with pytest.raises(
        OptionError, match=r"expected the options iterations, .* got 'filters', which is fixed by the tr"
    ):
        Purifier.from_pretrained(folder, filters=32)


def test_a_method_without_options_says_so(tmp_path: Path) -> None:
    small_purifier("nrp").save_pretrained(tmp_path)
    with pytest.raises(OptionError, match=r"expected no options for .* got 'blocks', which is fixed by the trained"):
        Purifier.from_pretrained(tmp_path, blocks=3)


def test_a_name_without_weights_yet_is_refused_and_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_purifier("nrp").save_pretrained(tmp_path / "nrp-later")
    edit_config(tmp_path / "nrp-later", trained=False)
    monkeypatch.setattr(_hub.resources, "files", lambda package: tmp_path)
    assert purifier.list_purifiers() == []
    with pytest.raises(
        NoWeightsError, match=r"'nrp-later' has no bundled weights yet; convert .* 'purifier train nrp'"
    ):
        Purifier.from_pretrained("nrp-later")


def test_a_name_without_weights_can_load_another_network_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    small_purifier("nrp").save_pretrained(tmp_path / "nrp")
    edit_config(tmp_path / "nrp", trained=False, stand_in="nrp-resg")
    Purifier(small_purifier("nrp-resg").method, name="nrp-resg", card="small").save_pretrained(tmp_path / "nrp-resg")
    monkeypatch.setattr(_hub.resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(_hub, "_warned_of", set())
    assert purifier.list_purifiers() == ["nrp", "nrp-resg"]
    with pytest.warns(PurifierWarning, match="'nrp' loads 'nrp-resg': its own trained weights are not shipped yet"):
        loaded = Purifier.from_pretrained("nrp")
    assert "nrp-resg" in repr(loaded) and loaded.card == "small"
    Purifier.from_pretrained("nrp")
    assert not recwarn.list


def test_a_revision_of_what_has_none_is_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="hub repository only, got 'main' with 'gs', a bundled name"):
        Purifier.from_pretrained("gs", revision="main")
    with pytest.raises(OptionError, match=r"hub repository only, got 'v1' with .*, a folder"):
        Purifier.from_pretrained(folder, revision="v1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(OptionError, match="got 'cuda', but torch sees no CUDA device; use 'cpu'"):
        Purifier.from_pretrained("gs", device="cuda")


def test_a_device_of_no_such_name_is_refused() -> None:
    with pytest.raises(OptionError, match="expected a device such as 'cpu', 'cuda' or 'auto', got 'gpu'"):
        Purifier.from_pretrained("gs", device="gpu")


@pytest.mark.parametrize("device", ["mps", "xpu", "vulkan"])
def test_a_device_of_another_kind_that_is_not_here_is_refused(device: str) -> None:
    if device == getattr(torch.accelerator.current_accelerator(check_available=True), "type", None):
        pytest.skip("is here")
    with pytest.raises(OptionError, match=f"got '{device}', but torch sees no {device.upper()} device; use 'cpu'"):
        Purifier.from_pretrained("gs", device=device)


def test_a_device_that_is_neither_a_name_nor_a_number_is_refused() -> None:
    with pytest.raises(OptionError, match=r"expected a device such as 'cpu', 'cuda' or 'auto', got 3\.5"):
        Purifier.from_pretrained("gs", device=3.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("compile", ["false", "max-autotune", 1, None])
def test_compile_that_there_is_not_is_refused(compile: object) -> None:
    with pytest.raises(OptionError, match=f"expected compile to be True, False or 'reduce-overhead', got {compile!r}"):
        Purifier.from_pretrained("gs", compile=compile)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, 3, torch.nn.Identity()], ids=str)
def test_what_names_no_purifier_is_refused(source: object) -> None:
    with pytest.raises(OptionError, match=r"expected a purifier, or the name, .*, got .*; give one of purifier\.list_"):
        Purifier.from_pretrained(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float", "int8", torch.int64, 16, torch.float8_e4m3fn, torch.complex64])
def test_a_dtype_that_purifiers_do_not_compute_in_is_refused(dtype: object) -> None:
    with pytest.raises(OptionError, match=r"expected dtype to be 'auto', 'float32', .* or such a torch dtype, got"):
        Purifier.from_pretrained("gs", dtype=dtype)  # type: ignore[arg-type]


# -- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_loads_by_its_path(folder: Path, kind: type) -> None:
    loaded = Purifier.from_pretrained(kind(folder))
    assert torch.equal(loaded(IMAGES), small_purifier("ncis")(IMAGES))


def test_weights_are_sharded_and_come_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "SHARD_BYTES", 2000)
    small_purifier("ncis").save_pretrained(folder)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert max(len(load_file(shard)) for shard in shards) < len(small_purifier("ncis").method.state_dict())
    assert not (folder / "model.safetensors").exists()
    assert torch.equal(Purifier.from_pretrained(folder)(IMAGES), small_purifier("ncis")(IMAGES))


def test_saving_again_removes_stale_shards_and_leaves_no_temporary_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_hub, "SHARD_BYTES", 2000)
        small_purifier("ncis").save_pretrained(folder)
    small_purifier("ncis").save_pretrained(folder)
    assert names(folder) == ["README.md", "config.json", "model.safetensors"]
    small_purifier("gs").save_pretrained(folder)
    assert names(folder) == ["README.md", "config.json"]


def test_saving_again_leaves_files_that_are_not_its_own(folder: Path) -> None:
    for name in ("model_of_mine.safetensors", "model-00001-of-00002.safetensors"):
        (folder / name).write_bytes(b"mine")
    (folder.parent / "model.safetensors").write_bytes(b"mine")
    edit_config(folder, files={"model.safetensors": "0" * 64, "../model.safetensors": "0" * 64, "README.md": "0" * 64})
    small_purifier("gs").save_pretrained(folder)
    assert names(folder) == [
        "README.md", "config.json", "model-00001-of-00002.safetensors", "model_of_mine.safetensors",
    ]  # fmt: skip
    assert (folder.parent / "model.safetensors").exists()


@pytest.mark.parametrize("text", ['{"model_type": "bert"}', '{"kind": "classifier"}', "[]", "{"])
def test_a_folder_of_another_library_is_not_written_to(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(OptionError, match=r"got .*, whose config\.json is no purifier's; give another folder"):
        small_purifier("ncis").save_pretrained(tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]
    assert (tmp_path / "config.json").read_text() == text
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"


@pytest.mark.parametrize("written", [0, 3])
def test_a_save_that_fails_leaves_the_old_folder_readable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    monkeypatch.setattr(_hub, "SHARD_BYTES", 2000)
    purify = small_purifier("ncis")
    purify.save_pretrained(folder)
    there = names(folder)
    with torch.no_grad():
        for weights in purify.method.parameters():
            weights.mul_(2)
    write, left = Path.write_bytes, iter(range(written))

    def full(path: Path, data: bytes) -> int:
        if next(left, None) is None:
            raise OSError("no space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        purify.save_pretrained(folder)
    assert names(folder) == there
    assert torch.equal(Purifier.from_pretrained(folder)(IMAGES), small_purifier("ncis")(IMAGES))


def test_the_card_comes_back_and_one_is_written_where_there_is_none(folder: Path, tmp_path: Path) -> None:
    assert (folder / "README.md").read_text().strip()
    (folder / "README.md").write_text("# measured\n")
    Purifier.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == "# measured\n"


def test_changed_options_are_saved(folder: Path, tmp_path: Path) -> None:
    purify = Purifier.from_pretrained(folder)
    purify.iterations = 4
    purify.save_pretrained(tmp_path / "again")
    assert Purifier.from_pretrained(tmp_path / "again").iterations == 4


def test_a_purifier_in_half_precision_saves_its_weights_so(folder: Path) -> None:
    small_purifier("ncis").to(torch.bfloat16).save_pretrained(folder)
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    loaded = Purifier.from_pretrained(folder, dtype="bfloat16")
    assert torch.equal(loaded(IMAGES), small_purifier("ncis").to(torch.bfloat16)(IMAGES))


# -- damaged folders ------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"model\.safetensors of .* is damaged .* over \d+ bytes; fetch it again"):
        Purifier.from_pretrained(folder)


def test_a_changed_bit_is_refused_before_the_file_is_parsed(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=f"expected SHA-256 .*, got {hashlib.sha256(data).hexdigest()}"):
        Purifier.from_pretrained(folder)


def test_a_tampered_hash_is_refused(folder: Path) -> None:
    edit_config(folder, files={"model.safetensors": "0" * 64})
    with pytest.raises(WeightsError, match=f"expected SHA-256 {'0' * 64}, got"):
        Purifier.from_pretrained(folder)


def test_a_file_that_is_no_safetensors_is_refused_whatever_its_hash(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    rehash(folder)
    with pytest.raises(WeightsError, match=r"model\.safetensors of .* is no safetensors file"):
        Purifier.from_pretrained(folder)


def test_weights_of_other_shapes_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, options={**config["options"], "filters": 5})
    with pytest.raises(WeightsError, match=r"the weights of .* do not fit its configuration: .* size mismatch"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize(("extra", "text"), [(False, "Missing key"), (True, "Unexpected key")])
def test_missing_and_additional_tensors_are_refused(folder: Path, extra: bool, text: str) -> None:
    state = load_file(folder / "model.safetensors")
    if extra:
        state["another"] = torch.zeros(1)
    else:
        del state["network.net.out_conv.bias"]
    save_file(state, folder / "model.safetensors")
    rehash(folder)
    with pytest.raises(WeightsError, match=f"the weights of .* do not fit its configuration: .*{text}"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    broken = small_purifier("nrp-resg")
    name, weight = next(iter(broken.method.named_parameters()))
    weight.data.view(-1)[0] = value
    broken.save_pretrained(tmp_path / "saved")
    with pytest.raises(WeightsError, match=rf"expected weights that are numbers in .*, got .* in {name}; the training"):
        Purifier.from_pretrained(tmp_path / "saved")


def test_a_configuration_that_names_no_files_has_no_weights_to_load(folder: Path) -> None:
    edit_config(folder, files={})
    with pytest.raises(WeightsError, match=r"do not fit its configuration: .*Missing key"):
        Purifier.from_pretrained(folder)


def test_loaded_weights_are_frozen_until_they_are_asked_to_learn(folder: Path) -> None:
    purifier, images = Purifier.from_pretrained(folder), pictures(1, 3, 8, 8)
    assert not purifier(images).requires_grad
    with torch.no_grad():
        assert torch.equal(purifier(images), purifier(images.clone()))
    assert purifier(images.requires_grad_()).requires_grad
    loss = purifier.requires_grad_(True)(images).sum()
    assert all(one is not None for one in torch.autograd.grad(loss, list(purifier.parameters())))


def test_a_file_is_no_folder_to_save_to(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    with pytest.raises(OptionError, match=r"expected a folder to write to, got .*a\.png, which is a file"):
        Purifier.from_pretrained("gs").save_pretrained(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"picture"


def test_names_are_suggested_whatever_their_case() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ncis'"):
        Purifier.from_pretrained("NCIS")


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"expected config\.json in .*, got none; make the folder with"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe\x00", b""])
def test_a_config_that_is_not_json_is_refused(folder: Path, data: bytes) -> None:
    (folder / "config.json").write_bytes(data)
    with pytest.raises(WeightsError, match=r"config\.json of .* is not JSON: .*; fetch the folder again"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize("text", ['{"kind": "classifier"}', "{}", "[]", "3"])
def test_a_folder_of_another_kind_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r'expected config\.json of .* to say "kind": "purifier"; it is no purifier'):
        Purifier.from_pretrained(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    edit_config(folder, format=_hub.FORMAT + 1)
    with pytest.raises(WeightsError, match=r"expected format 1 in config\.json of .*, got 2; update purifier"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize(
    "changes",
    [{"method": "dreams"}, {"method": None}, {"method": ["gs"]}, {"options": None}, {"options": {"dreams": 1}}],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"iterations": 3}], ids=str)
def test_a_method_or_option_of_a_newer_version_is_refused(
    folder: Path, changes: dict[str, object], options: dict[str, int]
) -> None:
    edit_config(folder, **changes)
    with pytest.raises(WeightsError, match=r"expected (a configuration with a method|options of method)"):
        Purifier.from_pretrained(folder, **options)


@pytest.mark.parametrize("links", [None, 3, [None], [{"method": "gs"}]], ids=str)
def test_a_chain_of_nonsense_is_refused(folder: Path, links: object) -> None:
    edit_config(folder, method="chain", options={"links": links})
    with pytest.raises(WeightsError, match=r"expected (a configuration with a method|options of method)"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize("files", [None, [], "model.safetensors"], ids=str)
def test_a_list_of_files_that_is_nonsense_is_refused(folder: Path, files: object) -> None:
    edit_config(folder, files=files)
    with pytest.raises(WeightsError, match=r'expected "files" in config\.json of .* to map file names to SHA-256, got'):
        Purifier.from_pretrained(folder)


def test_a_pickle_is_never_read(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"got none; a pickle such as pytorch_model\.bin is never read"):
        Purifier.from_pretrained(folder)
    edit_config(folder, files={"pytorch_model.bin": "0" * 64})
    with pytest.raises(WeightsError, match=r"expected weights .*called \*\.safetensors .* got 'pytorch_model\.bin'"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/model.safetensors", "sub/model.safetensors"])
def test_a_file_outside_the_folder_is_refused(folder: Path, file: str) -> None:
    other = folder.parent / "other"
    other.mkdir()
    data = (folder / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(data)
    edit_config(folder, files={file: hashlib.sha256(data).hexdigest()})
    with pytest.raises(WeightsError, match=r"expected weights .*called \*\.safetensors beside config\.json, got"):
        Purifier.from_pretrained(folder)


@pytest.mark.parametrize("source", [Path("nowhere"), "./nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_refused(source: str | Path) -> None:
    with pytest.raises(WeightsError, match=r"expected a folder with config\.json, got .* which is not a folder"):
        Purifier.from_pretrained(source)


# -- the hub --------------------------------------------------------------------------------------------------------


def test_a_hub_repository_loads_from_the_cache(folder: Path, cache: Path) -> None:
    fake_hub(cache, REPO, folder)
    assert torch.equal(load(REPO, cache)(IMAGES), small_purifier("ncis")(IMAGES))
    assert load(REPO, cache, iterations=0).iterations == 0


def test_a_revision_is_a_branch_or_a_commit(folder: Path, cache: Path, tmp_path: Path) -> None:
    fake_hub(cache, REPO, folder, commit="a" * 40)
    small_purifier("nrp").save_pretrained(tmp_path / "other")
    fake_hub(cache, REPO, tmp_path / "other", commit="b" * 40, branch="next")
    assert load(REPO, cache).name == "ncis"
    assert load(REPO, cache, revision="next").name == "nrp"
    assert load(REPO, cache, revision="a" * 40).name == "ncis"
    assert load(REPO, cache, revision="b" * 40).name == "nrp"


def test_a_revision_that_is_not_there_is_refused(folder: Path, cache: Path) -> None:
    fake_hub(cache, REPO, folder)
    with pytest.raises(WeightsError, match="'org/name' at revision 'nowhere' is not in the local cache"):
        load(REPO, cache, revision="nowhere")


def test_a_repository_that_is_not_in_the_cache_is_refused(cache: Path) -> None:
    with pytest.raises(WeightsError, match="'org/name' is not in the local cache and could not be downloaded"):
        load(REPO, cache)


@pytest.mark.parametrize("name", ["hardened/gadd", "hardened/gad--2"])
def test_a_mistyped_folder_is_not_only_called_a_repository(name: str, cache: Path) -> None:
    with pytest.raises(WeightsError, match=f"'{name}'.* there is no folder of that name here"):
        load(name, cache)


def test_a_repository_without_a_network_is_refused_in_the_same_words(cache: Path) -> None:
    with pytest.raises(WeightsError, match="'org/name' is not in the local cache and could not be downloaded"):
        Purifier.from_pretrained(REPO, cache_dir=cache)


def test_a_damaged_repository_is_refused(folder: Path, cache: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"short")
    fake_hub(cache, REPO, folder)
    with pytest.raises(WeightsError, match=r"model\.safetensors of 'org/name' is damaged"):
        load(REPO, cache)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RepositoryNotFoundError", "got 'org/name'; there is no folder of that name here, and the hub does not have"),
        ("RevisionNotFoundError", "expected a revision of 'org/name', got 'v9', which it does not have"),
        ("GatedRepoError", "'org/name' is gated; accept its terms on the hub and pass token="),
        ("HfHubHTTPError", "'org/name' could not be downloaded: server on fire"),
    ],
)
def test_every_refusal_of_the_hub_gets_its_own_words(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    kind = getattr(errors, name)
    error = kind.__new__(kind)
    Exception.__init__(error, "server on fire")

    def refuse(*args: object, **options: object) -> str:
        raise error

    monkeypatch.setattr(_hub, "snapshot_download", refuse)
    with pytest.raises(WeightsError, match=text):
        Purifier.from_pretrained(REPO, revision="v9")


def test_what_the_hub_is_asked_for_is_what_the_caller_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def download(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(folder)

    monkeypatch.setattr(_hub, "snapshot_download", download)
    Purifier.from_pretrained(REPO, revision="v1", token="t", cache_dir="c", force_download=True)
    assert asked == {
        "repo": REPO, "revision": "v1", "token": "t", "cache_dir": "c", "local_files_only": False,
        "force_download": True, "allow_patterns": ["config.json", "*.safetensors", "README.md"],
    }  # fmt: skip


def test_what_is_no_purifier_is_refused_before_its_weights_are_downloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.extend(allow_patterns)
        return str(folder)

    edit_config(folder, kind="classifier")
    monkeypatch.setattr(_hub, "snapshot_download", download)
    with pytest.raises(WeightsError, match="it is no purifier's"):
        Purifier.from_pretrained(REPO)
    assert asked == ["config.json"]


def test_a_pushed_purifier_loads_from_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_repo(self: HfApi, repo_id: str, **options: object) -> RepoUrl:
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self: HfApi, *, repo_id: str, folder_path: Path, **options: object) -> str:
        fake_hub(cache, repo_id, Path(folder_path), commit="c" * 40)
        return "pushed"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert small_purifier("ncis").push_to_hub(REPO) == "pushed"
    loaded = load(REPO, cache)
    assert torch.equal(loaded(IMAGES), small_purifier("ncis")(IMAGES))
    assert loaded.card
