"""purifier export: writes a purifier, or a model behind one, as an ONNX or torch.export file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from torch import nn

from purifier import Purifier, wrap
from purifier._errors import OptionError
from purifier._extras import require_extra
from purifier.commands._model_options import MODEL_HELP, given, iterations_option
from purifier.commands._terminal import echo
from purifier.models.loading import load_model
from purifier.models.normalised import Normalised


@click.command("export")
@click.argument("name", metavar="NAME_OR_FOLDER")
@click.argument("out", metavar="[OUT]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx", "torch-export"]),
    help="onnx for ONNX Runtime and other runtimes; torch-export for torch.export.load.",
)
@iterations_option
@click.option(
    "--chain",
    "others",
    multiple=True,
    metavar="NAME_OR_FOLDER",
    help="Purifier to apply next. Can be given several times.",
)
@click.option("--opset", type=int, help="ONNX operator set, 18 or newer.  [default: 18]")
@click.option("--size", metavar="HxW", help="Fix height and width, such as 224x224.  [default: any]")
@click.option("--model", "model_spec", metavar="MODEL", help=f"Export this model behind the purifier: {MODEL_HELP}")
@click.option("--mean", metavar="R,G,B", help="Mean of the normalisation that the model expects, in [0, 1] units.")
@click.option("--std", metavar="R,G,B", help="Standard deviation of it. OUT then takes normalised images.")
@click.option(
    "--triton",
    metavar="REPO",
    type=click.Path(path_type=Path),
    help="Write a model repository of Triton instead of OUT: the purifier, the model, and the ensemble of both.",
)
def command(
    name: str,
    out: Path | None,
    form: str,
    iterations: int | None,
    others: Sequence[str],
    opset: int | None,
    size: str | None,
    model_spec: str | None,
    mean: str | None,
    std: str | None,
    triton: Path | None,
) -> None:
    """Write a purifier, or a model behind one, as a file that runs without this library.

    OUT takes float32 images (N, 3, H, W) in [0, 1]: any number of images, and any size unless --size is given. It
    contains the purifier's name, configuration and hash. Its outputs on random images are compared with those of this
    library before an existing OUT is replaced.
    """
    if (out is None) == (triton is None):
        raise click.UsageError("expected either OUT or --triton REPO")
    if form == "onnx" or triton is not None:
        for package in ("onnx", "onnxscript"):
            require_extra(package, extra="export", what="purifier export --format onnx")

    from purifier.inference.export import export

    purifier = Purifier.from_pretrained(name, **given(iterations=iterations))
    chained = Purifier.chain(purifier, *others) if others else purifier
    numbers = _numbers("mean", mean), _numbers("std", std)
    if triton is not None:
        _write_repository(chained, triton, model_spec, *numbers, size=_size(size), opset=opset)
        return
    target = _target(chained, model_spec, *numbers)
    made = export(target, out or "", format=form, size=_size(size), opset=opset)
    facts = made.metadata
    opset_text = f", opset {facts['opset']}" if "opset" in facts else ""
    size_text = f"images of {facts['size']}" if size else f"images of any size from {facts['smallest_size']}"
    echo(f"exported {facts['name']} ({facts['kind']}, {form}{opset_text}, {size_text}) to {made.path}")
    echo(f"SHA-256 of the weights: {facts['sha256']}")
    if made.difference is None:
        echo('not verified: ONNX Runtime is not installed; pip install "torch-purifier[export]"')
    else:
        runner = "ONNX Runtime" if form == "onnx" else "torch.export.load"
        echo(f"verified with {runner}: largest difference {made.difference:.2g} on random images")


def _write_repository(
    purifier: Purifier,
    repository: Path,
    model_spec: str | None,
    mean: list[float] | None,
    std: list[float] | None,
    *,
    size: tuple[int, int] | None,
    opset: int | None,
) -> None:
    from purifier.inference.triton import export_triton

    require_extra("onnxruntime", extra="export", what="purifier export --triton")
    target = _target(purifier, model_spec, mean, std)
    model: Any = None if target is purifier else load_model(str(model_spec)).call
    if mean is not None and std is not None:
        model = Normalised(model, mean, std)
    for folder in export_triton(purifier, repository, model, size=size, **given(opset=opset)):
        echo(f"wrote {folder}")


def _target(purifier: Purifier, model_spec: str | None, mean: list[float] | None, std: list[float] | None) -> nn.Module:
    if model_spec is None:
        if mean is not None or std is not None:
            raise OptionError("expected --model with --mean and --std, got none; add --model")
        return purifier
    return wrap(load_model(model_spec).call, purifier, mean=mean, std=std)


def _numbers(name: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"expected --{name} as numbers such as 0.485,0.456,0.406, got {text!r}") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if found is None:
        raise OptionError(f"expected --size as HEIGHTxWIDTH, such as 224x224, got {text!r}")
    return int(found[1]), int(found[2])
