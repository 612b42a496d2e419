"""purifier bank: makes a bank of attacked pictures for trainings, and shows what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from purifier.commands._terminal import echo
from purifier.commands.train import check_out, options_of, yaml_option

if TYPE_CHECKING:
    from purifier.training.bank import Bank


class _Commands(click.Group):
    """The two commands. The options of `make` come from its settings, which are slow to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["make", "show"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return {"make": _make, "show": _show}[cmd_name]() if cmd_name in ("make", "show") else None


@click.group("bank", cls=_Commands)
def command() -> None:
    """Make attacked pictures once, for many trainings."""


def _show() -> click.Command:
    from purifier.training.bank import Bank

    folder = click.Argument(["folder"], type=click.Path(path_type=Path, exists=True, file_okay=False))
    text = "Show the sources of the bank FOLDER: their attacks, pictures and strengths."
    return click.Command(
        "show", params=[folder], help=text, callback=lambda folder: echo("\n".join(card(Bank(folder))))
    )


def _make() -> click.Command:
    from purifier.training.bank import BankSettings, make_bank

    def run(out: Path, minutes: float | None, **values: Any) -> None:
        check_out(out, values)
        echo("\n".join(card(make_bank(BankSettings(**values), out, minutes=minutes))))

    out = click.Option(
        ["--out"],
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Folder of the bank. A stopped run resumes, and more sources can be added.",
    )
    minutes = click.Option(["--minutes"], type=float, help="Stop after about that time. No limit by default.")
    params: list[click.Parameter] = [out, yaml_option(BankSettings), minutes, *options_of(BankSettings)]
    text = "Make a bank of attacked pictures, or add to one what it lacks."
    return click.Command("make", params=params, callback=run, help=text)


def card(bank: Bank) -> list[str]:
    """Returns the lines of a Markdown table of a bank's sources, and of its settings."""
    settings = ", ".join(f"{name} {value}" for name, value in bank.settings.items() if name not in ("kind", "format"))
    head = ["source", "pictures", "steps", "eps, 1/255", "largest change, mean, 1/255", "predictions changed, %"]
    rows = [head, ["---"] * len(head)]
    for name, described in bank.sources.items():
        rows.append([name, *_row(bank, name, described)])
    return [settings, "", *(f"| {' | '.join(row)} |" for row in rows)]


def _row(bank: Bank, name: str, described: dict[str, Any]) -> list[str]:
    import torch

    facts = list(bank.facts(name))
    if not facts:
        return ["0", "-", "-", "-", "-"]
    found = {key: torch.cat([one[key] for one in facts]) for key in facts[0]}
    steps, eps, fooled = found["steps"], found["eps"] * 255, found["fooled"].float().mean().item()
    return [
        str(len(steps)),
        f"{int(steps.min())}-{int(steps.max())}",
        f"{eps.min():.1f}-{eps.max():.1f}",
        f"{255 * 127 * found['scales'].mean().item():.1f}",
        "-" if described["attack"] == "ssp" else f"{100 * fooled:.0f}",
    ]
