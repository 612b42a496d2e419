"""The package as a whole: public names, cost of the import, version, name of the distribution, wheel."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import types
import venv
from pathlib import Path
from typing import Any

import pytest

import purifier

ROOT = Path(__file__).resolve().parent.parent
HEAVY = [
    "PIL", "matplotlib", "purifier.attacks", "purifier.cli", "purifier.commands", "purifier.evaluation",
    "purifier.training", "timm", "torch._dynamo", "torchvision", "transformers",
]  # fmt: skip


def python(script: str, *flags: str, executable: str = sys.executable, **options: object) -> str:
    done = subprocess.run([executable, *flags, "-c", script], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_all_is_sorted_and_lists_the_public_names() -> None:
    assert purifier.__all__ == sorted(purifier.__all__)
    shown = {
        name
        for name, value in vars(purifier).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(purifier.__all__) == shown | {"__version__"}


def test_every_public_name_has_a_docstring() -> None:
    for name in purifier.__all__:
        assert name == "__version__" or getattr(purifier, name).__doc__, name


def test_sub_packages_need_no_import_of_their_own() -> None:
    script = (
        "import sys, purifier\n"
        "assert 'purifier.transforms' not in sys.modules and 'transforms' in dir(purifier)\n"
        "print(purifier.transforms.Purify.__name__, purifier.attacks.PGD.__name__)\n"
        "print(hasattr(purifier, 'dreams'))\n"
    )
    assert python(script).split() == ["Purify", "PGD", "False"]


def test_every_error_is_derived_from_one_root() -> None:
    errors = [value for value in vars(purifier).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) >= 8
    assert all(issubclass(e, (purifier.PurifierError, UserWarning)) for e in errors)


@pytest.fixture(scope="module")
def imports() -> list[dict[str, Any]]:
    """What importing loads, and its processor time as a multiple of torch's, in three processes."""
    script = (
        "import json, sys\nfrom time import process_time as now\n"
        "start = now()\nimport torch\nmiddle, alone = now(), sorted(sys.modules)\n"
        "import purifier\nend = now()\n"
        "found = {'ratio': (end - start) / (middle - start), 'torch': alone, 'purifier': sorted(sys.modules)}\n"
        "print(json.dumps(found))"
    )
    return [json.loads(python(script)) for _ in range(3)]


def test_importing_loads_no_heavy_package(imports: list[dict[str, Any]]) -> None:
    loaded, torch_alone = imports[0]["purifier"], set(imports[0]["torch"])
    assert "purifier" in loaded and "torch" in torch_alone and "purifier" not in torch_alone
    heavy = [m for m in loaded if any(m == h or m.startswith(f"{h}.") for h in HEAVY) and m not in torch_alone]
    assert heavy == []


@pytest.mark.slow
def test_importing_costs_at_most_a_third_more_than_torch(imports: list[dict[str, Any]]) -> None:
    # Both in one process, one after the other, so that a temporarily busy machine slows both.
    ratios = [found["ratio"] for found in imports]
    assert statistics.median(ratios) <= 1.3, ratios


def test_the_changelog_has_the_packages_version() -> None:
    match = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert match is not None
    assert match[1] == purifier.__version__


def test_every_bundled_folder_states_what_it_is() -> None:
    configs = sorted((ROOT / "weights").glob("*/config.json"))
    assert configs
    for file in configs:
        config = json.loads(file.read_text())
        assert config["kind"] != "purifier" or config["name"] == file.parent.name
        assert all((file.parent / name).is_file() for name in config.get("files", {}))


def texts() -> list[Path]:
    """Every text file of the project in which somebody may read how to install it."""
    folders = [ROOT / name for name in ("purifier", "weights", "docs", "examples", "benchmarks")]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md", ".j2", ".yml")]
    return [*found, *(path for pattern in ("*.md", "*.cfg", "*.toml", "*.yml") for path in ROOT.glob(pattern))]


def test_every_hint_to_install_names_the_distribution() -> None:
    named = 0
    for path in texts():
        text = path.read_text(encoding="utf-8")
        named += text.count("torch-purifier[")
        # PyPI's `purifier` is another project.
        assert not re.search(r"""pip3? install(\s+-\S+)*\s+["']?purifier\b""", text), path
        if path.name.upper() not in ("README.MD", "CONTRIBUTING.MD"):  # the site has a copy of the latter
            assert not re.search(r"""pip3? install(\s+-\S+)*\s+["']?\.\[""", text), f"{path}: name torch-purifier[...]"
    assert named > 3


DOWNSTREAM = """
import json, os, pathlib, sys, warnings
import torch
from torchvision.models import resnet18
import purifier

warnings.simplefilter("ignore", purifier.PurifierWarning)
model = purifier.wrap(resnet18(weights=None).eval(), "gs")
shape = list(model(torch.rand(1, 3, 40, 48)).shape)
for name in purifier.list_purifiers():
    out = purifier.Purifier.from_pretrained(name)(torch.rand(1, 3, 20, 24))
    assert out.shape == (1, 3, 20, 24), name
assert purifier.transforms.Purify("gs")(torch.rand(3, 20, 24)).shape == (3, 20, 24)
print(json.dumps({"where": purifier.__file__, "names": purifier.list_purifiers(), "shape": shape}))
"""


@pytest.mark.slow
def test_the_wheel_carries_the_weights_and_runs_offline_outside_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(copied(tmp_path))]
    assert subprocess.run(build, capture_output=True, text=True, check=False).returncode == 0
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"torch_purifier-{purifier.__version__}-py3-none-any")

    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(home), "platbase": str(home)}))
    # The dependencies of this environment, without its editable install of purifier.
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    assert subprocess.run(install, capture_output=True, text=True, check=False).returncode == 0
    for file in (ROOT / "weights").glob("*/config.json"):
        for name in ["config.json", *json.loads(file.read_text()).get("files", {})]:
            assert (site / "purifier" / "weights" / file.parent.name / name).is_file()

    executable = str(Path(sysconfig.get_path("scripts", "venv", vars={"base": str(home)})) / Path(sys.executable).name)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    said = json.loads(python(DOWNSTREAM, executable=executable, cwd=outside, env=environment))
    assert Path(said["where"]).is_relative_to(site.resolve())
    assert said["names"] == purifier.list_purifiers()
    assert said["shape"] == [1, 1000]


def test_the_wheel_has_every_package() -> None:
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "purifier").rglob("__init__.py")}
    found = {".".join(folder.parts) for folder in folders}
    assert set(options["options"]["packages"].split()) == {*found, "purifier.weights"}


def copied(folder: Path) -> Path:
    """Copies the sources of a wheel, so that building leaves nothing in the checkout."""
    source = folder / "source"
    source.mkdir()
    for name in ("purifier", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    return source
