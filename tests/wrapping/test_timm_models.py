"""timm's models state their normalisation; wrap reads it off."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import purifier
from purifier import Purifier
from tests.builders import pictures, unchanged


def stating(mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    return timm.create_model(
        "test_resnet", pretrained=False, num_classes=5, pretrained_cfg_overlay={"mean": mean, "std": std}
    ).eval()


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_mean_and_std_are_read_off_the_model() -> None:
    model, purify = stating(MEAN, STD), Purifier.from_pretrained("gs")
    images = pictures(2, 3, 40, 48)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with unchanged(model):
        wrapped = purifier.wrap(model, purify)
        out = wrapped((images - mean) / std)
    assert (tuple(wrapped.mean), tuple(wrapped.std)) == (MEAN, STD)
    torch.testing.assert_close(out, model((purify(images) - mean) / std), rtol=1e-3, atol=1e-4)


def test_mean_and_std_are_read_off_inside_data_parallel() -> None:
    wrapped = purifier.wrap(nn.DataParallel(stating(MEAN, STD)), "gs")
    assert (tuple(wrapped.mean), tuple(wrapped.std)) == (MEAN, STD)


def test_a_given_mean_and_std_win_over_the_stated_ones() -> None:
    wrapped = purifier.wrap(stating(MEAN, STD), "gs", mean=[0, 0, 0], std=[1, 1, 1])
    assert (wrapped.mean, wrapped.std) == ([0, 0, 0], [1, 1, 1])


def test_a_given_mean_alone_is_not_completed_by_the_stated_std() -> None:
    with pytest.raises(purifier.OptionError, match="expected mean and std together"):
        purifier.wrap(stating(MEAN, STD), "gs", mean=[0, 0, 0])


def test_a_transformer_of_timm_works_too() -> None:
    model = timm.create_model("test_vit", pretrained=False, num_classes=5).eval()
    size = model.pretrained_cfg["input_size"][-1]
    assert purifier.wrap(model, "gs")(torch.zeros(1, 3, size, size)).shape == (1, 5)
