"""safetensors files that are written tensor by tensor: the bytes of the safetensors library, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from purifier import Method, OptionError, OutputError, Purifier, Stage, _format
from purifier._safetensors import DTYPES, chunks, sha256
from purifier.methods import METHODS

SHAPES = st.lists(st.integers(0, 3), max_size=4)
# Surrogates have no form in UTF-8.
NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=6).filter(lambda name: name != "__metadata__")


def written(state: dict[str, Tensor]) -> bytes:
    return b"".join(bytes(part) for part in chunks(state))


@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(list(DTYPES))), max_size=6))
def test_the_bytes_are_those_of_the_safetensors_library(kinds: dict[str, tuple[list[int], torch.dtype]]) -> None:
    state = {name: torch.randn(shape).to(dtype) for name, (shape, dtype) in kinds.items()}
    assert written(state) == save(state, metadata={"format": "pt"})
    assert sha256(state) == hashlib.sha256(written(state)).hexdigest()


def test_tensors_that_share_memory_or_are_strided_are_written_in_full() -> None:
    one = torch.arange(12.0).view(3, 4)
    state = {"a": one, "b": one.T, "c": one[:, ::2], "d": torch.ones(1).expand(5), "e": nn.Parameter(one)}
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    assert written(state) == save(copies, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(OptionError, match=f"16, 32 or 64-bit floats to save, got 'a' of {dtype}; .*persistent=False"):
        written({"a": torch.ones(2).to(dtype)})


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(OptionError, match="names of weights in Unicode"):
        written({"\udc80": torch.ones(2)})


class Counting(Method):
    """A method with a buffer that could not be read back."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @property
    def options(self) -> dict[str, int]:
        return {}

    def stages(self) -> list[Stage]:
        return [Stage(lambda images: images, halo=0)]


def test_a_purifier_that_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "counting", Counting)
    with pytest.raises(OptionError, match=r"got 'calls' of torch\.int64"):
        Purifier(Counting()).save_pretrained(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_change_while_they_are_saved_leave_the_old_purifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purifier = Purifier.from_pretrained("ncis")
    purifier.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def meanwhile(state: dict[str, Tensor]) -> str:
        digest = sha256(state)
        for value in state.values():
            value.add_(1)
        return digest

    monkeypatch.setattr(_format, "sha256", meanwhile)
    with pytest.raises(OutputError, match="weights that stay the same while they are saved"):
        purifier.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
