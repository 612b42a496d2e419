"""Names, folders and hub repositories."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoUrl

import purifier
from purifier import (
    NoWeightsError,
    OptionError,
    OutputError,
    Purifier,
    PurifierWarning,
    UnknownNameError,
    WeightsError,
    _errors,
    _hub,
)
from tests.builders import edit_config, fake_hub, pictures, small_purifier

IMAGES = pictures(1, 3, 12, 14)
REPO = "org/name"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(source: str | Path, cache: Path, **options: object) -> Purifier:
    return Purifier.from_pretrained(source, cache_dir=cache, local_files_only=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", purifier.list_purifiers())
@pytest.mark.filterwarnings("ignore:.* loads .* its own trained weights:purifier.PurifierWarning")
def test_every_listed_name_loads_offline(name: str) -> None:
    loaded = Purifier.from_pretrained(name)
    assert loaded.name == _hub.bundled_config(name).get("stand_in", name)
    assert loaded(IMAGES).shape == IMAGES.shape


def test_the_listed_names_are_sorted_and_can_all_be_loaded() -> None:
    listed = purifier.list_purifiers()
    assert listed == sorted(listed)
    assert (
        {"bit-depth", "gs", "jpeg", "median", "resize-pad", "tvm"}
        <= set(listed)
        <= set(_hub.list_purifiers(trained=False))
    )


def test_a_bundled_name_wins_over_a_folder_of_that_name(
    ncis_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ncis_folder.rename(tmp_path / "gs")
    assert Purifier.from_pretrained("gs").name == "gs"
    assert Purifier.from_pretrained("./gs").name == "ncis"
    assert Purifier.from_pretrained(Path("gs")).name == "ncis"


def test_an_unknown_name_is_refused_with_the_nearest_ones() -> None:
    listed = r"expected one of alloy, alloy-s, bit-depth, .*got 'medain'; did you mean 'median'\?"
    with pytest.raises(UnknownNameError, match=listed):
        Purifier.from_pretrained("medain")
    with pytest.raises(UnknownNameError, match=r"got 'xxxxxxxx'$"):
        Purifier.from_pretrained("xxxxxxxx")


def test_suggested_names_ignore_case() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ncis'"):
        Purifier.from_pretrained("NCIS")


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
    monkeypatch.setattr(_errors, "_given", set())
    assert purifier.list_purifiers() == ["nrp", "nrp-resg"]
    with pytest.warns(PurifierWarning, match="'nrp' loads 'nrp-resg': its own trained weights are not shipped yet"):
        loaded = Purifier.from_pretrained("nrp")
    assert "nrp-resg" in repr(loaded) and loaded.card == "small"
    Purifier.from_pretrained("nrp")
    assert not recwarn.list


def test_a_revision_of_a_bundled_name_or_a_folder_is_refused(ncis_folder: Path) -> None:
    with pytest.raises(OptionError, match="hub repository only, got 'main' with 'gs', a bundled name"):
        Purifier.from_pretrained("gs", revision="main")
    with pytest.raises(OptionError, match=r"hub repository only, got 'v1' with .*, a folder"):
        Purifier.from_pretrained(ncis_folder, revision="v1")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_loads_by_its_path(ncis_folder: Path, kind: type) -> None:
    loaded = Purifier.from_pretrained(kind(ncis_folder))
    assert torch.equal(loaded(IMAGES), small_purifier("ncis")(IMAGES))


@pytest.mark.parametrize("source", [Path("nowhere"), "./nowhere", "/nowhere/at/all"])
def test_a_missing_folder_is_refused(source: str | Path) -> None:
    with pytest.raises(WeightsError, match=r"expected a folder with config\.json, got .* which is not a folder"):
        Purifier.from_pretrained(source)


def test_a_hub_repository_loads_from_the_cache(ncis_folder: Path, cache: Path) -> None:
    fake_hub(cache, REPO, ncis_folder)
    assert torch.equal(load(REPO, cache)(IMAGES), small_purifier("ncis")(IMAGES))
    assert load(REPO, cache, iterations=0).iterations == 0


def test_a_revision_is_a_branch_or_a_commit(ncis_folder: Path, cache: Path, tmp_path: Path) -> None:
    fake_hub(cache, REPO, ncis_folder, commit="a" * 40)
    small_purifier("nrp").save_pretrained(tmp_path / "other")
    fake_hub(cache, REPO, tmp_path / "other", commit="b" * 40, branch="next")
    assert load(REPO, cache).name == "ncis"
    assert load(REPO, cache, revision="next").name == "nrp"
    assert load(REPO, cache, revision="a" * 40).name == "ncis"
    assert load(REPO, cache, revision="b" * 40).name == "nrp"


def test_a_missing_revision_is_refused(ncis_folder: Path, cache: Path) -> None:
    fake_hub(cache, REPO, ncis_folder)
    with pytest.raises(WeightsError, match="'org/name' at revision 'nowhere' is not in the local cache"):
        load(REPO, cache, revision="nowhere")


def test_a_repository_that_is_not_in_the_cache_is_refused(cache: Path) -> None:
    with pytest.raises(WeightsError, match="'org/name' is not in the local cache and could not be downloaded"):
        load(REPO, cache)


@pytest.mark.parametrize("name", ["hardened/gadd", "hardened/gad--2"])
def test_the_error_for_an_unknown_repository_mentions_folders(name: str, cache: Path) -> None:
    with pytest.raises(WeightsError, match=f"'{name}'.* there is no folder of that name here"):
        load(name, cache)


def test_a_repository_without_a_network_is_refused_with_the_same_message(cache: Path) -> None:
    with pytest.raises(WeightsError, match="'org/name' is not in the local cache and could not be downloaded"):
        Purifier.from_pretrained(REPO, cache_dir=cache)


def test_a_damaged_repository_is_refused(ncis_folder: Path, cache: Path) -> None:
    (ncis_folder / "model.safetensors").write_bytes(b"short")
    fake_hub(cache, REPO, ncis_folder)
    with pytest.raises(WeightsError, match=r"model\.safetensors of 'org/name' is damaged"):
        load(REPO, cache)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RepositoryNotFoundError", "got 'org/name'; there is no folder of that name here, and the hub has no such"),
        ("RevisionNotFoundError", "expected a revision of 'org/name', got 'v9', which it does not have"),
        ("GatedRepoError", "'org/name' is gated; accept its terms on the hub and pass token="),
        ("HfHubHTTPError", "'org/name' could not be downloaded: server on fire"),
    ],
)
def test_every_error_of_the_hub_gets_its_own_message(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    kind = getattr(errors, name)
    error = kind.__new__(kind)
    Exception.__init__(error, "server on fire")

    def refuse(*args: object, **options: object) -> str:
        raise error

    monkeypatch.setattr(_hub, "snapshot_download", refuse)
    with pytest.raises(WeightsError, match=text):
        Purifier.from_pretrained(REPO, revision="v9")


def test_the_hub_receives_the_callers_options(ncis_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def download(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(ncis_folder)

    monkeypatch.setattr(_hub, "snapshot_download", download)
    Purifier.from_pretrained(REPO, revision="v1", token="t", cache_dir="c", force_download=True)
    assert asked == {
        "repo": REPO, "revision": "v1", "token": "t", "cache_dir": "c", "local_files_only": False,
        "force_download": True, "allow_patterns": ["config.json", "*.safetensors", "README.md"],
    }  # fmt: skip


def test_another_kind_of_model_is_refused_before_its_weights_are_downloaded(
    ncis_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.extend(allow_patterns)
        return str(ncis_folder)

    edit_config(ncis_folder, kind="classifier")
    monkeypatch.setattr(_hub, "snapshot_download", download)
    with pytest.raises(WeightsError, match="it describes something else"):
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


def test_an_upload_that_fails_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_repo(self: HfApi, repo_id: str, **options: object) -> RepoUrl:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    with pytest.raises(OutputError, match=r"as 'org/name', got ConnectionError: Name or service .*; check the conn"):
        small_purifier("ncis").push_to_hub("org/name")


@pytest.mark.parametrize(("local", "advice"), [(True, "without local_files_only"), (False, "go online once$")])
def test_what_is_not_cached_advises_only_what_helps(
    local: bool, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=advice):
        Purifier.from_pretrained("org/name", cache_dir=tmp_path, local_files_only=local)
