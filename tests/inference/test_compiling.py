"""compile=True: the same output, and no error if compiling fails."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier import InputError, OptionError, Purifier, PurifierWarning, _errors
from purifier.inference import compiling
from tests.builders import pictures, small_method, small_purifier

# The name that torch's inductor takes for a CPU.
needs_compiler = pytest.mark.skipif(
    which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler: apt-get install g++"
)


class Spy:
    """Replaces torch.compile. Records the calls and compiles nothing."""

    def __init__(self) -> None:
        self.made = 0
        self.modes: list[str] = []
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, function: Any, *, backend: str, mode: str) -> Any:
        self.made += 1
        self.modes.append(mode)

        def call(method: nn.Module, images: Tensor) -> Tensor:
            self.seen.append(tuple(images.shape))
            return function(method, images)

        return call


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy()
    monkeypatch.setattr(torch, "compile", made)
    return made


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_purifier("nrp-resg").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@needs_compiler
@pytest.mark.slow
def test_compiled_code_gives_the_same_output_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_given", set())
    torch._dynamo.reset()
    plain, compiled = (Purifier.from_pretrained("gs", compile=compile) for compile in (False, True))
    leaves = [pictures(2, 3, 20, 24).requires_grad_() for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own
        warnings.simplefilter("error", PurifierWarning)
        outs = [purify(leaf) for purify, leaf in zip((plain, compiled), leaves, strict=True)]
        gradients = [torch.autograd.grad(out.square().sum(), leaf)[0] for out, leaf in zip(outs, leaves, strict=True)]
    torch.testing.assert_close(*outs, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_new_options_dtypes_and_sizes_are_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_BACKEND", "eager")
    torch._dynamo.reset()
    plain, compiled = (Purifier.from_pretrained("gs", iterations=2, compile=compile) for compile in (False, True))
    for change in (lambda p: p, lambda p: setattr(p, "iterations", 9), lambda p: p.to(torch.float64)):
        change(plain), change(compiled)
        for size in ((12, 14), (9, 21)):
            images = pictures(2, 3, *size)
            torch.testing.assert_close(compiled(images), plain(images), rtol=0, atol=1e-6)


def test_nothing_is_compiled_before_the_first_call_and_once_after_it(spy: Spy, saved: Path) -> None:
    purify = Purifier.from_pretrained(saved, compile=True)
    assert spy.made == 0
    assert "compile=True" in repr(purify)
    purify(pictures(2, 3, 9, 8)), purify(pictures(3, 9, 8))
    assert (spy.made, spy.seen) == (1, [(2, 3, 9, 8), (1, 3, 9, 8)])


def test_the_checks_of_the_input_stay_outside(spy: Spy, saved: Path) -> None:
    with pytest.raises(InputError, match="got NaN values"):
        Purifier.from_pretrained(saved, compile=True)(torch.full((1, 3, 8, 8), torch.nan))
    assert spy.seen == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_used_purifier_is_compiled_by_itself(copied: Any, spy: Spy, saved: Path) -> None:
    purify, images = Purifier.from_pretrained(saved, compile=True), pictures(1, 3, 9, 8)
    expected = purify(images)
    twin = copied(purify)
    assert torch.equal(twin(images), expected)
    assert spy.made == 2
    assert twin.state_dict().keys() == purify.state_dict().keys() == small_purifier("nrp-resg").state_dict().keys()


def test_compile_is_not_saved(spy: Spy, saved: Path, tmp_path: Path) -> None:
    purify = Purifier.from_pretrained(saved, compile=True)
    purify(pictures(1, 3, 9, 8))
    purify.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((saved / "config.json").read_text())
    assert "compile" not in repr(Purifier.from_pretrained(tmp_path))


def test_wrap_and_variants_keep_compile_and_run_codecs_and_noise_uncompiled(spy: Spy) -> None:
    model = purifier.wrap(nn.Flatten(), "gs", compile=True)
    model(pictures(1, 3, 8, 8))
    assert spy.made == 1
    chained = Purifier.chain("jpeg", model.purifier).dynamic()
    chained(pictures(1, 3, 8, 8))
    assert (spy.made, len(spy.seen)) == (2, 2)
    plain = Purifier.chain("jpeg", "gs")
    assert torch.equal(Purifier.chain("jpeg", model.purifier)(pictures(1, 3, 8, 8)), plain(pictures(1, 3, 8, 8)))
    alloy = Purifier(small_method("alloy", gate=3))
    assert model.purifier.gated(alloy)(pictures(1, 3, 8, 8)).isfinite().all()
    assert (spy.made, len(spy.seen)) == (4, 4)
    model.purifier.dynamic().gated(alloy)(pictures(1, 3, 8, 8))
    assert spy.made == 4
    tiled = model.purifier.tiled(16)
    assert torch.equal(tiled(pictures(1, 3, 8, 8)), Purifier.from_pretrained("gs")(pictures(1, 3, 8, 8)))
    assert spy.made == 4


def test_graphs_are_replayed_without_gradients(spy: Spy) -> None:
    purify, images = Purifier.from_pretrained("gs", compile="reduce-overhead"), pictures(1, 3, 8, 8)
    assert "compile='reduce-overhead'" in repr(purify)
    for _ in range(2):
        with torch.no_grad():
            purify(images)
        purify(images)
        purify(images.clone().requires_grad_())
    with torch.inference_mode():
        purify(images)
    assert spy.modes == ["reduce-overhead", "default"]
    for variant in (purify.dynamic(), Purifier.chain("jpeg", purify), copy.deepcopy(purify)):
        with torch.inference_mode():
            variant(images)
    assert spy.modes[2:] == ["reduce-overhead"] * 3


@needs_compiler
@pytest.mark.slow
def test_outputs_of_replayed_graphs_are_kept_apart(device: str) -> None:
    torch._dynamo.reset()
    plain, graphs = (Purifier.from_pretrained("gs", device=device, compile=c) for c in (False, "reduce-overhead"))
    given = [pictures(1, 3, 20, 24, seed=seed).to(device) for seed in range(4)]
    with torch.inference_mode():
        # The first call of a size records, the next ones replay.
        found = [graphs(images) for images in given]
        for images, output in zip(given, found, strict=True):
            torch.testing.assert_close(output, plain(images), rtol=0, atol=1e-5)
    leaf = given[0].clone().requires_grad_()
    (graphs(leaf) + graphs(given[1])).square().sum().backward()
    expected = given[0].clone().requires_grad_()
    (plain(expected) + plain(given[1])).square().sum().backward()
    torch.testing.assert_close(leaf.grad, expected.grad, rtol=0, atol=1e-4)


def test_if_compiling_fails_it_runs_uncompiled_and_warns_once(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    def fail(function: Any, **options: str) -> Any:
        def call(*arguments: object) -> Tensor:
            raise RuntimeError("no C++ compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(_errors, "_given", set())
    images, expected = pictures(1, 3, 9, 8), Purifier.from_pretrained(saved)(pictures(1, 3, 9, 8))
    with pytest.warns(PurifierWarning, match=r"got RuntimeError: no C\+\+ compiler; it runs uncompiled") as caught:
        for _ in range(2):
            purify = Purifier.from_pretrained(saved, compile=True)
            assert torch.equal(purify(images), expected)
            assert torch.equal(purify(images), expected)
    assert len(caught) == 1


def test_an_error_of_the_method_is_raised(spy: Spy, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    purify = Purifier.from_pretrained(saved, compile=True)

    def fail(images: Tensor) -> Tensor:
        raise MemoryError("too large")

    monkeypatch.setattr(purify.method, "forward", fail)
    with pytest.raises(MemoryError, match="too large"):
        purify(pictures(1, 3, 9, 8))
    monkeypatch.undo()
    assert not purify._compiler._failed


def test_importing_loads_no_compiler() -> None:
    code = "import sys, purifier; from purifier import Purifier; Purifier.from_pretrained('gs', compile=True); "
    code += "sys.exit('torch._inductor.compile_fx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("case", ["gs", "ncis", "nrp-resg", "median", "jpeg"])
def test_the_memory_format_of_the_images_is_kept(case: str) -> None:
    purify, images = small_purifier(case), pictures(2, 3, 10, 13)
    out = purify(images.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert purify(images).is_contiguous()
    assert purify(images.mT.contiguous().mT).is_contiguous()
    torch.testing.assert_close(out, purify(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("compile", ["false", "max-autotune", 1, None])
def test_an_unknown_value_of_compile_is_refused(compile: object) -> None:
    with pytest.raises(OptionError, match=f"expected compile to be True, False or 'reduce-overhead', got {compile!r}"):
        Purifier.from_pretrained("gs", compile=compile)  # type: ignore[arg-type]
