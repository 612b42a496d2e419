"""purifier bank: makes a bank of attacked pictures for trainings, and shows what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from purifier.commands.train import options_of, yaml_option
from purifier.training.bank import Bank, BankSettings, make_bank


@click.group("bank")
def command() -> None:
    """Make attacked pictures once, for many trainings."""


@command.command("show")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def show(folder: Path) -> None:
    """Show the sources of the bank FOLDER: their attacks, pictures and strengths."""
    click.echo("\n".join(card(Bank(folder))))


def card(bank: Bank) -> list[str]:
    """Returns the lines of a Markdown table of a bank's sources, and of its settings."""
    settings = ", ".join(f"{name} {value}" for name, value in bank.settings.items() if name not in ("kind", "format"))
    head = ["source", "pictures", "steps", "eps, 1/255", "largest change, mean, 1/255", "predictions changed, %"]
    rows = [head, ["---"] * len(head)]
    for name, described in bank.sources.items():
        rows.append([name, *_row(bank, name, described)])
    return [settings, "", *(f"| {' | '.join(row)} |" for row in rows)]


def _row(bank: Bank, name: str, described: dict[str, Any]) -> list[str]:
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


def _make(out: Path, minutes: float | None, **values: Any) -> None:
    """Make a bank of attacked pictures, or add to one what it lacks."""
    bank = make_bank(BankSettings(**values), out, minutes=minutes)
    click.echo("\n".join(card(bank)))


command.add_command(
    click.Command(
        "make",
        callback=_make,
        help=_make.__doc__,
        params=[
            click.Option(
                ["--out"],
                type=click.Path(path_type=Path, file_okay=False),
                required=True,
                help="Folder of the bank. A stopped run resumes, and more sources can be added.",
            ),
            yaml_option(BankSettings),
            click.Option(["--minutes"], type=float, help="Stop after about that time. No limit by default."),
            *options_of(BankSettings),
        ],
    )
)
