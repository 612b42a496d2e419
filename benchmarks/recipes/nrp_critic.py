"""Why NRP's critic stays at chance: critics that learn alone, on crops that a fixed purifier has purified.

    PURIFIER_KIT=<folder> python -m benchmarks.recipes.nrp_critic

Each variant changes one thing of what `purifier train nrp` does. A critic that cannot learn while the purifier stands
still cannot learn in the training either. The purifier is the shipped nrp-resg, except in the variants that say
otherwise; its crops are attacked as in nrp-resg-2.yaml. The figure is the share of held-out pairs in which the clean
crop scores higher than its purified version: chance is 50 %. It is measured as the training uses the critic (batch norm
with the batch's own statistics, one batch for each kind) and in eval mode. Crops and finished variants are kept in
--work, and a run that was stopped resumes. Result: nrp_critic.json.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.kit import as_folder, environment, photographs, weights_of, write_result
from benchmarks.markdown import percent, table
from purifier import Purifier
from purifier._files import replacing, write_text
from purifier.data.crops import RandomCrops
from purifier.evaluation.metrics.classification import interval
from purifier.training.critic import Critic, critic_loss
from purifier.training.nrp import NRPRecipe, NRPTraining

NAME, PURIFIER = "nrp_critic", "nrp-resg"
BASE = Path(__file__).parent / "nrp-resg-2.yaml"
TRAINING, HELD_OUT = 768, 128
POINTS = 4


@dataclass(frozen=True)
class Variant:
    """How a critic learns.

    Attributes:
        rate: Learning rate of Adam.
        batch: Clean crops, and purified ones, in a step.
        side: Side of the crops in pixels.
        norm: Whether the critic has batch norm.
        joined: Whether clean and purified crops go through the critic in one batch, so that batch norm sees both.
        relativistic: Whether scores are compared with the mean of the other kind.
        purified: Whether the purifier purifies the crops, or the critic sees them as the attack left them.
        attacked: Whether the crops are attacked before the purifier.
    """

    rate: float = 1e-4
    batch: int = 8
    side: int = 64
    norm: bool = True
    joined: bool = False
    relativistic: bool = True
    purified: bool = True
    attacked: bool = True


VARIANTS = {
    "as in the training": Variant(),
    "learning rate 2e-5": Variant(rate=2e-5),
    "learning rate 4e-4": Variant(rate=4e-4),
    "both kinds in one batch": Variant(joined=True),
    "without batch norm": Variant(norm=False),
    "batches of 32": Variant(batch=32),
    "crops of 32 pixels": Variant(side=32),
    "vanilla GAN": Variant(relativistic=False),
    "crops that are not attacked": Variant(attacked=False),
    "attacked crops, not purified": Variant(purified=False),
}


@dataclass(frozen=True)
class Crops:
    """Clean crops (N, 3, side, side) in [0, 1], and what the critic must tell from them, for training and judging."""

    clean: Tensor
    other: Tensor
    held_clean: Tensor
    held_other: Tensor


def crops(variant: Variant, work: Path) -> Crops:
    """Attacks and purifies crops, or reads them from `work`."""
    path = work / f"crops-{variant.side}-{variant.attacked}-{variant.purified}.safetensors"
    if not path.exists():
        made = _made(variant)
        with replacing(path) as temporary:
            temporary.write_bytes(save(made))
    return Crops(**load_file(path))


@torch.no_grad()
def _made(variant: Variant) -> dict[str, Tensor]:
    settings = {**yaml.safe_load(BASE.read_text()), "crop_size": variant.side, "clean_share": 0.0}
    settings["validation_images"] = 1
    recipe = NRPRecipe(NRPTraining(**settings, data=photographs()))
    purify: Callable[[Tensor], Tensor] = Purifier.from_pretrained(PURIFIER, dtype="float32").method
    training, paths = recipe.config.crops_and_validation()
    held = RandomCrops(paths, crop_size=variant.side, length=HELD_OUT, seed=1, shrink=recipe.config.shrink)
    found = {}
    for prefix, source, count in (("", training, TRAINING), ("held_", held, HELD_OUT)):
        clean = torch.stack([source[index] for index in range(count)])
        others = []
        for batch in tqdm(clean.split(8), desc="crops", unit="batch"):
            other = recipe.attacked(batch) if variant.attacked else batch
            others.append(purify(other) if variant.purified else other)
        found |= {f"{prefix}clean": clean, f"{prefix}other": torch.cat(others).contiguous()}
    return found


def critic_of(variant: Variant) -> Critic:
    """Makes the critic of a variant; without batch norm, convolutions that had one have no bias."""
    torch.manual_seed(0)
    critic = Critic(variant.side)
    if not variant.norm:
        for number, layer in enumerate(critic.blocks):
            if isinstance(layer, nn.BatchNorm2d):
                critic.blocks[number] = nn.Identity()
    return critic


def scores(critic: nn.Module, other: Tensor, clean: Tensor, *, joined: bool) -> tuple[Tensor, Tensor]:
    """Returns the scores of both kinds, from one batch or from two."""
    if joined:
        found: Tensor = critic(torch.cat((other, clean)))
        return found[: len(other)], found[len(other) :]
    return critic(other), critic(clean)


def learn(variant: Variant, data: Crops, steps: int) -> dict[str, Any]:
    """Trains a critic; returns its loss and figures after each quarter of the steps."""
    critic = critic_of(variant)
    optimiser = torch.optim.Adam(critic.parameters(), lr=variant.rate)
    random, losses, curve = torch.Generator().manual_seed(0), list[float](), []
    for step in tqdm(range(steps), unit="step", leave=False):
        chosen = torch.randperm(len(data.clean), generator=random)[: variant.batch]
        other, clean = scores(critic.train(), data.other[chosen], data.clean[chosen], joined=variant.joined)
        loss = critic_loss(other, clean, relativistic=variant.relativistic)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % (steps // POINTS) == 0:
            recent = losses[-(steps // POINTS) :]
            curve.append({"step": step + 1, "loss": sum(recent) / len(recent), **judged(critic, variant, data)})
    return {"curve": curve}


@torch.no_grad()
def judged(critic: Critic, variant: Variant, data: Crops) -> dict[str, int]:
    """Counts the held-out pairs of which the clean crop scores higher, in the training's mode and in eval mode."""
    # Batch norm counts what it sees in training mode.
    critic, found = copy.deepcopy(critic), {}
    for mode in ("training", "eval"):
        critic.train(mode == "training")
        batches = zip(data.held_other.split(variant.batch), data.held_clean.split(variant.batch), strict=True)
        found[mode] = 0
        for other, clean in batches:
            low, high = scores(critic, other, clean, joined=variant.joined)
            found[mode] += int((high > low).sum())
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """The table of the result file."""
    of = result["settings"]["held_out"]
    lines = []
    for name, row in result["rows"].items():
        last = row["curve"][-1]
        shares = [percent(last[mode] / of, interval(last[mode], of)) for mode in ("training", "eval")]
        lines.append(
            [name, f"{last['loss']:.2f}", *shares, ", ".join(f"{p['training'] / of:.0%}" for p in row["curve"])]
        )
    heads = ["critic", "its loss", "ranked right, %", "in eval mode, %", "by quarters of the steps"]
    return f"n = {of} pairs, after {result['settings']['steps']} steps.\n\n" + table(heads, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/nrp_critic"), help="folder for crops and records")
    args = parser.parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, variant in tqdm(VARIANTS.items(), unit="critic"):
        path = args.work / f"{as_folder(name)}-{args.steps}.json"
        if not path.exists():
            write_text(path, json.dumps(learn(variant, crops(variant, args.work), args.steps)))
        rows[name] = json.loads(path.read_text())
    settings = {"steps": args.steps, "crops": TRAINING, "held_out": HELD_OUT, "base": yaml.safe_load(BASE.read_text())}
    settings["variants"] = {name: asdict(variant) for name, variant in VARIANTS.items()}
    weights = weights_of({PURIFIER: Purifier.from_pretrained(PURIFIER)})
    result = {"settings": settings, "rows": rows, "weights": weights, "environment": environment()}
    write_result(NAME, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
