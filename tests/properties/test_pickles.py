"""Whatever bytes a checkpoint has, it is read as plain tensors or refused with an error of ours; nothing is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purifier import PurifierError, UnsafeFileError
from purifier._pickled import load_pickle

QUICK = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MODULES = [
    "os",
    "posix",
    "builtins",
    "subprocess",
    "torch",
    "torch._utils",
    "collections",
    "shutil",
    "importlib",
    "a.b",
]
NAMES = ["system", "eval", "exec", "__import__", "getattr", "run", "load", "FloatStorage", "OrderedDict", "x.y"]


def state(archive: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.arange(4.0), "b": [1, "x"]}, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


STATES = {archive: state(archive) for archive in (True, False)}


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("code was run")

    monkeypatch.setattr(os, "system", refuse)
    return


@given(archive=st.booleans(), changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8))
@QUICK
def test_changed_bytes_load_or_are_refused(archive: bool, changes: list[tuple[int, int]], tmp_path: Path) -> None:
    data = bytearray(STATES[archive])
    for place, value in changes:
        data[place % len(data)] = value
    (tmp_path / "a.pt").write_bytes(data)
    try:
        load_pickle(tmp_path / "a.pt")
    except PurifierError as error:
        assert "weights_only" not in str(error)


class Call:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


@given(
    module=st.sampled_from(MODULES),
    name=st.sampled_from(NAMES),
    protocol=st.integers(0, 5),
    archive=st.booleans(),
    around=st.sampled_from([b"%b", b"(%bl", b"}X\x01\x00\x00\x00a%bs"]),
)
@QUICK
def test_a_call_of_anything_is_refused_as_code(
    module: str, name: str, protocol: int, archive: bool, around: bytes, tmp_path: Path
) -> None:
    if (module, name) in {("torch", "FloatStorage"), ("collections", "OrderedDict")}:
        return
    if protocol < 4:
        call = f"c{module}\n{name}\n".encode()
    else:
        parts = [part.encode() for part in (module, name)]
        call = b"".join(b"\x8c" + bytes([len(part)]) + part for part in parts) + b"\x93"
    content = b"\x80" + bytes([max(2, protocol)]) + around % (call + b"X\x04\x00\x00\x00true\x85R") + b"."
    if archive:
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
            file.writestr("a/data.pkl", content)
    else:
        heads = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
        (tmp_path / "a.pt").write_bytes(b"".join([*heads, content, pickle.dumps([], protocol=2)]))
    with pytest.raises(UnsafeFileError, match="the code was not run"):
        load_pickle(tmp_path / "a.pt")
