"""purifier doctor: what is wrong with how a model is fed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from purifier.commands._terminal import echo


@click.command(name="doctor")
@click.argument("model")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled pictures: a folder for each class.")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV file with the columns file,label for --data.")
@click.option("--size", default=224, show_default=True, type=click.IntRange(8), help="Side of the images in pixels.")
@click.option("--images", default=200, show_default=True, type=click.IntRange(1), help="Images, evenly over all.")
@click.option("--purifier", help="Also examine what this purifier costs on the pictures.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, ...")
def command(
    model: str, data: Path | None, labels: Path | None, size: int, images: int, purifier: str | None, device: str
) -> None:
    """Looks for mistakes in how MODEL, a classifier of images in [0, 1], is fed.

    MODEL is reference:demo, torchvision:NAME or timm:NAME, with @FILE for local weights, or module:function or
    file.py:function that returns a model.

    It finds a missing or double normalisation, images in 0..255, reversed colour channels, a wrong image size, softmax
    outputs, train mode, labels off by one or in another order, and a purifier that costs too much on clean images.
    Without --data only the mode and the outputs are checked. The exit code is 1 if anything was found.
    """
    import torch

    from purifier import Purifier
    from purifier.data.finding import labelled_images
    from purifier.evaluation.doctor import doctor
    from purifier.inference.precision import resolve_device
    from purifier.models.loading import load_model

    loaded = load_model(model, device=resolve_device(device))
    called = loaded.call
    if purifier is not None:
        called = Purifier.from_pretrained(purifier, device=device).wrap(called)
    if data is None:
        noise = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
        findings = doctor(called, noise.to(device))
    else:
        found = labelled_images(data, size, images, labels=labels, classes=loaded.classes)
        pictures, numbers = found.load(range(len(found)))
        findings = doctor(called, pictures.to(device), numbers)
    for finding in findings:
        echo(f"{finding.check}: {finding.measured}\n  {finding.explanation}")
    if not findings:
        echo("nothing found" + ("; pass --data for the checks that need labelled pictures" if data is None else ""))
    sys.exit(1 if findings else 0)
