"""purifier tune: choose a purifier's options for a model and images."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier._errors import OptionError, shown
from purifier._extras import require_extra
from purifier._files import write_text
from purifier._wrapping import DEFAULT
from purifier.commands._model_options import DATA_HELP, MODEL_HELP, device_option, loaded_name
from purifier.commands._terminal import echo

if TYPE_CHECKING:
    from purifier.attacks import Attack
    from purifier.evaluation.tuning import Trial, Tuning

_BLIND = (
    "The accuracies are purifier-blind: the attacker does not know the purifier. An aware attacker is far stronger: "
)

# Every number is a run over all images.
_MOST_TRIED = 100
# Settings that a line names at most.
_SHOWN = 4


@click.command("tune")
@click.option("--model", required=True, help=MODEL_HELP)
@click.option("--data", "folder", required=True, type=click.Path(path_type=Path), help=DATA_HELP)
@click.option("--labels", type=click.Path(path_type=Path), help="CSV file with the columns file,label.")
@click.option("--purifier", "name", default=DEFAULT, show_default=True, help="Name, folder or hub repository.")
@click.option("--iterations", default="1..8", show_default=True, help="Numbers to try: 1..8 or 1,3,5.")
@click.option("--kernel-size", "kernel_sizes", help="Kernel sizes to try (gs): 3,5,7.  [default: its own]")
@click.option(
    "--attack",
    "attack_text",
    default="PGD",
    show_default=True,
    help="Such as PGD:steps=20. By default, PGD takes 10 steps of eps/4. The NCIS paper takes steps of eps/10.",
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
@click.option("--batch-size", default=20, show_default=True, type=click.IntRange(1), help="Images in a batch.")
@device_option
@click.option("--dtype", default="float32", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Seed of the attack.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the results.")
def command(
    model: str,
    folder: Path,
    labels: Path | None,
    name: str,
    iterations: str,
    kernel_sizes: str | None,
    attack_text: str,
    eps: str,
    images: int,
    size: int,
    device: str,
    out: Path,
    **options: Any,
) -> None:
    """Choose the number of iterations (and the kernel size of gs) for a model and images.

    Takes the setting with the highest mean of standard accuracy and accuracy under a purifier-blind attack, as the NCIS
    paper does. Writes OUT/tuning.json, OUT/tuning.png and OUT/purifier, a folder for Purifier.from_pretrained. Run the
    same command again to resume.
    """
    require_extra("matplotlib", extra="eval", what="purifier tune")

    from purifier.data.outputs import check_outside
    from purifier.evaluation import labelled_images, load_model
    from purifier.evaluation.tuning import tune, write_purifier
    from purifier.inference.precision import resolve_device

    if labels is None:
        check_outside(out, folder)
    attack = make_tuning_attack(attack_text, eps)
    options["iterations"] = parse_numbers(iterations, "--iterations")
    options["kernel_sizes"] = parse_numbers(kernel_sizes, "--kernel-size") if kernel_sizes else ()
    loaded = load_model(model, device=resolve_device(device))
    data = labelled_images(folder, size, images, labels=labels, classes=loaded.classes)
    tuning = tune(loaded, data, name, attack=attack, out=out, **options)
    write_purifier(tuning, out / "purifier", name)
    _write(tuning, out, f"{model}, {loaded_name(name)}, {len(data)} images; {describe_attack(attack)}", name)


def _write(tuning: Tuning, out: Path, heading: str, name: str) -> None:
    """Writes the figures and prints the table."""
    from purifier.evaluation.tuning_figure import draw_tuning

    title, subtitle = f"Choosing {loaded_name(name)}", f"{heading}; bands: 95 % intervals"
    draw_tuning(tuning, out / "tuning.png", title=title, subtitle=subtitle, note=figure_note(tuning))
    write_text(out / "tuning.json", json.dumps(tuning.to_dict(), indent=1) + "\n")
    for line in report(tuning, heading):
        echo(line)
    echo(f"\nfigure: {out / 'tuning.png'}\nfigures: {out / 'tuning.json'}")
    echo(f"purifier: Purifier.from_pretrained({str(out / 'purifier')!r})")


def make_tuning_attack(text: str, eps: str) -> Attack:
    """Builds the attack, with the defaults of `purifier evaluate`.

    Raises:
        OptionError: If an option is unknown or out of its range.
        UnknownNameError: If there is no attack of that name.
    """
    from purifier.evaluation.specs import make_attack, parse_eps

    return make_attack(text, eps=parse_eps(eps))


def parse_numbers(text: str, option: str) -> list[int]:
    """Reads 1..8 or 1,3,5.

    Raises:
        OptionError: If the text has another form.

    Example:
        >>> parse_numbers("1..4", "--iterations"), parse_numbers("3,5", "--kernel-size")
        ([1, 2, 3, 4], [3, 5])
    """
    span = re.fullmatch(r"([0-9]{1,4})\s*\.\.\s*([0-9]{1,4})", text.strip())
    numbers: Sequence[int] = ()
    if span is not None:
        numbers = range(int(span[1]), int(span[2]) + 1)
    elif re.fullmatch(r"[0-9]{1,4}(\s*,\s*[0-9]{1,4})*", text.strip()):
        numbers = [int(part) for part in text.split(",")]
    if not 0 < len(numbers) <= _MOST_TRIED:
        raise OptionError(
            f"expected {option} as 1..8 or 1,3,5, got {shown(text)}; give at most {_MOST_TRIED} numbers below 10,000"
        )
    return list(numbers)


def describe_attack(attack: Attack) -> str:
    """Describes an attack, such as "PGD, Linf, eps 16/255, 10 steps"."""
    parts = [attack.name]
    if attack.bounded:
        radius = f"{255 * attack.eps:.3g}/255" if attack.norm == "Linf" else f"{attack.eps:.3g}"
        parts += [attack.norm, f"eps {radius}"]
    unit = next((unit for unit in ("queries", "steps") if hasattr(attack, unit)), None)
    parts += [] if unit is None else [f"{getattr(attack, unit)} {unit}"]
    return ", ".join(parts)


def report(tuning: Tuning, heading: str) -> list[str]:
    """Returns the lines of the table, and below it the limits of its figures."""
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
        lines.append(f"These images do not distinguish {tuning.chosen.name} from {names}{more}. Use more images.")
    if not tuning.worthwhile:
        lines.append(
            "No setting has a higher mean than the model without a purifier: by this measure, none is worthwhile."
        )
    aware = tuning.aware
    if aware is None:
        lines.append(f"{_BLIND}measure the chosen setting with --aware-images 50.")
    else:
        low, high = aware.robust_interval
        shown = f"{100 * aware.robust_accuracy:.1f} % ({100 * low:.1f} .. {100 * high:.1f}) of {aware.images} images"
        lines.append(f"{_BLIND}under this attack, {tuning.chosen.name} keeps {shown}.")
    lines.append(
        "The chosen setting's figures are from the images of the choice: report `purifier evaluate` on other images."
    )
    return lines


def figure_note(tuning: Tuning) -> str:
    """Returns the line below the figure."""
    aware = tuning.aware
    told = "not measured" if aware is None else f"{aware.robust} of {aware.images} images correct"
    return f"Dotted: no purifier. Robust accuracy is purifier-blind; the chosen setting, purifier-aware: {told}."


def _share(trial: Trial, key: str) -> str:
    figures: dict[str, Any] = trial.to_dict()
    low, high = figures[f"{key}_interval"]
    return f"{_percent(figures[f'{key}_accuracy'])} {f'({100 * low:.1f} .. {100 * high:.1f})':14}"


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
