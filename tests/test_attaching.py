"""attach(): a purifier in front of a model in place."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import purifier
from purifier import Handle, InputError, OptionError, Purifier, PurifierWarning, WrapError, _errors, _wrapping, attach
from purifier._attaching import as_purified_model, attached
from tests.builders import pictures, small_purifier, unchanged

IMAGES = pictures(2, 3, 16, 16)


class Net(nn.Module):
    """A small classifier with a method that goes round its call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Conv2d(3, 4, 3)
        self.classes = ["a", "b", "c", "d"]

    def forward(self, images: Tensor, scale: float = 1.0) -> Tensor:
        return scale * self.forward_features(images).mean((2, 3))

    def forward_features(self, images: Tensor) -> Tensor:
        out: Tensor = self.body(images)
        return out


@pytest.fixture
def model() -> Net:
    return Net().eval()


@pytest.fixture
def purify() -> Purifier:
    return small_purifier("gs")


def test_every_call_is_purified_and_the_model_stays_itself(model: Net, purify: Purifier) -> None:
    expected, keys = model(purify(IMAGES), scale=2.0), list(model.state_dict())
    with unchanged(model):
        handle = attach(model, purify)
        assert torch.equal(model(IMAGES, scale=2.0), expected)
        assert torch.equal(model(images=IMAGES, scale=2.0), expected)
        assert list(model.state_dict()) == keys and model.classes == ["a", "b", "c", "d"]
        handle.remove()


def test_stored_weights_go_from_and_to_the_bare_model(model: Net, purify: Purifier, tmp_path: Path) -> None:
    with attach(model, purify):
        torch.save(model.state_dict(), tmp_path / "attached.pt")
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    other = Net()
    nn.init.zeros_(other.body.weight)
    other.load_state_dict(torch.load(tmp_path / "attached.pt"))
    assert torch.equal(other(IMAGES), model(IMAGES))
    nn.init.zeros_(other.body.weight)
    attach(other, purify)
    other.load_state_dict(torch.load(tmp_path / "bare.pt"))
    assert torch.equal(other(IMAGES), model(purify(IMAGES)))


def test_removing_gives_the_bare_model_back_and_may_be_done_twice(model: Net, purify: Purifier) -> None:
    bare = model(IMAGES)
    handle = attach(model, purify)
    handle.remove()
    handle.remove()
    assert torch.equal(model(IMAGES), bare) and attached(model) is None


def test_as_a_context_manager_it_ends_with_the_block(model: Net, purify: Purifier) -> None:
    bare = model(IMAGES)
    with attach(model, purify) as handle:
        assert isinstance(handle, Handle) and handle.purifier is purify
        assert torch.equal(model(IMAGES), model.forward(purify(IMAGES)))
    assert torch.equal(model(IMAGES), bare)


def test_a_method_of_the_model_skips_the_purifier(model: Net, purify: Purifier) -> None:
    bare = model.forward_features(IMAGES)
    attach(model, purify)
    assert torch.equal(model.forward_features(IMAGES), bare)


def test_attaching_twice_is_refused(model: Net, purify: Purifier) -> None:
    attach(model, purify)
    with pytest.raises(WrapError, match=r"without a purifier, got one that has .*'gs.* attached; remove that first"):
        attach(model, purify)
    with pytest.raises(WrapError, match="without a purifier"):
        attach(nn.DataParallel(model), purify)


def test_a_function_is_refused(purify: Purifier) -> None:
    with pytest.raises(
        WrapError, match=r"expected a module to attach to, got function; purifier\.wrap takes functions"
    ):
        attach(lambda images: images, purify)  # type: ignore[arg-type]


def test_a_copy_and_a_pickle_keep_a_purifier_of_their_own(model: Net, purify: Purifier) -> None:
    handle = attach(model, purify)
    expected, bare = model(IMAGES), model.forward(IMAGES)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(IMAGES), expected)
        found = attached(twin)
        assert found is not None and found.purifier is not purify
        found.remove()
        assert torch.equal(twin(IMAGES), bare)
    assert torch.equal(model(IMAGES), expected)
    handle.remove()


def test_it_works_before_and_after_compiling(model: Net, purify: Purifier) -> None:
    bare, expected = model(IMAGES), model(purify(IMAGES))
    handle = attach(model, purify)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(IMAGES), expected)
    assert attached(compiled) is not None
    handle.remove()
    torch.testing.assert_close(compiled(IMAGES), bare)
    with attach(compiled, purify):
        torch.testing.assert_close(compiled(IMAGES), expected)
        assert attached(compiled) is not None
    torch.testing.assert_close(compiled(IMAGES), bare)


def test_a_compiled_model_notices_a_purifier_at_a_part_of_it(model: Net, purify: Purifier) -> None:
    outer = nn.Sequential(model, nn.Flatten()).eval()
    compiled = torch.compile(outer, backend="eager")
    bare, expected = outer(IMAGES), outer(purify(IMAGES))
    torch.testing.assert_close(compiled(IMAGES), bare)
    handle = attach(model, purify)
    torch.testing.assert_close(compiled(IMAGES), expected)
    handle.remove()
    torch.testing.assert_close(compiled(IMAGES), bare)


def test_gradients_flow_through_purifier_and_model(model: Net, purify: Purifier) -> None:
    images = IMAGES.clone().requires_grad_()
    model(purify(images)).sum().backward()
    attached_images = IMAGES.clone().requires_grad_()
    attach(model, purify)
    model(attached_images).sum().backward()
    assert images.grad is not None and attached_images.grad is not None
    torch.testing.assert_close(attached_images.grad, images.grad)


def test_normalised_images_are_purified_in_the_unit_range(model: Net, purify: Purifier) -> None:
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
    expected = model((purify(IMAGES) - mean) / std)
    handle = attach(model, purify, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25])
    torch.testing.assert_close(model((IMAGES - mean) / std), expected)
    assert handle.normalisation is not None and handle.normalisation[1] == [0.2, 0.3, 0.25]


def test_names_and_options_reach_from_pretrained(model: Net) -> None:
    assert attach(model, "gs", iterations=3).purifier.iterations == 3
    with pytest.raises(OptionError, match="out of 'RGB', 'BGR', got 'GBR'"):
        attach(Net(), "gs", channels="GBR")


def test_an_error_inside_the_block_takes_the_purifier_away(model: Net, purify: Purifier) -> None:
    bare = model(IMAGES)
    with pytest.raises(ZeroDivisionError), attach(model, purify):
        raise ZeroDivisionError
    assert torch.equal(model(IMAGES), bare) and attached(model) is None


def test_an_attached_model_is_exported_with_its_purifier(model: Net, purify: Purifier) -> None:
    expected = model(purify(IMAGES))
    attach(model, purify)
    torch.testing.assert_close(torch.export.export(model, (IMAGES,)).module()(IMAGES), expected)


def test_an_error_inside_a_call_leaves_the_purifier_attached(model: Net, purify: Purifier) -> None:
    expected = model(purify(IMAGES))
    attach(model, purify)
    with pytest.raises(InputError, match="got values from 0 to 255"):
        model(torch.tensor([0.0, 255.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert torch.equal(model(IMAGES), expected)


def test_the_view_of_an_attached_model_has_the_bare_model_and_leaves_other_calls_alone(
    model: Net, purify: Purifier
) -> None:
    bare = model(IMAGES)
    attach(model, purify)
    expected = model(IMAGES)
    view = as_purified_model(model)
    assert view is not None and view.purifier is purify
    assert torch.equal(view(IMAGES), expected) and torch.equal(view.model(IMAGES), bare)
    assert torch.equal(model(IMAGES), expected)
    assert as_purified_model(Net()) is None


def test_a_wrapped_model_is_its_own_view(model: Net, purify: Purifier) -> None:
    wrapped = purify.wrap(model)
    for outer in (wrapped, torch.compile(wrapped, backend="eager"), nn.DataParallel(wrapped)):
        assert as_purified_model(outer) is wrapped


def test_the_default_is_that_of_wrap() -> None:
    import inspect

    defaults = [inspect.signature(function).parameters["purifier"].default for function in (purifier.wrap, attach)]
    assert defaults[0] == defaults[1]


def test_a_model_with_a_purifier_in_a_part_of_it_is_refused(model: Net, purify: Purifier) -> None:
    outer = nn.Sequential(model)
    with attach(model, purify), pytest.raises(WrapError, match="expected a Sequential without a purifier"):
        attach(outer, purify)
    with pytest.raises(WrapError, match="without a purifier"):
        attach(nn.Sequential(purify.wrap(model)), purify)
    attach(outer, purify)


def test_a_part_of_a_model_with_a_purifier_is_refused(model: Net, purify: Purifier) -> None:
    outer = nn.Sequential(model)
    with attach(outer, purify):
        with pytest.raises(WrapError, match="got a part of a Sequential that has 'gs' attached; remove that first"):
            attach(model, purify)
        attach(Net(), purify)
    attach(model, purify)


def test_a_model_that_is_wrapped_elsewhere_is_warned_of(
    model: Net, purify: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    wrapped = purifier.wrap(nn.Sequential(model), purify)
    with pytest.warns(PurifierWarning, match="the Net is also in a wrapped model, whose images are purified twice"):
        handle = attach(model, purify)
    assert torch.equal(wrapped(IMAGES), model(purify(IMAGES)))
    handle.remove()
    del wrapped
    monkeypatch.setattr(_errors, "_given", {_wrapping.PROMISE})
    attach(model, purify)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")
def test_a_scripted_module_is_refused(purify: Purifier) -> None:
    with pytest.raises(WrapError, match=r"got one of TorchScript; use purifier\.wrap"):
        attach(torch.jit.script(nn.Flatten()), purify)


@pytest.mark.parametrize("change", [lambda p: p.half(), lambda p: setattr(p, "iterations", 4), None])
def test_the_copy_for_another_device_follows_changes(change: Callable[[Purifier], None] | None, model: Net) -> None:
    purify = small_purifier("ncis")
    hook = attach(model, purify)._hook
    elsewhere = torch.rand(1, 3, 8, 8, device="meta")
    with torch.inference_mode():
        first = hook._beside(elsewhere)
    assert first is hook._beside(elsewhere) and first.device.type == "meta"
    assert not any(weight.is_inference() for weight in first.parameters())
    if change is None:
        with torch.no_grad():
            next(purify.parameters()).add_(1)
    else:
        change(purify)
    second = hook._beside(elsewhere)
    assert second is not first and second.iterations == purify.iterations and second.dtype == purify.dtype


def test_a_part_of_a_copy_of_an_attached_model_is_refused_after_its_first_call(model: Net, purify: Purifier) -> None:
    outer = nn.Sequential(model)
    attach(outer, purify)
    copied = copy.deepcopy(outer)
    copied(IMAGES)
    with pytest.raises(WrapError, match="got a part of a Sequential that has 'gs' attached"):
        attach(copied[0], purify)


def test_removing_twice_discards_compiled_graphs_once(
    model: Net, purify: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    __import__("torch._dynamo")
    resets: list[None] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(None))
    with attach(model, purify) as handle:
        handle.remove()
    assert len(resets) == 2


def test_a_view_of_an_attached_model_is_not_a_wrapped_model(model: Net, purify: Purifier) -> None:
    handle = attach(model, purify)
    view = as_purified_model(model)
    handle.remove()
    attach(model, purify)
    assert view is not None and view is not as_purified_model(model)
