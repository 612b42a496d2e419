"""Every purifier against every attack and threat model, on the kit's models and images.

    PURIFIER_KIT=<folder> python -m benchmarks.accuracy.honest_tables MODEL PART [--images N] [--purifiers NAME ...]

MODEL and PART, one command each:

    resnet50, mobilenet_v2   blind         PGD Linf 4, 8, 16/255, PGD L2 5, MI-FGSM, DI-FGSM, C&W on the bare model
                             ssp           SSP 16/255, which uses neither the model nor the purifier
                             transfer      PGD, MI-FGSM and DI-FGSM made on the other classifier
                             square        Square, Linf 8/255, 300 and 1,000 queries of the bare model
                             surrogate     PGD through a purifier of the attacker's own, alloy-s, and either classifier
                             aware         PGD Linf 4 and 16/255 through the purifier: exact gradients, and BPDA
                             dynamic       PGD with dynamic inference: blind, and averaged over its noise (EOT)
    lraspp_camvid, deeplabv3_voc       blind: BIM on every pixel, SSP 8 and 16/255; aware: BIM through the purifier
    yolox_nano                         blind: PGD on boxes, SSP 8 and 16/255; aware: BIM through the purifier

The images are the first --images of the NIPS 2017 images, or evenly spread over the other models' sets. A run that was
stopped resumes from --work. Results go to benchmarks/results/honest_MODEL_PART.json. --purifiers NAME[=FOLDER] measures
some purifiers alone; their results go to honest_MODEL_PART+NAME.json, and replace older rows of the same purifier in
the table of docs/evaluation.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.evaluations import measured
from benchmarks.accuracy.yolox import loss_of, yolox
from benchmarks.kit import classified, environment, kit, kit_module, load_sources, model, read_result, write_result
from purifier import Purifier, list_purifiers, wrap
from purifier._hub import is_trained
from purifier.attacks import BIM, BPDA, CW, DIFGSM, MIFGSM, PGD, SSP, Attack, Aware, Blind, Square, Transfer
from purifier.attacks.threats import ThreatModel
from purifier.evaluation import ImageSet, boxed_images, masked_images

OTHER = {"resnet50": "mobilenet_v2", "mobilenet_v2": "resnet50"}
BASELINES = ("jpeg", "bit-depth", "median", "tvm", "resize-pad")


@dataclass(frozen=True)
class Part:
    """What one command measures; the functions take the model's name and the device."""

    images: int
    attacks: Callable[[], Mapping[str, Attack]]
    threats: Callable[[str, str], Mapping[str, ThreatModel]]
    purifiers: Callable[[], Mapping[str, Purifier]]


def learned() -> dict[str, Purifier]:
    """Returns gs and ncis at i = 5, and the other trained networks."""
    found = {f"{name} i=5": Purifier.from_pretrained(name, iterations=5) for name in ("gs", "ncis")}
    ours = [name for name in ("nrp-resg", "nrp", "alloy", "alloy-s") if name in list_purifiers() and is_trained(name)]
    return found | {name: Purifier.from_pretrained(name) for name in ours}


def everything() -> dict[str, Purifier]:
    return {name: Purifier.from_pretrained(name) for name in BASELINES} | learned()


def dynamic() -> dict[str, Purifier]:
    """Returns purifiers with dynamic inference; as in the NCIS paper with fewer iterations, as noise is removed too."""
    return {
        "gs i=5 dynamic": Purifier.from_pretrained("gs", iterations=5).dynamic(),
        "ncis i=4 dynamic": Purifier.from_pretrained("ncis", iterations=4, dtype="bfloat16").dynamic(),
    }


def vgg() -> Any:
    """Returns VGG-19 up to relu3_3, whose layers and shapes are those of VGG-16."""
    return kit_module().vgg19_features(16).requires_grad_(False)


def blind_attacks() -> dict[str, Attack]:
    step = {"eps": 16 / 255, "alpha": 1.6 / 255, "steps": 10}
    return {
        "PGD Linf 4/255": PGD(eps=4 / 255, alpha=1 / 255, steps=10),
        "PGD Linf 8/255": PGD(eps=8 / 255, alpha=1.6 / 255, steps=10),
        "PGD Linf 16/255": PGD(**step),
        "PGD L2 5": PGD(norm="L2", eps=5.0, alpha=1.0, steps=10),
        "MI-FGSM 16/255": MIFGSM(**step),
        "DI-FGSM 16/255": DIFGSM(**step),
        "C&W L2": CW(steps=30, c=1.0, search=2),
    }


def ssp(eps: float, alpha: float, steps: int) -> Attack:
    return SSP(vgg(), eps=eps, alpha=alpha, steps=steps, distance="squared")


def dense_ssp() -> dict[str, Attack]:
    return {f"SSP {n}/255": ssp(n / 255, n / 4 / 255, 10) for n in (8, 16)}


def pgd_pair() -> dict[str, Attack]:
    return {
        "PGD Linf 4/255": PGD(eps=4 / 255, alpha=1 / 255, steps=10),
        "PGD Linf 16/255": PGD(eps=16 / 255, alpha=1.6 / 255, steps=10),
    }


def bim() -> dict[str, Attack]:
    return {"BIM 0.03, 4 steps": BIM(eps=0.03, alpha=0.01, steps=4)}


def dense_attacks() -> dict[str, Attack]:
    return {**bim(), **dense_ssp()}


def boxes_attacks() -> dict[str, Attack]:
    return {"PGD 8/255": PGD(eps=8 / 255, alpha=2 / 255, steps=10), **dense_ssp()}


def table_settings(model: str, part: str) -> dict[str, Any]:
    """Returns the settings of a table that was measured; {} if it was not."""
    settings: dict[str, Any] = read_result(f"honest_{model}_{part}", {"settings": {}})["settings"]
    return settings


def surrogates(name: str, device: str) -> dict[str, ThreatModel]:
    """Returns attackers with a purifier of their own in front of the classifier itself, or of the other one."""
    threats: dict[str, ThreatModel] = {}
    for classifier in (name, OTHER[name]):
        copy = wrap(model(classifier, device), Purifier.from_pretrained("alloy-s").to(device))
        threats[f"through alloy-s and {classifier}"] = Transfer(copy, names=[f"alloy-s + {classifier}"])
    return threats


def few() -> dict[str, Purifier]:
    return {"jpeg": Purifier.from_pretrained("jpeg"), "median": Purifier.from_pretrained("median")} | learned()


def blind(name: str, device: str) -> dict[str, ThreatModel]:
    return {"blind": Blind()}


def aware(name: str, device: str) -> dict[str, ThreatModel]:
    return {"aware": Aware()}


CLASSIFIER_PARTS = {
    "blind": Part(100, blind_attacks, blind, everything),
    "ssp": Part(100, lambda: {"SSP 16/255": ssp(16 / 255, 2 / 255, 30)}, blind, everything),
    "transfer": Part(
        100,
        lambda: {key: blind_attacks()[key] for key in ("PGD Linf 16/255", "MI-FGSM 16/255", "DI-FGSM 16/255")},
        lambda name, device: {"transfer": Transfer(model(OTHER[name], device), names=[OTHER[name]])},
        everything,
    ),
    "square": Part(
        40,
        lambda: {f"Square 8/255, {n} queries": Square(eps=8 / 255, queries=n, p=0.1) for n in (300, 1000)},
        blind,
        everything,
    ),
    "surrogate": Part(20, pgd_pair, surrogates, learned),
    "aware": Part(20, pgd_pair, lambda name, device: {"aware": Aware(), "bpda": BPDA()}, everything),
    "dynamic": Part(10, pgd_pair, lambda name, device: {"blind": Blind(), "aware": Aware(samples=4)}, dynamic),
}
DENSE_PARTS = {"blind": Part(20, dense_attacks, blind, few), "aware": Part(5, bim, aware, learned)}
BOXES_PARTS = {"blind": Part(50, boxes_attacks, blind, few), "aware": Part(5, bim, aware, learned)}
PARTS = {
    "resnet50": CLASSIFIER_PARTS,
    "mobilenet_v2": CLASSIFIER_PARTS,
    "lraspp_camvid": DENSE_PARTS,
    "deeplabv3_voc": DENSE_PARTS,
    "yolox_nano": BOXES_PARTS,
}


def place(attack: Attack, device: str) -> Attack:
    """Moves the network of an attack, if it has one."""
    if isinstance(attack, SSP) and isinstance(attack.features, torch.nn.Module):
        attack.features.to(device)
    return attack


def task_of(name: str, count: int, device: str) -> tuple[torch.nn.Module, ImageSet, dict[str, Any]]:
    """Returns a model, its images, and the options of its task."""
    if name in OTHER:
        return model(name, device), classified(count), {}
    if name == "yolox_nano":
        network, folder = yolox(device), kit() / "coco_val100"
        data = boxed_images(folder / "images", None, count, annotations=folder / "instances.json")
        return network, data, {"loss": loss_of(network)}
    folder, masks, size, ignore = {
        "lraspp_camvid": ("camvid/test", "camvid/test_labels", None, 11),
        "deeplabv3_voc": ("voc_val120/images", "voc_val120/masks", 513, 255),
    }[name]
    data = masked_images(kit() / folder, size, count, masks=kit() / masks)
    return model(name, device), data, {"ignore_index": ignore}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=PARTS)
    parser.add_argument("part")
    parser.add_argument("--images", type=int, help="number of images; the default suits a CPU")
    parser.add_argument("--purifiers", nargs="+", default=[], metavar="NAME[=FOLDER]", help="measure these alone")
    parser.add_argument("--batch-size", type=int, help="the default is 10")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--work", type=Path, default=Path("runs/honest"), help="folder for records and pictures")
    args = parser.parse_args()
    if args.part not in PARTS[args.model]:
        parser.error(f"expected a part out of {', '.join(PARTS[args.model])}, got {args.part}")
    part = PARTS[args.model][args.part]
    alone = load_sources(args.purifiers)
    # Purifiers that join a table are measured with its settings.
    joined = table_settings(args.model, args.part) if alone else {}
    count = args.images or joined.get("images", part.images)
    name = "+".join([f"{args.model}_{args.part}", *alone])
    if args.part == "dynamic":
        alone = {f"{key} dynamic": purifier.dynamic() for key, purifier in alone.items()}
    network, data, task = task_of(args.model, count, args.device)
    found = measured(
        name, network, data,
        purifiers={key: purifier.to(args.device) for key, purifier in (alone or part.purifiers()).items()},
        attacks={key: place(attack, args.device) for key, attack in part.attacks().items()},
        threats=part.threats(args.model, args.device),
        out=args.work / f"{name}-{count}",
        batch_size=args.batch_size or joined.get("batch_size", 10),
        **task,
    )  # fmt: skip
    rows = [row.to_dict() for row in found.rows]
    findings = [{"purifier": about, "check": f.check, "measured": f.measured} for about, f in found.findings]
    result = {"settings": found.settings, "rows": rows, "findings": findings, "environment": environment()}
    write_result(f"honest_{name}", result)


if __name__ == "__main__":
    main()
