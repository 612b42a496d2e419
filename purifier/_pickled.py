"""Reading of .pt and .pth files: no code in them is run, and they take no more memory than they have bytes.

A pickle is looked through before torch reads it with `weights_only=True`, so that messages say what is in it.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from purifier._errors import UnsafeFileError, WeightsError, shown

# Limits of a pickle without its tensors. That of NRP, the largest purifier, has 26,709 instructions in 103 kB.
_PICKLE_BYTES, _INSTRUCTIONS = 32 << 20, 1_000_000
# The tensors of a file may be larger than the file by this factor: parts of one storage can be stored twice.
_GROWTH = 1.5
_DTYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
# What pickled tensors refer to. Whatever else a pickle refers to is code.
_HARMLESS = re.compile(
    r"collections (OrderedDict|Counter)|builtins (set|complex)|_codecs encode|torch (Size|device|per_\w+)"
    r"|torch(\.cuda|\.sparse|\.storage)? \w*(Storage|Tensor)|torch\._utils _rebuild_\w+|torch\.nn\.parameter Parameter"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.serialization _get_layout"
)
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING"}
_GETS, _PUTS = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
_EXTENSIONS = {"EXT1", "EXT2", "EXT4"}


def load_pickle(path: Path) -> Any:
    """Reads what torch.save wrote, onto the CPU.

    Args:
        path: The file.

    Raises:
        UnsafeFileError: If reading it would run code.
        WeightsError: If it is damaged, another kind of file, or would take more memory than it has bytes.
    """
    protocol = 2
    try:
        protocol = _look_through(path)
        with warnings.catch_warnings():
            # torch warns about a file before it refuses it.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (UnsafeFileError, WeightsError):
        raise
    except Exception as error:  # damaged archives and pickles raise all kinds of errors
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text[:160] or 'no reason'}"
        if "weights_only" in text or "weights only" in text.lower():
            # torch's own text advises to load the file unsafely.
            reason = f"it is written with pickle protocol {protocol}" if protocol > 2 else "its pickle is damaged"
        advice = "save it again with the defaults of torch.save" if protocol > 2 else "download it again"
        raise WeightsError(
            f"expected a checkpoint that torch.save or safetensors wrote, got {path.name} of {path.stat().st_size:,} "
            f"bytes, which cannot be read ({reason}); it may be truncated or another kind of file: {advice}"
        ) from None


def plain_tensors(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a state dict if they are ordinary ones.

    Args:
        state: The state dict.
        path: The file it was read from.

    Raises:
        WeightsError: If a tensor is sparse, quantised, complex, without values, or of a rare dtype, or if the tensors
            together are larger than the file.
    """
    total = 0
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"expected a state dict of tensors in {path.name}, got {shown(name)}: {shown(value)}")
        kind = _unusual(value)
        if kind is not None:
            raise WeightsError(
                f"expected dense tensors of ordinary dtypes in {path.name}, got {shown(name)}, which is {kind}; "
                "convert it with .to_dense().float() before it is saved"
            )
        total += value.numel() * value.element_size()
    size = path.stat().st_size
    if total > _GROWTH * size + 4096:
        raise WeightsError(
            f"expected tensors no larger than {path.name} of {size:,} bytes, got {total:,} bytes of them, which repeat "
            "each other's memory; save contiguous copies of them"
        )
    return dict(state)


def _unusual(value: Tensor) -> str | None:
    if type(value) not in (Tensor, torch.nn.Parameter):
        return f"a {type(value).__name__}"
    if value.layout is not torch.strided or value.is_nested:
        return "sparse or nested"
    if value.device.type != "cpu":
        return f"on the device {value.device.type!r}"
    return None if value.dtype in _DTYPES else f"of {value.dtype}"


def _look_through(path: Path) -> int:
    """Looks for code and for excessive sizes in a file; returns the protocol of its pickle."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PK\x03\x04":
            return _scan(_pickle_of_archive(file, path), path)
        # The older form: several pickles, then the tensors.
        head = file.read(_PICKLE_BYTES)
    return max(_scan(pickle, path) for pickle in _pickles(head))


def _pickle_of_archive(file: IO[bytes], path: Path) -> bytes:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(one.filename.endswith("/constants.pkl") for one in members):
            raise _unsafe(path, "a TorchScript program")
        size = path.stat().st_size
        if any(one.compress_type != zipfile.ZIP_STORED for one in members) or sum(m.file_size for m in members) > size:
            raise WeightsError(
                f"expected an archive as torch.save writes it, got {path.name}, which is compressed or overlaps "
                "itself; save it again with torch.save"
            )
        pickles = [one for one in members if one.filename.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1 or pickles[0].file_size > _PICKLE_BYTES:
            raise WeightsError(
                f"expected an archive with one data.pkl of at most {_PICKLE_BYTES:,} bytes, got {path.name}, which has "
                f"{[one.file_size for one in pickles[:3]]}; it is not a checkpoint of a network"
            )
        return archive.read(pickles[0])


def _pickles(head: bytes) -> Iterator[bytes]:
    """Yields the five pickles at the start of the older form."""
    start = 0
    for _ in range(5):
        end = next((at for code, _, at in pickletools.genops(head[start:]) if code.name == "STOP"), None)
        if end is None:
            raise ValueError("the pickle has no end")
        yield head[start : start + end + 1]
        start += end + 1


def _scan(pickle: bytes, path: Path) -> int:
    """Raises an error if a pickle refers to code or is too long; returns its protocol."""
    protocol, texts, memo = 0, ["", ""], dict[int, str]()
    argument: Any
    for number, (code, argument, _) in enumerate(pickletools.genops(pickle)):
        name = code.name
        if number > _INSTRUCTIONS:
            raise WeightsError(f"expected a checkpoint of a network, got {path.name}, whose pickle is too long")
        if name == "PROTO":
            protocol = int(argument)
        elif name in _TEXTS:
            texts = [texts[-1], str(argument)]
        elif name in _PUTS or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = texts[-1]
        elif name in _GETS:
            texts = [texts[-1], memo.get(int(argument), "")]
        elif name in _EXTENSIONS:
            raise _unsafe(path, "a call of something")
        elif name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            used = " ".join(texts) if name == "STACK_GLOBAL" else str(argument)
            if not _is_harmless(used):
                raise _unsafe(path, f"a call of {used.replace(' ', '.')}"[:100])
    return protocol


def _is_harmless(used: str) -> bool:
    module, _, name = used.partition(" ")
    is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
    return is_dtype or _HARMLESS.fullmatch(used) is not None


def _unsafe(path: Path, holds: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"expected a file with nothing but tensors, got {path.name}, which holds {holds} and would run code if it were "
        "loaded; the code was not run. If the network is yours, save its state dict instead: "
        "torch.save(model.state_dict(), 'weights.pth'); otherwise ask its author for that"
    )
