"""Our attacks beside independent implementations of them, on the same model and the same images.

The other packages are not dependencies. They go into a folder beside the environment that holds purifier:

    python -m pip install --no-deps --target <folder> torchattacks foolbox eagerpy requests urllib3 idna certifi \
        charset-normalizer scipy GitPython gitdb smmap
    PURIFIER_KIT=<kit> PYTHONPATH=<folder> python -m benchmarks.accuracy.crosscheck_attacks

The model is `purifier.reference_model("demo")`, undefended; the images are the kit's objects/test, evenly spread over
its classes, central squares of 128 x 128. Robust accuracy is the share of all images that the attack leaves right.
Finished rows stay in benchmarks/results/crosscheck_attacks.json, so a run that was stopped resumes; --again names
attacks to measure again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import purifier
from benchmarks.accuracy.tables import crosscheck
from benchmarks.kit import environment, kit, read_result, write_result
from purifier import attacks
from purifier.evaluation import labelled_images
from purifier.evaluation.metrics.classification import interval

NAME = "crosscheck_attacks"
EPS, ALPHA, STEPS = 1 / 255, 0.25 / 255, 10
SQUARE_EPS, QUERIES = 4 / 255, 300
SEED, BATCH = 0, 50
BOUND = 0.015
Run = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Other:
    """Another implementation: its package, the name of the attack there, and its options."""

    package: str
    attack: str
    options: dict[str, Any]

    def bind(self, model: nn.Module) -> Run:
        """Returns a function from images (N, 3, H, W) and labels (N,) to adversarial images."""
        if self.package == "torchattacks":
            import torchattacks

            return getattr(torchattacks, self.attack)(model, **self.options)
        import foolbox

        logging.disable(logging.WARNING)
        bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        attack = getattr(foolbox.attacks, self.attack)(**self.options)
        return lambda x, y: attack(bounded, x, foolbox.criteria.Misclassification(y), epsilons=None)[1]


_STEPS: dict[str, Any] = {"eps": EPS, "alpha": ALPHA, "steps": STEPS}
_CW = {"steps": 60, "binary_search_steps": 4, "initial_const": 0.1, "stepsize": 0.01}
_SQUARE = {"eps": SQUARE_EPS, "n_queries": QUERIES, "p_init": 0.8, "loss": "margin"}
# Our attack, the other implementation, and the number of images.
PAIRS: dict[str, tuple[attacks.Attack, Other, int]] = {
    "PGD": (attacks.PGD(**_STEPS), Other("torchattacks", "PGD", {**_STEPS, "random_start": True}), 200),
    "MI-FGSM": (attacks.MIFGSM(**_STEPS, decay=1.0), Other("torchattacks", "MIFGSM", {**_STEPS, "decay": 1.0}), 200),
    "APGD": (
        attacks.APGD(eps=EPS, steps=20),
        Other("torchattacks", "APGD", {"eps": EPS, "steps": 20, "loss": "ce"}),
        200,
    ),
    "Square": (attacks.Square(eps=SQUARE_EPS, queries=QUERIES, p=0.8), Other("torchattacks", "Square", _SQUARE), 200),
    "C&W": (attacks.CW(steps=60, search=4, c=0.1, alpha=0.01), Other("foolbox", "L2CarliniWagnerAttack", _CW), 100),
}


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Returns images (count, 3, 128, 128) in [0, 1] and labels, evenly spread over the test part."""
    return labelled_images(kit() / "objects" / "test", 128, count).load(range(count))


def predict(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) for x in images.split(BATCH)])


def figures(model: nn.Module, run: Run, images: Tensor, labels: Tensor, name: str) -> dict[str, Any]:
    """Attacks every image; returns counts, lengths of perturbations, and time."""
    torch.manual_seed(SEED)
    began = time.monotonic()
    pairs = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    found = torch.cat([run(x, y).detach() for x, y in tqdm(pairs, desc=name)])
    seconds = time.monotonic() - began
    before, after = predict(model, images) == labels, predict(model, found) == labels
    fooled, delta = before & ~after, (found - images).flatten(1)
    return {
        "right": int(after.sum()),
        "robust_accuracy": int(after.sum()) / len(labels),
        "interval": interval(int(after.sum()), len(labels)),
        "fooled": int(fooled.sum()),
        "mean_l2_of_fooled": float(delta.norm(dim=1)[fooled].mean()),
        "largest_linf": float(delta.abs().max()),
        "seconds": round(seconds, 1),
    }


def compare(name: str, model: nn.Module) -> dict[str, Any]:
    """Returns one row of the result file."""
    ours, other, count = PAIRS[name]
    images, labels = pictures(count)
    ours = ours.seeded(SEED)
    row: dict[str, Any] = {
        "images": count,
        "standard_accuracy": int((predict(model, images) == labels).sum()) / count,
        "settings": ours.settings(),
        "other": {
            "package": other.package,
            "version": importlib.metadata.version(other.package),
            "attack": other.attack,
            "options": other.options,
        },
        "ours": figures(model, lambda x, y: ours(model, x, y), images, labels, f"{name}, ours"),
        "theirs": figures(model, other.bind(model), images, labels, f"{name}, {other.package}"),
    }
    row["difference"] = row["ours"]["robust_accuracy"] - row["theirs"]["robust_accuracy"]
    row["l2_ratio"] = row["ours"]["mean_l2_of_fooled"] / row["theirs"]["mean_l2_of_fooled"]
    return row


def resumed(
    result: str,
    names: Sequence[str],
    again: Sequence[str],
    measure: Callable[[str], dict[str, Any]],
    write: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Measures the rows that a result file lacks, and those to measure again; writes all after each.

    Returns:
        All rows by name, in the order of `names`.
    """
    rows: dict[str, Any] = read_result(result, {"rows": {}})["rows"]
    for name in names:
        if name in rows and name not in again:
            continue
        rows[name] = measure(name)
        rows = {key: rows[key] for key in names if key in rows}
        write(rows)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", nargs="+", default=[], choices=list(PAIRS), help="attacks to measure again")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = purifier.reference_model("demo").requires_grad_(False)
    stated = {"model": "demo", "data": "objects/test, central squares of 128 x 128", "seed": SEED, "bound": BOUND}

    def write(rows: dict[str, Any]) -> None:
        write_result(NAME, {**stated, "rows": rows, "environment": environment()})

    rows = resumed(NAME, list(PAIRS), args.again, lambda name: compare(name, model), write)
    print(crosscheck({"rows": rows}))
    apart = [name for name, row in rows.items() if abs(row["difference"]) > BOUND]
    if apart:
        raise SystemExit(f"expected differences up to {BOUND}, got more for {', '.join(apart)}")


if __name__ == "__main__":
    main()
