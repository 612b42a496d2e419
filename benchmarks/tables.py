"""Writes the tables of the result files into README, docs and model cards, and weights/zoo.json.

    python -m benchmarks.tables          # fills in the blocks
    python -m benchmarks.tables --check  # fails if a block differs from its result, or a result is stale

A block stands between `<!-- measured: NAME -->` and `<!-- end -->`. `--check` also compares the weights that results
name with the bundled ones, and lists what cannot be compared; see stale.py.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import zoo
from benchmarks.accuracy import certified, detection_results, feature_distortion, headline, iteration_results, services
from benchmarks.accuracy import tables as accuracy
from benchmarks.kit import RESULTS, ROOT, read_result
from benchmarks.markdown import MISSING
from benchmarks.recipes import aware_measure, gad_ablation, gad_linf, ncis_ablation, nrp_ablation, nrp_critic
from benchmarks.recipes import tables as recipes
from benchmarks.scale import dataset_table, serving
from benchmarks.speed import cost, gate_cost
from benchmarks.speed import table as speed
from benchmarks.stale import check_results

_BLOCK = re.compile(r"(<!-- measured: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PARTS = {
    "resnet50": ("blind", "ssp", "transfer", "square", "surrogate", "aware", "dynamic"),
    "mobilenet_v2": ("blind", "ssp", "transfer", "square", "aware", "dynamic"),
    "lraspp_camvid": ("blind", "aware"),
    "deeplabv3_voc": ("blind", "aware"),
    "yolox_nano": ("blind", "aware"),
}
_BLIND_PGD = ("gs", "ncis", "alloy", "alloy-s", "jpeg", "bit-depth", "median", "tvm", "resize-pad")


def _of(name: str, table: Callable[..., str], *given: Any) -> Callable[[], str]:
    """Returns a block: the table of a result file, or that there is none yet."""

    def block() -> str:
        found = read_result(name, {})
        return table(found, *given) if found else MISSING

    return block


BLOCKS: dict[str, Callable[[], str]] = {
    **{
        f"honest {model} {part}": partial(accuracy.honest, f"{model}_{part}")
        for model, parts in _PARTS.items()
        for part in parts
    },
    **{name: partial(accuracy.of_purifier, name) for name in _BLIND_PGD},
    **{f"headline {name}": partial(headline.table, RESULTS, name) for name in headline.CLASSIFIERS},
    "stored as jpeg": partial(headline.stored_as_jpeg, RESULTS),
    "best": accuracy.best_rows,
    "choose": accuracy.choose,
    "default": accuracy.default,
    "default cost": accuracy.default_cost,
    "nrp resnet50": _of("nrp_acceptance", accuracy.nrp_accuracy, "resnet50"),
    "nrp mobilenet_v2": _of("nrp_acceptance", accuracy.nrp_accuracy, "mobilenet_v2"),
    "nrp ablation": _of(nrp_ablation.NAME, nrp_ablation.markdown),
    "nrp critic": _of(nrp_critic.NAME, nrp_critic.markdown),
    **{
        f"nrp {part}": _of(feature_distortion.NAME, feature_distortion.markdown, part)
        for part in feature_distortion.PARTS
    },
    "nrp targets": _of("nrp_acceptance", accuracy.nrp_targets),
    "alloy targets": partial(accuracy.alloy_targets, "alloy", 65.0),
    "alloy-s targets": partial(accuracy.alloy_targets, "alloy-s", 58.0),
    "alloy tasks": partial(accuracy.alloy_tasks, "alloy"),
    "alloy-s tasks": partial(accuracy.alloy_tasks, "alloy-s"),
    "alloy gate": _of("alloy_gate", accuracy.gate_accuracy),
    "alloy gate biases": _of("alloy_gate", accuracy.gate_biases),
    "alloy gate weights": _of("alloy_gate", accuracy.gate_weights),
    "half precision": _of("half_precision", accuracy.half_precision),
    "detail": _of("detail", accuracy.detail),
    "crosscheck": _of("crosscheck_attacks", accuracy.crosscheck),
    "crosscheck cifar10": _of("crosscheck_cifar10", accuracy.crosscheck_cifar10),
    **{f"detection {name}": _of("detection", make) for name, make in detection_results.TABLES.items()},
    **{f"iteration {name}": _of("iteration_gain", make) for name, make in iteration_results.TABLES.items()},
    "gate cost": _of("gate_cost_cpu", gate_cost.markdown),
    "alloy ablation": _of("alloy_ablation", recipes.alloy_ablation),
    "alloy generality": _of("alloy_ablation", recipes.alloy_generality),
    "ncis ablation": _of(ncis_ablation.NAME, ncis_ablation.markdown),
    "ncis selection": _of("select_ncis", recipes.ncis_selection),
    "gad aware": lambda: aware_measure.markdown(*(read_result(name, {"rows": []}) for name in aware_measure.PARTS)),
    "aware in short": lambda: aware_measure.in_short(read_result(aware_measure.PARTS[0], {"rows": []})),
    "gad resnet20": partial(recipes.gad_accuracy, "resnet20"),
    "gad resnet20 targets": _of("gad_cifar10_resnet20_blind", recipes.gad_targets, "resnet20"),
    "gad vgg8": partial(recipes.gad_accuracy, "vgg8"),
    "gad ablation": _of(gad_ablation.NAME, recipes.gad_task),
    "gad linf": _of(gad_linf.NAME, recipes.gad_task),
    "gad camvid": _of("gad_camvid", recipes.gad_task),
    "gad camvid targets": _of("gad_camvid", recipes.gad_task_targets),
    "gad yolox": _of("gad_yolox", recipes.gad_task),
    "gad yolox targets": _of("gad_yolox", recipes.gad_task_targets),
    "cifar10 classifiers": _of("cifar10_targets", recipes.cifar10_targets),
    "demo classifier": _of("demo_classifier", recipes.demo_classifier),
    "scale dataset": _of(dataset_table.NAME, dataset_table.markdown),
    "serving": _of(serving.NAME, serving.markdown),
    "serving memory": _of(serving.NAME, serving.memory_markdown),
    "cost": _of("cost_cpu", cost.markdown),
    "speed cpu gs": _of("speed_cpu_gs", speed.markdown),
    "speed cpu networks": _of("speed_cpu_networks", speed.markdown),
    "speed cpu nrp": _of("speed_cpu_nrp", speed.markdown),
    "art context": _of("art_context", speed.art_context),
    "tiled memory": _of("tiled_memory_ncis", speed.tiled_memory),
    "certified in short": _of("certified_cifar10", certified.sentence),
    **{f"certified {part}": _of(f"certified_{part}", certified.block, part) for part in certified.SIZES},
    **{f"services {name}": _of(f"services_{name}", partial(services.markdown, name)) for name in services.SERVICES},
    "threats": zoo.of_default,
    **{f"zoo {model}": partial(zoo.markdown, model) for model in zoo.TABLES},
}


def render(text: str) -> str:
    """Returns the text with every block filled in."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


def pages() -> list[Path]:
    """Returns the texts that have blocks."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("weights/*/README.md"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path in (*pages(), zoo.JSON):
        text = path.read_text()
        rendered = zoo.document() if path == zoo.JSON else render(text)
        if check and rendered != text:
            raise SystemExit(f"{path} differs from the result files; run python -m benchmarks.tables")
        if rendered != text:
            path.write_text(rendered)
    if check:
        check_results(RESULTS)


if __name__ == "__main__":
    main()
