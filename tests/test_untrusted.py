"""Folders that anybody may have made: each is refused with WeightsError, in little memory, reading nothing outside."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from purifier import NoWeightsError, Purifier, WeightsError
from purifier._untrusted import parse_json
from tests.builders import edit_config, rehash, small_purifier

# A gigabyte of memory would be far too much for any of these folders.
SPARSE = 200_000_000_000


def nested(depth: int) -> str:
    return '{"kind":"purifier","format":1,"method":"chain","options":{"links":' + "[" * depth + "]" * depth + "}}"


def written(text: str | bytes, file: str = "config.json") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)

    return change


def edited(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, **changes)


def sparse(file: str, size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / file).open("wb") as opened:
            opened.truncate(size)

    return change


def linked(file: str, target: str = "outside") -> Callable[[Path], None]:
    """Moves a file out of the folder and links to it."""

    def change(folder: Path) -> None:
        (folder / file).rename(folder.parent / target)
        (folder / file).symlink_to(f"../{target}")

    return change


def linked_to_itself(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")


def no_file(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def reweighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Changes the weights, with the right hashes."""

    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")
        rehash(folder)

    return apply


def replaced(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    key = "network.net.out_conv.weight"
    return reweighted(lambda state: state.update({key: make(state[key]).contiguous()}))


def twice(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    rehash(folder)


def raw(header: str | bytes, length: int | None = None, body: bytes = b"") -> Callable[[Path], None]:
    """Writes a weights file with any header, with the right hash."""

    def change(folder: Path) -> None:
        text = header if isinstance(header, bytes) else header.encode()
        data = struct.pack("<Q", len(text) if length is None else length) + text + body
        (folder / "model.safetensors").write_bytes(data)
        rehash(folder)

    return change


def option(method: str, **options: Any) -> Callable[[Path], None]:
    return edited(method=method, options=options)


GS = {"method": "gs", "options": {}}


def deep_chain(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = GS
    for _ in range(depth):
        inner = {"method": "chain", "options": {"links": [inner]}}
    return inner


CONFIGS: dict[str, Callable[[Path], None]] = {
    "brackets 10,000 deep": written(nested(10_000)),
    "brackets 500 deep": written(nested(500)),
    "objects 100,000 deep": written('{"a":' * 100_000),
    "a chain 60 deep": edited(**deep_chain(60)),
    "a chain 300 deep": written(json.dumps({"kind": "purifier", "format": 1, **deep_chain(300)})),
    "a gate in a gate": edited(
        method="gated", options={"method": {"method": "gated", "options": {"method": GS, "gate": 1}}, "gate": 0}
    ),
    "NaN": written('{"kind": "purifier", "format": 1, "method": "gs", "options": {"iterations": NaN}}'),
    "a huge number": written(
        '{"kind": "purifier", "format": 1, "method": "gs", "options": {"iterations": ' + "9" * 5000
    ),
    "no text": written('{"kind": "purifier", "format": 1, "name": "\\ud800", "method": "gs", "options": {}}'),
    "not UTF-8": written(b'{"kind": "purifier", "name": "\xff"}'),
    "UTF-16": written('{"kind": "purifier"}'.encode("utf-16")),
    "a sparse config": sparse("config.json", 4 << 30),
    "a pipe": no_file,
    "a link to itself": linked_to_itself,
    "a config outside": linked("config.json"),
    "a number for a name": edited(name=3),
    "a list for a name": edited(name=["ncis"]),
    "a control character in a name": edited(name="\x1b[31mred"),
    "a long name": edited(name="x" * 10_000),
    "not trained, no method": edited(trained=False, method=None),
    "not trained, a list for a method": edited(trained=False, method=["gs"]),
    "a stand-in for itself": edited(trained=False, stand_in="saved"),
    "a stand-in outside": edited(trained=False, stand_in="/etc"),
    "a stand-in above": edited(trained=False, stand_in="../saved"),
    "a stand-in that is a list": edited(trained=False, stand_in=[]),
    "a stand-in with a null": edited(trained=False, stand_in="a\0b"),
    "a stand-in of a stand-in": edited(trained=False, stand_in="nowhere"),
    "a million files": edited(files={f"{number}.safetensors": "0" * 64 for number in range(2000)}),
    "a file with a null": edited(files={"a\0.safetensors": "0" * 64}),
    "a file above": edited(files={"../model.safetensors": "0" * 64}),
    "a number for a hash": edited(files={"model.safetensors": 3}),
    "a deep list for a hash": edited(files={"model.safetensors": [[[[[]]]]]}),
}
OPTIONS: dict[str, Callable[[Path], None]] = {
    "nrp": option("nrp", blocks=10**6),
    "nrp filters": option("nrp", filters=10**9),
    "nrp growth": option("nrp", growth=10**9),
    "nrp-resg": option("nrp-resg", blocks=10**6),
    "nrp-resg, large but in range": option("nrp-resg", filters=1024, blocks=64),
    "gad": option("gad", filters=1024, downsamples=8),
    "gad blocks": option("gad", blocks=10**6),
    "gad-residual filters": option("gad-residual", filters=10**9),
    "gad-residual blocks": option("gad-residual", blocks=10**6),
    "gad norm": option("gad", norm=["layer"]),
    "alloy levels": option("alloy", levels=40),
    "alloy filters": option("alloy", filters=1024, levels=6),
    "alloy blocks": option("alloy", blocks=10**6),
    "alloy patch": option("alloy", patch=10**5),
    "alloy blur": option("alloy", blur=10**9),
    "alloy gate": option("alloy", gate=10**6),
    "alloy gate blocks": option("alloy", gate=1, gate_blocks=10**6),
    "alloy iterations": option("alloy", iterations=10**9),
    "ncis layers": option("ncis", layers=10**6),
    "ncis filters": option("ncis", filters=10**6),
    "ncis kernel": option("ncis", kernel_size=10**6 + 1),
    "ncis iterations": option("ncis", iterations=10**9),
    "gs iterations": option("gs", iterations=10**9),
    "gs kernel": option("gs", kernel_size=10**9 + 1, iterations=1),
    "gs both": option("gs", kernel_size=255, iterations=100),
    "median": option("median", kernel_size=501),
    "tvm": option("tvm", steps=10**9),
    "tvm seed": option("tvm", seed=10**30),
    "a long chain": option("chain", links=[GS] * 100_000),
    "a chain of large networks": option("chain", links=[{"method": "nrp", "options": {"blocks": 64}}] * 60),
    "a wide tree": option("chain", links=[{"method": "chain", "options": {"links": [GS] * 60}}] * 60),
}
WEIGHTS: dict[str, Callable[[Path], None]] = {
    "200 GB, sparse": sparse("model.safetensors", SPARSE),
    "empty": sparse("model.safetensors", 0),
    "outside": linked("model.safetensors", "outside.safetensors"),
    "a card outside": linked("README.md"),
    "a card not in UTF-8": written(b"\xff\xfe\x00", "README.md"),
    "a card of 4 GB": sparse("README.md", 4 << 30),
    "in two files": twice,
    "complex": replaced(lambda weight: weight.to(torch.complex64)),
    "integers": replaced(lambda weight: weight.to(torch.int32)),
    "bytes": replaced(lambda weight: weight.to(torch.uint8)),
    "booleans": replaced(lambda weight: weight > 0),
    "float8": replaced(lambda weight: weight.to(torch.float8_e4m3fn)),
    "infinite": replaced(lambda weight: weight / 0),
    "not a number": replaced(lambda weight: weight * torch.nan),
    "huge": reweighted(lambda state: [value.fill_(3e38) for value in state.values()]),
    "beyond float32": replaced(lambda weight: weight.double() + 1e300),
    "of another shape": replaced(lambda weight: weight.expand(3, *weight.shape)),
    "too many": reweighted(lambda state: state.update({f"more.{number}": torch.zeros(1) for number in range(1000)})),
    "named by control characters": reweighted(lambda state: state.update({"\x1b[31m": torch.zeros(1)})),
    "of an unknown dtype": raw('{"a":{"dtype":"F3","shape":[1],"data_offsets":[0,4]}}', body=bytes(4)),
    "of a dtype of 4 bits": raw('{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', body=bytes(1)),
    "with a deep header": raw("[" * 100_000),
    "with a header longer than the file": raw("{}", length=1 << 60),
    "with a negative header": raw("{}", length=(1 << 64) - 1),
    "with overlapping tensors": raw(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        body=bytes(4),
    ),
    "with a shape that overflows": raw(
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}', body=bytes(4)
    ),
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_hostile_config_is_refused(ncis_folder: Path, change: Callable[[Path], None]) -> None:
    change(ncis_folder)
    with pytest.raises(WeightsError) as refused:
        Purifier.from_pretrained(ncis_folder)
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("change", OPTIONS.values(), ids=OPTIONS.keys())
def test_options_that_would_take_all_memory_or_time_are_refused(
    ncis_folder: Path, change: Callable[[Path], None]
) -> None:
    change(ncis_folder)
    with pytest.raises(WeightsError, match=r"would take|at most|do not fit|larger seed|a norm|number of methods|norm="):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_hostile_weights_and_cards_are_refused(ncis_folder: Path, change: Callable[[Path], None]) -> None:
    change(ncis_folder)
    with pytest.raises(WeightsError) as refused:
        Purifier.from_pretrained(ncis_folder)
    assert len(str(refused.value)) < 2000 and str(refused.value).isprintable()


def test_huge_weights_behind_noise_are_refused(tmp_path: Path) -> None:
    small_purifier("ncis").dynamic().save_pretrained(tmp_path)
    reweighted(lambda state: [value.fill_(3e38) for value in state.values()])(tmp_path)
    before = torch.get_rng_state()
    with pytest.raises(WeightsError):
        Purifier.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_that_is_not_trained_says_how_to_train(ncis_folder: Path) -> None:
    edit_config(ncis_folder, trained=False)
    with pytest.raises(NoWeightsError, match="purifier train ncis"):
        Purifier.from_pretrained(ncis_folder)


def test_a_link_inside_the_folder_is_followed(ncis_folder: Path) -> None:
    (ncis_folder / "model.safetensors").rename(ncis_folder / "weights.bin")
    (ncis_folder / "model.safetensors").symlink_to("weights.bin")
    (ncis_folder.parent / "other").symlink_to(ncis_folder)
    Purifier.from_pretrained(ncis_folder.parent / "other")


def test_the_links_of_the_hubs_cache_are_followed(ncis_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "repo" / "blobs").mkdir(parents=True)
    snapshot = tmp_path / "repo" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    for file in ncis_folder.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(tmp_path / "repo" / "blobs" / digest)
        (snapshot / file.name).symlink_to(f"../../blobs/{digest}")
    Purifier.from_pretrained(snapshot)


def test_a_folder_that_may_not_be_read_is_refused(ncis_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", refuse)
        with pytest.raises(WeightsError, match=r"expected to read 'config\.json' of .*Permission denied; check"):
            Purifier.from_pretrained(ncis_folder)
        patch.setattr(Path, "is_dir", refuse)
        with pytest.raises(WeightsError, match="which cannot be read: Permission denied"):
            Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800", "./" + "y/" * 3000], ids=ascii)
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises((WeightsError, ValueError)) as refused:
        Purifier.from_pretrained(name)
    assert type(refused.value).__module__ == "purifier._errors"


@pytest.mark.parametrize("text", [b"[1, 2", b"\xff", b"[" * 100_000, b"Infinity", b"[" * 300 + b"]" * 300])
def test_json_that_cannot_be_trusted_is_refused(text: bytes) -> None:
    with pytest.raises(WeightsError, match=r"^a\.json is not JSON|levels of nesting"):
        parse_json(text, "a.json")
