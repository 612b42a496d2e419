"""Options and weights of a purifier that is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file

from purifier import OptionError, Purifier, PurifierWarning, WeightsError, _errors
from purifier.methods.gs import GaussianSmoothing
from tests.builders import edit_config, pictures, rehash, small_method, small_purifier

IMAGES = pictures(1, 3, 12, 14)


def test_options_change_a_bundled_purifier() -> None:
    changed = Purifier.from_pretrained("gs", iterations=2, kernel_size=3)
    assert torch.equal(changed(IMAGES), Purifier(GaussianSmoothing(iterations=2, kernel_size=3))(IMAGES))


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(OptionError, match=r"for 'gs', got 'iteration', which is unknown; did you mean 'iterations'\?"):
        Purifier.from_pretrained("gs", iteration=3)


def test_an_option_out_of_its_range_is_refused() -> None:
    with pytest.raises(OptionError, match="expected bits to be an integer from 1 to 8, got 9"):
        Purifier.from_pretrained("bit-depth", bits=9)


def test_an_option_that_the_weights_fix_is_refused(ncis_folder: Path) -> None:
    with pytest.raises(
        OptionError, match=r"expected the options iterations, .* got 'filters', which is fixed by the tr"
    ):
        Purifier.from_pretrained(ncis_folder, filters=32)


def test_a_method_without_options_says_so(tmp_path: Path) -> None:
    small_purifier("nrp").save_pretrained(tmp_path)
    with pytest.raises(OptionError, match=r"expected no options for .* got 'blocks', which is fixed by the trained"):
        Purifier.from_pretrained(tmp_path, blocks=3)


def test_a_module_that_is_not_a_method_is_refused_with_the_way_out() -> None:
    with pytest.raises(OptionError, match=r"got Identity; make it a purifier\.Method, as docs/extending\.md shows"):
        Purifier.from_pretrained(torch.nn.Identity())  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, 3, b"gs", object], ids=str)
def test_a_purifier_given_as_something_else_is_refused(source: object) -> None:
    with pytest.raises(OptionError, match=r"expected a purifier, or the name, .*, got .*; give one of purifier\.list_"):
        Purifier.from_pretrained(source)  # type: ignore[arg-type]


def test_weights_of_other_shapes_are_refused(ncis_folder: Path) -> None:
    config = json.loads((ncis_folder / "config.json").read_text())
    edit_config(ncis_folder, options={**config["options"], "filters": 5})
    with pytest.raises(
        WeightsError, match=r"the weights of .* do not fit its configuration: other shapes: .* instead of"
    ):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize(("extra", "text"), [(False, "missing tensors: network"), (True, "unknown tensors: another")])
def test_missing_and_additional_tensors_are_refused(ncis_folder: Path, extra: bool, text: str) -> None:
    state = load_file(ncis_folder / "model.safetensors")
    if extra:
        state["another"] = torch.zeros(1)
    else:
        del state["network.net.out_conv.bias"]
    save_file(state, ncis_folder / "model.safetensors")
    rehash(ncis_folder)
    with pytest.raises(WeightsError, match=f"the weights of .* do not fit its configuration: .*{text}"):
        Purifier.from_pretrained(ncis_folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(ncis_folder: Path, value: float) -> None:
    state = load_file(ncis_folder / "model.safetensors")
    name = next(iter(state))
    state[name].view(-1)[0] = value
    save_file(state, ncis_folder / "model.safetensors")
    rehash(ncis_folder)
    with pytest.raises(WeightsError, match=rf"expected finite weights in .*, got infinity or NaN in {name};"):
        Purifier.from_pretrained(ncis_folder)


def test_a_configuration_without_weights_files_is_refused(ncis_folder: Path) -> None:
    edit_config(ncis_folder, files={})
    with pytest.raises(WeightsError, match=r"do not fit its configuration: missing tensors: .* and \d+ more"):
        Purifier.from_pretrained(ncis_folder)


def test_loaded_weights_are_frozen_until_requires_grad_is_set(ncis_folder: Path) -> None:
    purifier, images = Purifier.from_pretrained(ncis_folder), pictures(1, 3, 8, 8)
    assert not purifier(images).requires_grad
    with torch.no_grad():
        assert torch.equal(purifier(images), purifier(images.clone()))
    assert purifier(images.requires_grad_()).requires_grad
    loss = purifier.requires_grad_(True)(images).sum()
    assert all(one is not None for one in torch.autograd.grad(loss, list(purifier.parameters())))


@pytest.mark.parametrize(
    "changes",
    [{"method": "dreams"}, {"method": None}, {"method": ["gs"]}, {"options": None}, {"options": {"dreams": 1}}],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"iterations": 3}], ids=str)
def test_a_method_or_option_of_a_newer_version_is_refused(
    ncis_folder: Path, changes: dict[str, object], options: dict[str, int]
) -> None:
    edit_config(ncis_folder, **changes)
    with pytest.raises(WeightsError, match=r"expected (a configuration with a method|options of method)"):
        Purifier.from_pretrained(ncis_folder, **options)


@pytest.mark.parametrize("links", [None, 3, [None], [{"method": "gs"}]], ids=str)
def test_a_malformed_chain_is_refused(ncis_folder: Path, links: object) -> None:
    edit_config(ncis_folder, method="chain", options={"links": links})
    with pytest.raises(WeightsError, match=r"expected (a configuration with a method|options of method)"):
        Purifier.from_pretrained(ncis_folder)


def gated_alloy(tmp_path: Path) -> Path:
    Purifier(small_method("alloy", gate=3, gate_bias=0.4)).save_pretrained(tmp_path / "alloy")
    return tmp_path / "alloy"


@pytest.mark.parametrize("behind", [False, True], ids=["alloy", "gated"])
def test_a_configuration_with_the_former_name_of_gate_bias_loads(tmp_path: Path, behind: bool) -> None:
    folder, expected = gated_alloy(tmp_path), Purifier(small_method("alloy", gate=3, gate_bias=0.4))
    if behind:
        expected = small_purifier("ncis").gated(expected)
        expected.save_pretrained(folder)
    options = json.loads((folder / "config.json").read_text())["options"]
    options["caution"] = options.pop("gate_bias")
    edit_config(folder, options=options)
    loaded = Purifier.from_pretrained(folder)
    assert torch.equal(loaded(IMAGES), expected(IMAGES))
    assert loaded.method.options["gate_bias"] == 0.4


def test_the_former_name_of_gate_bias_is_still_an_option_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_errors, "_given", set())
    folder = gated_alloy(tmp_path)
    with pytest.warns(PurifierWarning, match="option 'caution' is now called 'gate_bias'") as warned:
        loaded = [Purifier.from_pretrained(folder, caution=-2.0) for _ in range(2)]
    assert len(warned) == 1 and warned[0].filename == __file__
    assert [one.method.options["gate_bias"] for one in loaded] == [-2.0, -2.0]


def test_the_former_name_of_gate_bias_is_unknown_to_methods_without_a_gate() -> None:
    with pytest.raises(OptionError, match="got 'caution', which is unknown"):
        Purifier.from_pretrained("gs", caution=1.0)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CONTEXTS = {
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "float64 by default": lambda: default_dtype(torch.float64),
    "meta": lambda: torch.device("meta"),
    "empty weights": accelerate.init_empty_weights,
    "empty weights and buffers": lambda: accelerate.init_empty_weights(include_buffers=True),
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS.keys())
@pytest.mark.parametrize("name", ["ncis", "alloy-s", "median"])
def test_the_callers_defaults_do_not_change_what_is_loaded(
    name: str, context: Callable[[], AbstractContextManager[None]]
) -> None:
    plain = Purifier.from_pretrained(name)
    with context():
        loaded = Purifier.from_pretrained(name)
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert torch.equal(loaded(IMAGES), plain(IMAGES))


def test_a_purifier_that_is_loaded_in_inference_mode_has_gradients_later() -> None:
    with torch.inference_mode():
        purify = Purifier.from_pretrained("alloy-s")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    purify(image).sum().backward()
    assert image.grad is not None and image.grad.any()
