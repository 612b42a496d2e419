"""Makes a purifier's folder hostile, in a way that a seed decides."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.builders import rehash

_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 7, 63, 64, 65, 1000, 10**6, 10**9, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308, "", "gs",
    "ncis", "../x", "/etc/passwd", "a\0b", "\ud800", "\x1b[2J", "x" * 5000, [], [1], {}, {"method": "gs"}, [[[[]]]],
    {"method": "gs", "options": {}}, {"method": "chain", "options": {"links": []}},
]  # fmt: skip
_METHODS = ["alloy", "bit-depth", "chain", "gad", "gad-residual", "gated", "gs", "jpeg", "median", "ncis", "noise",
            "nrp", "nrp-resg", "random-resize-pad", "resize-pad", "tvm"]  # fmt: skip
_OPTIONS = ["iterations", "filters", "blocks", "fine_blocks", "growth", "levels", "layers", "patch", "kernel_size",
            "steps", "seed", "gate", "gate_blocks", "gate_bias", "blur", "clamp", "norm", "downsamples", "links",
            "method", "keep", "weight", "quality", "bits", "scale", "least", "sigma", "eps"]  # fmt: skip
_KEYS = ["kind", "format", "name", "method", "options", "files", "trained", "stand_in", "another"]
_DTYPES = ["F32", "F16", "BF16", "F64", "I8", "I64", "BOOL", "C64", "F8_E4M3", "F8_E8M0", "F4", "U16", "X", "", 3]


def spoil(folder: Path, seed: int) -> None:
    """Changes a folder one to three times. Beside it stands a file `outside.safetensors`, which nobody may read."""
    chance = random.Random(seed)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        chance.choice(_SPOILERS)(folder, chance)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(_small(folder / "config.json") or b"{}")
    except (OSError, ValueError, RecursionError):
        config = {}
    return config if isinstance(config, dict) else {}


def _small(path: Path) -> bytes:
    """The content of a small ordinary file; nothing for any other."""
    ordinary = path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20
    return path.read_bytes() if ordinary else b""


def _write_config(folder: Path, config: Any) -> None:
    _clear(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config))


def _clear(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)


def _key(folder: Path, chance: random.Random) -> None:
    config = _config(folder)
    key = chance.choice(_KEYS)
    if chance.random() < 0.2:
        config.pop(key, None)
    else:
        config[key] = chance.choice(_VALUES)
    _write_config(folder, config)


def _option(folder: Path, chance: random.Random) -> None:
    config = _config(folder)
    options = config.get("options")
    options = options if isinstance(options, dict) else {}
    _write_config(folder, {**config, "options": {**options, chance.choice(_OPTIONS): chance.choice(_VALUES)}})


def _another_method(folder: Path, chance: random.Random) -> None:
    options = {chance.choice(_OPTIONS): chance.choice(_VALUES) for _ in range(chance.randrange(4))}
    _write_config(folder, {**_config(folder), "method": chance.choice(_METHODS), "options": options})


def _tree(folder: Path, chance: random.Random) -> None:
    inner: Any = {"method": chance.choice(_METHODS), "options": {}}
    for _ in range(chance.choice([1, 3, 30, 90, 200])):
        copies = chance.choice([1, 1, 2, 50])
        inner = {"method": "chain", "options": {"links": [inner] * copies}}
        if len(json.dumps(inner)) > 200_000:
            break
    _write_config(folder, {**_config(folder), **inner})


def _text(folder: Path, chance: random.Random) -> None:
    data = _small(folder / "config.json")
    cut, more = chance.randrange(len(data) + 1), chance.choice([b"\xff", b"\0", b"[" * 50_000, b'{"a":' * 5000, b"NaN"])
    _clear(folder / "config.json")
    (folder / "config.json").write_bytes(data[:cut] + more + data[cut:])


def _files(folder: Path, chance: random.Random) -> None:
    names = ["model.safetensors", "../outside.safetensors", "/etc/passwd", "a\0.safetensors", "model.bin", "", ".", "é"]
    hashes = [hashlib.sha256((folder.parent / "outside.safetensors").read_bytes()).hexdigest(), "0" * 64, 3, None, []]
    files = {chance.choice(names): chance.choice(hashes) for _ in range(chance.randrange(1, 4))}
    _write_config(folder, {**_config(folder), "files": files})


def _link(folder: Path, chance: random.Random) -> None:
    file = folder / chance.choice(["config.json", "README.md", "model.safetensors"])
    goal = chance.choice(["../outside.safetensors", "/dev/zero", "/etc/passwd", file.name, "/proc/self/mem", "missing"])
    _clear(file)
    file.symlink_to(goal)


def _kind(folder: Path, chance: random.Random) -> None:
    file = folder / chance.choice(["config.json", "README.md", "model.safetensors"])
    _clear(file)
    if chance.random() < 0.3:
        os.mkfifo(file)
    elif chance.random() < 0.5:
        file.mkdir()
    else:
        with file.open("wb") as opened:
            opened.truncate(chance.choice([0, 1, 2 << 20, 5 << 30, 200 << 30]))


def _header(folder: Path, chance: random.Random) -> None:
    """Changes an entry of the header of the weights, with the right hash."""
    path = folder / "model.safetensors"
    data = _small(path)
    if len(data) < 8:
        return
    length = struct.unpack("<Q", data[:8])[0]
    try:
        header = json.loads(data[8 : 8 + length])
        name = chance.choice(sorted(header))
        entry = header[name]
        part = chance.choice(["dtype", "shape", "data_offsets", "name"])
        if part == "name":
            header[chance.choice(["", "a\0", "\x1b[2J", "another", "x" * 9000])] = header.pop(name)
        else:
            choices = {"dtype": _DTYPES, "shape": [[], [2**40], [-1], [0], [2**32] * 3, "x", [1.5]]}
            entry[part] = chance.choice(choices.get(part, [[0, 4], [-1, 3], [4, 0], [0, 2**60], [], "x"]))
    except (ValueError, TypeError, IndexError):
        return
    text = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", chance.choice([len(text)] * 4 + [0, 1, 2**63, 2**64 - 1])) + text + data[8 + length :]
    )
    _rehash(folder)


def _values(folder: Path, chance: random.Random) -> None:
    """Overwrites weights by any bits, with the right hash."""
    path = folder / "model.safetensors"
    data = bytearray(_small(path))
    if not data:
        return
    bits = chance.choice([struct.pack("<f", value) for value in (3e38, 1e30, -1e20, 1e5, float("nan"), float("inf"))])
    start = max(8, len(data) - 4 * chance.randrange(1, 5000))
    count = (len(data) - start) // 4
    data[start : start + 4 * count] = bits * count
    path.write_bytes(data)
    _rehash(folder)


def _cut(folder: Path, chance: random.Random) -> None:
    path = folder / "model.safetensors"
    if data := _small(path):
        path.write_bytes(data[: chance.randrange(len(data) + 1)])
        _rehash(folder)


def _rehash(folder: Path) -> None:
    if isinstance(_config(folder).get("files"), dict):
        rehash(folder)


_SPOILERS: list[Callable[[Path, random.Random], None]] = [
    _key, _option, _option, _another_method, _tree, _text, _files, _link, _kind, _header, _header, _values, _cut,
]  # fmt: skip
