"""on_score: callbacks with the attack scores of each call of a defended model."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from purifier import OptionError, PurifiedModel, Purifier, attach, wrap
from tests.builders import pictures, small_method, small_purifier

IMAGES = pictures(3, 3, 24, 32)
Defend = Callable[[nn.Module, Purifier], tuple[nn.Module, Any]]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Any, other: Any = None) -> Any:
        first = images[0] if isinstance(images, list) else images
        return (first * self.scale).mean((-1, -2))


def gated(**options: Any) -> Purifier:
    return Purifier(small_method("alloy", iterations=2, gate=3, **options).requires_grad_(False))


def wrapped(model: nn.Module, purifier: Purifier) -> tuple[nn.Module, Any]:
    defended = wrap(model, purifier)
    return defended, defended


def attached(model: nn.Module, purifier: Purifier) -> tuple[nn.Module, Any]:
    return model, attach(model, purifier)


BOTH = pytest.mark.parametrize("defend", [wrapped, attached])


@BOTH
def test_a_callback_gets_the_scores_of_every_call_and_can_be_removed(defend: Defend) -> None:
    purifier, seen = gated(), []
    model, door = defend(Net(), purifier)
    expected = model(IMAGES)
    handle = door.on_score(seen.append)
    out = model(IMAGES)
    assert torch.equal(out, expected)
    torch.testing.assert_close(seen, [purifier.attack_score(IMAGES)])
    with torch.no_grad():
        model(IMAGES[0])
    assert seen[1].shape == (1,)
    handle.remove()
    model(IMAGES)
    assert len(seen) == 2


@BOTH
def test_scores_are_detached_and_gradients_of_the_images_stay(defend: Defend) -> None:
    seen: list[Tensor] = []
    model, door = defend(Net(), gated())
    images = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(images).sum(), images)
    door.on_score(seen.append)
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    assert torch.equal(gradient, expected) and not seen[0].requires_grad


@BOTH
def test_the_gate_is_computed_as_often_as_without_a_callback(defend: Defend) -> None:
    purifier, calls = gated(), []
    purifier.method.gate.layers.register_forward_hook(lambda *_: calls.append(1))
    model, door = defend(Net(), purifier)
    model(IMAGES)
    before = len(calls)
    door.on_score(lambda scores: None)
    model(IMAGES)
    assert len(calls) == 2 * before


@BOTH
def test_images_of_one_call_are_scored_together(defend: Defend) -> None:
    seen: list[Tensor] = []
    purifier = gated()
    model, door = defend(Net(), purifier)
    door.on_score(seen.append)
    parts = [IMAGES[0], IMAGES[1, :, :16], IMAGES[2]]
    model(parts)
    torch.testing.assert_close(seen, [torch.stack([purifier.attack_score(part) for part in parts])])


def test_grey_images_and_video_have_a_score_for_each_image() -> None:
    seen: list[Tensor] = []
    defended = wrap(Net(), gated())
    defended.on_score(seen.append)
    defended(IMAGES[:, :1])
    defended(IMAGES.expand(2, 3, 3, 24, 32))
    assert [scores.shape for scores in seen] == [(3,), (6,)]


def test_several_callbacks_are_called_and_a_call_without_images_calls_none() -> None:
    first, second = [], []
    defended = wrap(Net(), gated())
    defended.on_score(first.append)
    defended.on_score(second.append)
    defended(IMAGES)
    defended.model.forward = lambda ids: ids  # type: ignore[method-assign]
    defended(torch.arange(4))
    assert len(first) == len(second) == 1 and torch.equal(first[0], second[0])


@pytest.mark.parametrize("tiled", [False, True])
def test_tiled_and_compiled_purifiers_have_the_same_scores(tiled: bool) -> None:
    seen: list[Tensor] = []
    purifier = gated()
    expected = purifier.attack_score(IMAGES)
    if tiled:
        purifier = purifier.tiled(16)
    defended = torch.compile(wrap(Net(), purifier), backend="eager")
    defended.on_score(seen.append)
    times: list[float] = []
    defended.on_score(lambda scores: times.append(time.perf_counter()))
    defended(IMAGES)
    defended(IMAGES)
    torch.testing.assert_close(seen, [expected, expected])
    # A callback that the compiler had recorded would see one time twice.
    assert times[0] < times[1]


def test_data_parallel_calls_it() -> None:
    seen: list[Tensor] = []
    purifier = gated()
    defended = wrap(Net(), purifier)
    defended.on_score(seen.append)
    nn.DataParallel(defended)(IMAGES)
    torch.testing.assert_close(torch.cat(seen), purifier.attack_score(IMAGES))


@BOTH
def test_copies_keep_callbacks_and_pickles_do_not(defend: Defend) -> None:
    calls: list[Tensor] = []
    model, door = defend(Net(), gated())
    door.on_score(calls.append)
    copy.deepcopy(model)(IMAGES)
    assert len(calls) == 1
    pickle.loads(pickle.dumps(model))(IMAGES)
    assert len(calls) == 1


def test_exported_graphs_have_no_callback() -> None:
    calls: list[Tensor] = []
    defended = wrap(Net(), gated()).eval()
    defended.on_score(calls.append)
    exported = torch.export.export(defended, (IMAGES,)).module()
    assert not calls
    torch.testing.assert_close(exported(IMAGES), defended(IMAGES))
    assert len(calls) == 1


def test_what_a_callback_raises_ends_the_call() -> None:
    def refuse(scores: Tensor) -> None:
        raise PermissionError("attacked")

    defended = wrap(Net(), gated())
    defended.on_score(refuse)
    with pytest.raises(PermissionError, match="attacked"):
        defended(IMAGES)


@BOTH
def test_a_purifier_without_a_gate_or_no_function_is_refused(defend: Defend) -> None:
    _, door = defend(Net(), small_purifier("gs"))
    with pytest.raises(OptionError, match="expected a purifier with one gate to score images"):
        door.on_score(print)
    _, door = defend(Net(), gated())
    with pytest.raises(OptionError, match="expected a function that takes the scores, got 5"):
        door.on_score(5)


def test_a_module_that_is_no_purifier_is_refused() -> None:
    class Own(nn.Module):
        def purify(self, images: Tensor) -> Tensor:
            return images

    with pytest.raises(OptionError, match=r"expected a Purifier with a gate to score images, .* got Own"):
        PurifiedModel(Net(), Own()).on_score(print)
