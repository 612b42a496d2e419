"""purifier tune: chooses a purifier's options for the user's own model and images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError
from purifier._files import write_text
from purifier.commands._extras import require_extra
from purifier.commands._model_options import loaded_name

if TYPE_CHECKING:
    from purifier.attacks import Attack
    from purifier.evaluation.tuning import Trial, Tuning

_BLIND = "The accuracies are purifier-blind: the attacker does not know the purifier. One who does can do far more; "

# Settings named in a line.
_SHOWN = 4


@click.command("tune")
@click.option("--model", required=True, help="reference:demo, torchvision:NAME, timm:NAME, or module:function.")
@click.option(
    "--data",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of images: one folder per class, named after the class or by its number in the model; otherwise as "
    "many folders as classes, in sorted order. Or any folder of images, with --labels.",
)
@click.option("--labels", type=click.Path(path_type=Path), help="CSV file with columns file,label.")
@click.option("--purifier", "name", default="ncis", show_default=True, help="Name, folder or hub repository.")
@click.option("--iterations", default="1..8", show_default=True, help="Numbers to try: 1..8 or 1,3,5.")
@click.option("--kernel-size", "kernel_sizes", default="", help="Kernel sizes to try (gs): 3,5,7. [default: its own]")
@click.option(
    "--attack",
    "attack_text",
    default="PGD",
    show_default=True,
    help="Such as PGD:steps=20. By default, PGD takes 10 steps of eps/10, as in the NCIS paper.",
)
@click.option("--eps", default="16/255", show_default=True, help="Radius of the attack, in units of the [0, 1] range.")
@click.option(
    "--images", default=200, show_default=True, type=click.IntRange(1), help="Number of images, spread evenly over all."
)
@click.option(
    "--aware-images",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Images for the accuracy under an attacker who knows the purifier.",
)
@click.option("--size", default=224, show_default=True, type=click.IntRange(1), help="Side of the images in pixels.")
@click.option("--batch-size", default=20, show_default=True, type=click.IntRange(1), help="Images at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dtype", default="float32", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--seed", default=0, show_default=True, help="Seed of the attack.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the results.")
def command(
    model: str,
    folder: Path,
    labels: Path | None,
    name: str,
    iterations: str,
    kernel_sizes: str,
    attack_text: str,
    eps: str,
    images: int,
    aware_images: int,
    size: int,
    batch_size: int,
    device: str,
    dtype: str,
    seed: int,
    out: Path,
) -> None:
    """Choose the number of iterations (and the kernel size of gs) for a model and images.

    Takes the setting with the highest mean of standard accuracy and accuracy under a purifier-blind attack, as the NCIS
    paper does. Writes OUT/tuning.json, OUT/tuning.png and OUT/purifier, a folder for Purifier.from_pretrained. If the
    run is stopped, the same command resumes it.
    """
    require_extra("matplotlib", extra="eval", what="purifier tune")

    from purifier.data.finding import labelled_images
    from purifier.evaluation.tuning import tune, write_purifier
    from purifier.evaluation.tuning_figure import draw_tuning
    from purifier.inference.precision import resolve_device
    from purifier.models.loading import load_model

    place = resolve_device(device)
    attack = make_tuning_attack(attack_text, eps)
    loaded = load_model(model, device=place)
    data = labelled_images(folder, size, images, labels=labels, classes=loaded.classes)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"expected a folder that can be written, got {out}: {error}") from error
    tuning = tune(
        loaded,
        data,
        name,
        attack=attack,
        out=out / "records",
        iterations=parse_numbers(iterations, "--iterations"),
        kernel_sizes=parse_numbers(kernel_sizes, "--kernel-size") if kernel_sizes else (),
        aware_images=aware_images,
        batch_size=batch_size,
        seed=seed,
        device=place,
        dtype=dtype,
    )
    write_purifier(tuning, out / "purifier", name)
    subtitle = f"{model}, {tuning.chosen.images} images; {describe_attack(attack)}; bands: 95 % intervals"
    shown = loaded_name(name)
    draw_tuning(tuning, out / "tuning.png", title=f"Choosing {shown}", subtitle=subtitle, note=figure_note(tuning))
    write_text(out / "tuning.json", json.dumps(tuning.to_dict(), indent=1) + "\n")
    for line in report(
        tuning, f"{model}, {shown}, {tuning.chosen.images} images; {describe_attack(attack)}", aware_images
    ):
        click.echo(line)
    click.echo(f"\nfigure: {out / 'tuning.png'}\nfigures: {out / 'tuning.json'}")
    click.echo(f"purifier: Purifier.from_pretrained({str(out / 'purifier')!r})")


def make_tuning_attack(text: str, eps: str) -> Attack:
    """Builds the attack; PGD has the NCIS paper's step size, eps / 10, unless it states its own.

    Raises:
        OptionError: Where it has no gradients to climb, or an option is out of its range.
        UnknownNameError: Where no attack goes by that name.
    """
    from purifier.evaluation.specs import make_attack, parse, parse_eps

    radius = parse_eps(eps)
    name, options = parse(text)
    if name == "PGD" and "alpha" not in options:
        text += f"{',' if options else ':'}alpha={float(str(options.get('eps', radius))) / 10!r}"
    return make_attack(text, eps=radius)


def parse_numbers(text: str, option: str) -> list[int]:
    """Reads 1..8 or 1,3,5.

    Raises:
        OptionError: Where it is something else.

    Example:
        >>> parse_numbers("1..4", "--iterations"), parse_numbers("3,5", "--kernel-size")
        ([1, 2, 3, 4], [3, 5])
    """
    span = re.fullmatch(r"(\d+)\s*\.\.\s*(\d+)", text.strip())
    if span is not None:
        first, last = int(span[1]), int(span[2])
        if first <= last:
            return list(range(first, last + 1))
    elif re.fullmatch(r"\d+(\s*,\s*\d+)*", text.strip()):
        return [int(part) for part in text.split(",")]
    raise OptionError(f"expected {option} as 1..8 or 1,3,5, got {text!r}")


def describe_attack(attack: Attack) -> str:
    """Returns an attack in words, such as "PGD, Linf, eps 16/255, 10 steps"."""
    parts = [attack.name]
    if attack.bounded:
        radius = f"{255 * attack.eps:.3g}/255" if attack.norm == "Linf" else f"{attack.eps:.3g}"
        parts += [attack.norm, f"eps {radius}"]
    unit = next((unit for unit in ("queries", "steps") if hasattr(attack, unit)), None)
    parts += [] if unit is None else [f"{getattr(attack, unit)} {unit}"]
    return ", ".join(parts)


def report(tuning: Tuning, heading: str, aware_images: int = 0) -> list[str]:
    """Returns the lines of the table, with what the reader must know below it."""
    rows = [("no purifier", tuning.undefended), *((trial.name, trial) for trial in tuning.trials)]
    width = max(len(name) for name, _ in rows)
    lines = [heading, "", f"{'':{width}}  {'standard':22}  {'robust, purifier-blind':22}  {'mean':>7}"]
    for name, trial in rows:
        mark = "  chosen" if trial is tuning.chosen else ""
        lines.append(
            f"{name:{width}}  {_share(trial, 'standard')}  {_share(trial, 'blind')}  {_percent(trial.mean)}{mark}"
        )
    lines.append("")
    level = [trial.name for trial in tuning.level]
    if level:
        more = f" and {len(level) - _SHOWN} more" if len(level) > _SHOWN else ""
        names = ", ".join(level[:_SHOWN])
        lines.append(f"These images do not tell {tuning.chosen.name} from {names}{more}: more images would.")
    if not tuning.worthwhile:
        lines.append(
            "No setting has a higher mean than no purifier: by this measure, none is worth its standard accuracy."
        )
    aware = tuning.aware
    if aware is None:
        lines.append(f"{_BLIND}--aware-images 50 measures the chosen setting against one who does.")
    else:
        figures = aware.to_dict()
        low, high = figures["interval"]
        shown = f"{100 * figures['accuracy']:.1f} % ({100 * low:.1f} .. {100 * high:.1f}) of {aware.images} images"
        lines.append(f"{_BLIND}against one who does, {tuning.chosen.name} keeps {shown}.")
    lines.append(
        "The chosen figures are of the images that they were chosen on: report those of `purifier evaluate` on others."
    )
    return lines


def figure_note(tuning: Tuning) -> str:
    """Returns the line at the figure's foot."""
    aware = tuning.aware
    told = "not measured" if aware is None else f"{aware.right} of {aware.images} images right"
    return f"Dotted: no purifier. Robust accuracy is purifier-blind; purifier-aware, at the chosen setting: {told}."


def _share(trial: Trial, key: str) -> str:
    figures: dict[str, Any] = trial.to_dict()
    low, high = figures[f"{key}_interval"]
    return f"{_percent(figures[f'{key}_accuracy'])} {f'({100 * low:.1f} .. {100 * high:.1f})':14}"


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
