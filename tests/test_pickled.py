"""Pickles: no code is run, no message advises to run it, and memory stays in proportion to the file."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from purifier import PurifierError, UnsafeFileError, WeightsError
from purifier._pickled import load_pickle, plain_tensors
from purifier.commands.convert import convert_checkpoint
from purifier.methods.nrp import NRPResG
from purifier.models.loading import load_model
from purifier.training.checkpoints import load_checkpoint

PLAIN = {"weight": torch.arange(6.0).view(2, 3)}


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def by_hand(*instructions: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + b"".join(instructions) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


CODE: dict[str, Callable[[Path], bytes]] = {
    **{f"protocol {number}": lambda path, n=number: pickle.dumps(Marker(path), protocol=n) for number in range(6)},  # type: ignore[misc]
    "inside a list": lambda path: pickle.dumps([{"a": [Marker(path)]}], protocol=4),
    "by a name that was kept": lambda path: by_hand(
        text("os"), b"\x94", b"0", text("system"), b"\x94", b"0", b"h\x00", b"h\x01", b"\x93",
        text(f"touch {path}"), b"\x85R", protocol=4,
    ),
    "by a name between others": lambda path: by_hand(
        text("collections"), text("builtins"), text("eval"), b"\x93", text("1"), b"\x85R", protocol=4
    ),
    "as an instance": lambda path: by_hand(b"(", b"X\x02\x00\x00\x00ls", b"ios\nsystem\n"),
    "by an extension": lambda path: by_hand(b"\x82\x01"),
    "of numpy": lambda path: by_hand(b"cnumpy.core.multiarray\n_reconstruct\n"),
    "of the built-in bytearray, of any size": lambda path: by_hand(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"),
}  # fmt: skip


def archived(folder: Path, content: bytes, compression: int = zipfile.ZIP_STORED, **others: bytes) -> Path:
    """Writes a pickle in the form of torch.save, with other members."""
    with zipfile.ZipFile(folder / "a.pt", "w", compression) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/version", b"3\n")
        for name, data in others.items():
            archive.writestr(name, data)
    return folder / "a.pt"


def legacy(folder: Path, content: bytes) -> Path:
    """Writes a pickle in the older form of torch.save."""
    heads = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    (folder / "a.pt").write_bytes(b"".join([*heads, content, pickle.dumps([], protocol=2)]))
    return folder / "a.pt"


@pytest.mark.parametrize("write", [archived, legacy])
@pytest.mark.parametrize("content", CODE.values(), ids=CODE.keys())
def test_code_is_named_and_not_run(
    tmp_path: Path, write: Callable[[Path, bytes], Path], content: Callable[[Path], bytes]
) -> None:
    path = write(tmp_path, content(tmp_path / "marker"))
    with pytest.raises(UnsafeFileError, match=r"which holds a call of .* the code was not run\.") as refused:
        load_pickle(path)
    assert not (tmp_path / "marker").exists() and "weights_only" not in str(refused.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("archive", [True, False])
def test_plain_tensors_of_every_protocol_load_or_are_refused_without_bad_advice(
    tmp_path: Path, protocol: int, archive: bool
) -> None:
    torch.save(OrderedDict(PLAIN), tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    try:
        assert torch.equal(load_pickle(tmp_path / "a.pt")["weight"], PLAIN["weight"])
    except WeightsError as error:
        assert protocol > 3 and f"pickle protocol {protocol}" in str(error)
        assert "weights_only" not in str(error) and "save it again with the defaults" in str(error)


def compressed(folder: Path) -> Path:
    return archived(folder, by_hand(b"}"), zipfile.ZIP_DEFLATED, **{"a/data/0": bytes(50_000_000)})


def overlapping(folder: Path) -> Path:
    path = archived(folder, by_hand(b"}"), **{"a/data/0": bytes(100_000)})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4) + 4)
    entry = data[start : data.index(b"PK\x05\x06")]
    end = data[data.index(b"PK\x05\x06") :]
    count, length = 23, len(data) - len(end) - data.index(b"PK\x01\x02") + 20 * len(entry)
    end = end[:8] + bytes([count, 0, count, 0]) + length.to_bytes(4, "little") + end[16:]
    path.write_bytes(data[: data.index(b"PK\x05\x06")] + entry * 20 + end)
    return path


def long(folder: Path) -> Path:
    return archived(folder, by_hand(b"(" + b"}" * 1_500_000 + b"t"))


def two_pickles(folder: Path) -> Path:
    return archived(folder, by_hand(b"}"), **{"b/data.pkl": by_hand(b"}")})


def tar(folder: Path) -> Path:
    with tarfile.open(folder / "a.pt", "w") as archive:
        archive.add(__file__, "storages")
    return folder / "a.pt"


def sparse(folder: Path) -> Path:
    with (folder / "a.pt").open("wb") as file:
        file.truncate(4 << 30)
    return folder / "a.pt"


@pytest.mark.parametrize("make", [compressed, overlapping, long, two_pickles, tar, sparse])
@pytest.mark.parametrize("read", [load_pickle, load_checkpoint, lambda path: load_model(f"resnet18@{path}")])
def test_files_that_would_take_more_memory_than_they_have_bytes_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], read: Callable[[Path], object]
) -> None:
    with pytest.raises((WeightsError, UnsafeFileError)) as refused:
        read(make(tmp_path))
    assert "weights_only" not in str(refused.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse or nested"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse or nested"),
        (lambda: torch.empty(3, device="meta"), "on the device 'meta'"),
        (lambda: torch.ones(3).to(torch.float8_e4m3fn), "of torch.float8_e4m3fn"),
        (lambda: torch.ones(3, dtype=torch.complex64), "of torch.complex64"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "of torch.qint8"),
        # torch 2.15 refuses them itself.
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested|its pickle is damaged"),
        (lambda: torch.ones(1).expand(10**9), "no larger than .* which repeat each other's memory"),
        (lambda: torch.ones(1).as_strided((1000, 1000, 1000), (0, 0, 0)), "no larger than"),
        (lambda: "text", "expected a state dict of tensors"),
    ],
)
def test_unusual_tensors_are_refused(tmp_path: Path, make: Callable[[], object], words: str) -> None:
    torch.save({"weight": make()}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=words):
        plain_tensors(load_pickle(tmp_path / "a.pt"), tmp_path / "a.pt")


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path) -> None:
    holder: dict[str, Any] = {}
    holder["state_dict"] = holder
    torch.save(holder, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="state dict of tensors"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")
    with pytest.raises(PurifierError):
        load_model(f"resnet18@{tmp_path / 'a.pth'}")


def test_dictionaries_inside_one_another_without_end_are_refused(tmp_path: Path) -> None:
    holder: dict[str, Any] = dict(PLAIN)
    for _ in range(200):
        holder = {"state_dict": holder, "model": holder}
    torch.save(holder, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="state dict of tensors"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


def test_widths_that_only_repeat_memory_are_refused(tmp_path: Path) -> None:
    one = torch.ones(1)
    state = {
        "conv_first.weight": one.expand(1000, 3, 3, 3),
        "conv_first.bias": one.expand(1000),
        **{f"recon_trunk.0.conv{n}.weight": one.expand(1000, 1000, 3, 3) for n in (1, 2)},
        **{f"recon_trunk.0.conv{n}.bias": one.expand(1000) for n in (1, 2)},
        "conv_last.weight": one.expand(3, 1000, 3, 3),
        "conv_last.bias": one.expand(3),
    }
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"no larger than a\.pth of .* bytes"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


@pytest.mark.parametrize("content", [{}, {"step": 3}, [1], {"step": "3", "model": {}}, PLAIN])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match="to be the checkpoint of a training, got something else; delete it"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the memory as Linux counts it")
def test_converting_takes_at_most_one_and_a_half_times_the_memory_of_the_file(tmp_path: Path) -> None:
    large, small = tmp_path / "large.pth", tmp_path / "small.pth"
    torch.save(NRPResG(filters=272, blocks=12).state_dict(), large)
    torch.save(NRPResG(filters=4, blocks=12).state_dict(), small)
    assert large.stat().st_size > 60 << 20
    script = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from purifier.commands.convert import convert_checkpoint\n"
        "torch.set_num_threads(1)\n"
        "def peak(path):\n"
        "    convert_checkpoint(path, path.with_suffix(''))\n"
        "    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "first, second = map(peak, map(Path, sys.argv[1:]))\n"
        "print(second - first)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(small), str(large)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= 1.5 * large.stat().st_size
