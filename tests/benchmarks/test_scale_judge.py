"""The choice of the scale of an alloy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.recipes import scale_judge
from purifier import reference_model
from tests.builders import pictures


@pytest.fixture
def judge() -> scale_judge.Judge:
    network: nn.Module = reference_model("demo").eval()
    return scale_judge.Judge(network, pictures(6, 3, 128, 128), "demo")


def test_the_judge_keeps_the_surest_half_and_attacks_it(judge: scale_judge.Judge) -> None:
    sureness = judge.network(pictures(6, 3, 128, 128)).softmax(1).amax(1)
    kept = judge.network(judge.images["clean"]).softmax(1).amax(1)
    torch.testing.assert_close(kept, sureness.sort(descending=True).values[:3])
    assert list(judge.images) == ["clean", "PGD 4/255", "PGD 16/255", "MIFGSM 4/255", "MIFGSM 16/255"]
    for name, images in judge.images.items():
        eps = 0 if name == "clean" else int(name.split()[1].removesuffix("/255")) / 255
        assert (images - judge.images["clean"]).abs().max().item() == pytest.approx(eps, abs=1e-6)


def test_without_a_purifier_only_clean_images_keep_their_class(judge: scale_judge.Judge) -> None:
    shares = judge.shares(lambda images: images)
    assert shares["clean"] == 1
    assert shares["PGD 16/255"] < 1
    restored = dict(zip(judge.images.values(), [judge.images["clean"]] * 5, strict=True))
    assert judge.shares(lambda images: next(to for of, to in restored.items() if of.equal(images))) == dict.fromkeys(
        judge.images, 1.0
    )


def test_the_table_has_a_row_a_scale_and_the_mean_under_attack() -> None:
    rows = {"0.75": {"a": {"clean": 0.5, "x": 0.25}, "b": {"clean": 1.0, "x": 0.75}}}
    lines = scale_judge.markdown({"rows": rows}).splitlines()
    assert lines[0] == "| scale | a, clean | a, x | b, clean | b, x | mean under attack |"
    assert lines[2] == "| 0.75 | 50.0 | 25.0 | 100.0 | 75.0 | 50.0 |"
