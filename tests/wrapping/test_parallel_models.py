"""Models inside DataParallel and DistributedDataParallel, and wrapped models inside them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import purifier
from purifier import Purifier
from purifier._attaching import attached
from tests.builders import pictures, small_purifier, unchanged

IMAGES = pictures(2, 3, 10, 8)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def classifier() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 6, 5))


def test_a_model_inside_data_parallel_is_wrapped() -> None:
    model, purify = nn.DataParallel(classifier()), Purifier.from_pretrained("gs")
    with unchanged(model):
        wrapped = purifier.wrap(model, purify)
        out = wrapped(IMAGES)
    assert wrapped.unwrap() is model
    assert torch.equal(out, classifier()(purify(IMAGES)))


def test_a_model_inside_ddp_is_wrapped_and_trains(group: None) -> None:
    model, purify = DistributedDataParallel(classifier()), Purifier.from_pretrained("gs")
    wrapped = purifier.wrap(model, purify)
    assert wrapped.unwrap() is model
    out = wrapped(IMAGES)
    assert torch.equal(out, classifier()(purify(IMAGES)))
    out.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("kind", [nn.DataParallel, DistributedDataParallel])
def test_a_wrapped_model_inside_them_gives_the_same_output(kind: type, group: None) -> None:
    wrapped = purifier.wrap(classifier(), "gs")
    assert torch.equal(kind(wrapped)(IMAGES), wrapped(IMAGES))


@pytest.mark.parametrize("kind", [nn.DataParallel, DistributedDataParallel])
@pytest.mark.parametrize("attach_first", [True, False])
def test_an_attached_model_inside_them_is_purified_once_and_trains(kind: type, attach_first: bool, group: None) -> None:
    purify, expected = Purifier.from_pretrained("gs"), classifier()(Purifier.from_pretrained("gs")(IMAGES))
    model = classifier()
    if attach_first:
        purifier.attach(model, purify)
    parallel = kind(model)
    handle = attached(model) if attach_first else purifier.attach(parallel, purify)
    out = parallel(IMAGES)
    assert torch.equal(out, expected)
    out.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert handle is not None
    handle.remove()
    assert torch.equal(parallel(IMAGES), classifier()(IMAGES)) and attached(parallel) is None


def test_a_replica_on_another_gpu_is_trainable_if_the_purifier_is() -> None:
    purify = small_purifier("ncis")
    for learns in (False, True):
        purify.requires_grad_(learns)
        replica = copied_as_by_data_parallel(purify)
        assert not list(replica.parameters())
        assert replica(IMAGES).requires_grad == learns


def copied_as_by_data_parallel(module: nn.Module) -> nn.Module:
    """Copies like torch.nn.parallel.replicate: the parameters become tensors of the parameters' graph."""
    copies = {part: part._replicate_for_data_parallel() for part in module.modules()}
    for part, replica in copies.items():
        replica._former_parameters = OrderedDict()
        for name, child in part.named_children():
            setattr(replica, name, copies[child])
        for name, weight in part.named_parameters(recurse=False):
            setattr(replica, name, weight * 1)
            replica._former_parameters[name] = getattr(replica, name)
    return copies[module]
