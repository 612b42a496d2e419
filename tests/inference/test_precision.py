"""Devices and dtypes by name."""

from __future__ import annotations

import pytest
import torch

from purifier import OptionError, Purifier


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_device_and_dtype_are_those_asked_for(dtype: str | torch.dtype) -> None:
    loaded = Purifier.from_pretrained("gs", device="cpu", dtype=dtype)
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.bfloat16)


def test_automatic_device_and_dtype_are_available() -> None:
    loaded = Purifier.from_pretrained("gs", device="auto", dtype="auto")
    assert (
        loaded.device.type == (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type
    )
    assert loaded.dtype in (torch.float32, torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_cuda_device_is_refused() -> None:
    with pytest.raises(OptionError, match="got 'cuda', but torch finds no CUDA device; use 'cpu'"):
        Purifier.from_pretrained("gs", device="cuda")


def test_an_unknown_name_of_a_device_is_refused() -> None:
    with pytest.raises(OptionError, match="expected a device such as 'cpu', 'cuda' or 'auto', got 'gpu'"):
        Purifier.from_pretrained("gs", device="gpu")


@pytest.mark.parametrize("device", ["mps", "xpu", "vulkan"])
def test_a_missing_device_of_another_kind_is_refused(device: str) -> None:
    if device == getattr(torch.accelerator.current_accelerator(check_available=True), "type", None):
        pytest.skip("this device is available")
    with pytest.raises(OptionError, match=f"got '{device}', but torch finds no {device.upper()} device; use 'cpu'"):
        Purifier.from_pretrained("gs", device=device)


def test_a_device_of_a_wrong_type_is_refused() -> None:
    with pytest.raises(OptionError, match=r"expected a device such as 'cpu', 'cuda' or 'auto', got 3\.5"):
        Purifier.from_pretrained("gs", device=3.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float", "int8", torch.int64, 16, torch.float8_e4m3fn, torch.complex64])
def test_a_dtype_that_purifiers_do_not_compute_in_is_refused(dtype: object) -> None:
    with pytest.raises(OptionError, match=r"expected dtype to be 'auto', 'float32', .* or one of these torch dtypes"):
        Purifier.from_pretrained("gs", dtype=dtype)  # type: ignore[arg-type]
