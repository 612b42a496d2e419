"""The options of `purifier evaluate --task ranked`, and its run: services with ranked labels instead of a model."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from purifier._errors import OptionError
from purifier.commands._model_options import build_attacks, build_purifiers
from purifier.commands._terminal import echo

if TYPE_CHECKING:
    from purifier.attacks import Attack

TASK = "ranked"
_OPTIONS = (
    click.option(
        "--client",
        metavar="module:function",
        help="Ranked: function that maps a PIL image to a service's labels, the likeliest first.",
    ),
    click.option("--pairs", default=100, show_default=True, type=click.IntRange(1), help="Ranked: pairs to report on."),
    click.option(
        "--iterations",
        metavar="1,2,...",
        help="Ranked: numbers of iterations to choose from, on pairs of their own.  [default: each purifier's own]",
    ),
    click.option(
        "--validation-pairs", default=20, show_default=True, type=click.IntRange(1), help="Ranked: those pairs."
    ),
    click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Ranked: labels that count."),
    click.option(
        "--per-second", default=0.0, type=click.FloatRange(0), help="Ranked: most calls a second.  [default: no limit]"
    ),
)
# Those of this task, and those that it shares with the others, as Python names.
_OWN = ("client", "pairs", "iterations", "validation_pairs", "top", "per_second")
_SHARED = (
    "data", "purifiers", "attacks", "eps", "surrogates", "images", "size", "device", "dtype", "seed", "out",
    "overwrite",
)  # fmt: skip


def ranked_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of ranked labels to a command, and runs the evaluation of a service in its place if they ask."""

    @functools.wraps(command)
    def either(task: str, **given: Any) -> None:
        _check(task)
        own = {name: given.pop(name) for name in _OWN}
        if task == TASK:
            _run(**own, **{name: given[name] for name in _SHARED})
        else:
            command(task=task, **given)

    found: Callable[..., None] = either
    for option in reversed(_OPTIONS):
        found = option(found)
    return found


def _check(task: str) -> None:
    """Checks that the command line has options of its task only, and those that the task needs."""
    context = click.get_current_context()
    ranked = task == TASK
    for parameter in context.command.params:
        name = str(parameter.name)
        fits = name == "task" or name in (*_OWN, *_SHARED) if ranked else name not in _OWN
        if not fits and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise OptionError(f"expected options of --task {task}, got {parameter.opts[0]}, which is not one of them")
    needed, shown = ("client", "--client module:function") if ranked else ("model_spec", "--model MODEL")
    if context.params[needed] is None:
        raise OptionError(f"expected {shown} with --task {task}, got none")
    if ranked and not context.params["surrogates"]:
        raise OptionError("expected --surrogate MODEL, which is attacked instead of the service, got none")


def _run(
    *,
    client: str,
    data: Path,
    purifiers: Sequence[str],
    attacks: Sequence[str],
    eps: Sequence[str],
    surrogates: Sequence[str],
    images: int | None,
    size: int | None,
    device: str,
    dtype: str,
    out: Path,
    overwrite: bool,
    iterations: str | None,
    top: int,
    **settings: Any,
) -> None:
    """Evaluates a service and prints the table."""
    from tqdm import tqdm

    from purifier.data.finding import unlabelled_images
    from purifier.data.outputs import check_outside
    from purifier.evaluation import load_model
    from purifier.evaluation.ranked import RankedSettings, evaluate_ranked, write_ranked
    from purifier.evaluation.ranked.table import markdown
    from purifier.inference.precision import resolve_device
    from purifier.models.named import import_named

    check_outside(out, data)
    place = resolve_device(device)
    asked: dict[str, Any] = {
        "surrogates": [load_model(spec, device=place).call for spec in surrogates],
        "purifiers": build_purifiers(purifiers, place, dtype),
        "attack": _attack(attacks, eps, place),
        "iterations": _numbers(iterations),
        "settings": RankedSettings(k=top, **settings),
    }
    function = import_named(client, "client")
    pictures = unlabelled_images(data, 224 if size is None else size or None, images)
    with tqdm(unit="answer", disable=None) as bar:
        found = evaluate_ranked(
            function, pictures, out=out, name=client, device=place, overwrite=overwrite, progress=bar.update, **asked
        )
    files = write_ranked(found, out, command=shlex.join(["purifier", *sys.argv[1:]]))
    echo(f"{markdown(found)}\ntable: {files['markdown']}")


def _attack(attacks: Sequence[str], eps: Sequence[str], device: Any) -> Attack:
    """Builds the one attack; none means that of the paper."""
    from purifier.evaluation.ranked.run import ATTACK

    given = click.get_current_context().get_parameter_source("eps") is ParameterSource.COMMANDLINE
    if given and not attacks:
        raise OptionError("expected --attack beside --eps with --task ranked, such as PGD:targeted=true, got none")
    built = build_attacks(attacks, eps, device)
    if len(built) > 1:
        raise OptionError(f"expected one --attack at one --eps with --task ranked, got {', '.join(built)}")
    return next(iter(built.values()), ATTACK)


def _numbers(text: str | None) -> list[int]:
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"expected numbers such as 1,2,5 for --iterations, got {text!r}") from None
