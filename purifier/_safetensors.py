"""Writing of safetensors files tensor by tensor, so that saving takes no memory beside the weights.

The bytes are those of `safetensors.torch.save`, which would hold a whole file in memory, in several copies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from purifier._errors import OptionError, shown

# The names of the dtypes in a file, in the order in which tensors are written.
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ORDER = list(DTYPES)


def chunks(state: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yields the content of a safetensors file: its header, then the values of each tensor.

    Args:
        state: The tensors, of 16, 32 or 64-bit floats. They may share memory; each is written in full.

    Raises:
        OptionError: If a tensor has another dtype, or its name is not text.
    """
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES:
            raise OptionError(
                f"expected weights of 16, 32 or 64-bit floats to save, got {shown(name)} of {tensor.dtype}; register "
                "it with persistent=False, or convert it with .float()"
            )
    names = sorted(state, key=lambda name: (_ORDER.index(state[name].dtype), name))
    yield _header({name: state[name] for name in names})
    for name in names:
        values = state[name].detach().to("cpu").contiguous().reshape(-1)
        if len(values):
            yield values.view(torch.uint8).numpy().data


def _header(state: Mapping[str, Tensor]) -> bytes:
    listed: dict[str, dict[str, object]] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in state.items():
        end = start + tensor.nbytes
        listed[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    try:
        text = json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"expected names of weights in Unicode, got {shown(error.object)[:80]}; rename it") from None
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def sha256(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of the file that `chunks` makes."""
    digest = hashlib.sha256()
    for part in chunks(state):
        digest.update(part)
    return digest.hexdigest()
