"""Options of purify_dataset that are refused before anything is read or started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from purifier import InputError, OptionError, Purifier
from purifier.scale import Workers, purify_dataset

ODD: list[Any] = [Ellipsis, b"x", np.array(["x", "y"]), [1]]


def refused(tmp_path: Path, error: type[Exception], message: str, **options: Any) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec, of the extra scale")
    pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra scale")
    pytest.importorskip("ray", reason="needs ray, of the extra scale")
    given = {"source": tmp_path / "in", "destination": tmp_path / "out", "purifier": Purifier.from_pretrained("gs")}
    with pytest.raises(error, match=re.escape(message)):
        purify_dataset(**{**given, **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [*ODD, None, 3])
@pytest.mark.parametrize("place", ["source", "destination"])
def test_places_are_paths_or_addresses(place: str, value: Any, tmp_path: Path) -> None:
    refused(tmp_path, InputError, "expected the path of a folder, or an address such as s3://", **{place: value})


@pytest.mark.parametrize("value", [*ODD, "zip", 0])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("kind", "'auto' or 'files' or 'webdataset' or 'parquet'"), ("form", "'png' or 'keep'"),
        ("overwrite", "True or False"), ("retry", "True or False"), ("storage_options", "a mapping"),
        ("batch_size", "a"), ("workers", "a purifier.scale.Workers"),
    ],
)  # fmt: skip
def test_options_have_their_types(name: str, wanted: str, value: Any, tmp_path: Path) -> None:
    refused(tmp_path, OptionError, f"expected {name} to be {wanted}", **{name: value})


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["image_column", "address", "max_pixels"])
def test_names_are_text_and_limits_are_numbers(name: str, value: Any, tmp_path: Path) -> None:
    refused(tmp_path, OptionError, f"expected {name} to be ", **{name: value})


def test_keys_of_storage_options_are_text(tmp_path: Path) -> None:
    refused(tmp_path, OptionError, "expected storage_options with text as keys, got 1", storage_options={1: 2})


@pytest.mark.parametrize(
    "numbers", [{"least": 0}, {"least": 2, "most": 1}, {"most": 1.5}, {"cpus": 0}, {"gpus": -1}, {"gpus": "1"}]
)
def test_numbers_of_workers_are_checked(numbers: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"expected {list(numbers)[-1]} to be"):
        Workers(**numbers)
