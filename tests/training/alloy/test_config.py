"""The one-line forms of extractors and sources."""

import pytest

from purifier import OptionError
from purifier.training.alloy.config import AlloyTraining
from purifier.training.extractors import ExtractorLine, read_extractors
from purifier.training.perturbations import SourceLine, read_sources


def test_an_extractor_has_a_name_a_model_layers_and_a_weight() -> None:
    lines = ["vgg=kit:vgg:0.5", "b=reference:demo@stages:0.25", "c-2=vgg16:0", "d=my.module:build@a.0+b:1e-1"]
    assert read_extractors(lines) == [
        ExtractorLine("vgg", "kit:vgg", (), 0.5),
        ExtractorLine("b", "reference:demo", ("stages",), 0.25),
        ExtractorLine("c-2", "vgg16", (), 0.0),
        ExtractorLine("d", "my.module:build", ("a.0", "b"), 0.1),
    ]


def test_a_source_has_a_kind_an_extractor_a_share_and_steps() -> None:
    lines = ["ssp:vgg:0.30:2-3", "kl:*:1:4", "gaussian:0.1", "sign:2", "none:0"]
    assert read_sources(lines) == [
        SourceLine("ssp", "vgg", 0.3, (2, 3)),
        SourceLine("kl", "*", 1.0, (4, 4)),
        SourceLine("gaussian", "", 0.1, (0, 0)),
        SourceLine("sign", "", 2.0, (0, 0)),
        SourceLine("none", "", 0.0, (0, 0)),
    ]


def test_the_defaults_can_be_read() -> None:
    config = AlloyTraining()
    assert [line.name for line in read_extractors(config.extractors)] == ["vgg", "demo"]
    assert sum(line.share for line in read_sources(config.sources)) == pytest.approx(1)


@pytest.mark.parametrize(
    "line",
    ["", "vgg16:0.5", "a=b:c", "a=b:c:-1", "a=b:c:nan", "a=b:c:inf", "a=b:c@:1", "a=b:c@d", "=b:c:1", "a b=c:d:1"],
)
def test_an_extractor_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(OptionError, match=r"expected an extractor as NAME=MODEL.*got '"):
        read_extractors([line])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "fgsm:vgg:0.3:2",
        "ssp:vgg:0.3",
        "ssp:0.3:2",
        "ssp:vgg:0.3:2:1",
        "ssp:vgg:much:2",
        "ssp:vgg:-1:2",
        "ssp:vgg:0.3:0",
        "ssp:vgg:0.3:3-2",
        "ssp:vgg:0.3:two",
        "kl:vgg:0.3:",
        "none",
        "none:1:2",
        "gaussian:vgg:1:2",
    ],
)
def test_a_source_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(OptionError, match=r"expected a source as ATTACK:EXTRACTOR:SHARE:STEPS.*got '"):
        read_sources(["none:1", line])


def test_two_extractors_of_one_name_are_refused() -> None:
    with pytest.raises(OptionError, match="with names of their own, got b twice"):
        read_extractors(["a=x:y:1", "b=x:y:1", "b=x:z:1"])


@pytest.mark.parametrize("name", ["pixel", "predictions", "teacher"])
def test_extractors_called_as_another_loss_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"with names of their own, got {name}, a loss; rename it"):
        read_extractors(["a=x:y:1", f"{name}=x:z:1"])


@pytest.mark.parametrize("lines", [[], ["none:0", "sign:0"]])
def test_sources_without_a_share_are_refused(lines: list[str]) -> None:
    with pytest.raises(OptionError, match="expected sources with a share above 0"):
        read_sources(lines)
