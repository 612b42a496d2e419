"""Whatever folders and links there are, every picture is found once, and no two have one output."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from purifier._walking import walk
from purifier.data.outputs import output_names
from tests.properties.amount import examples

NAMES = ["a", "b", "0.png", "c.JPG", "d.txt", ".hidden", "e.gif", "n\nl.png", "\x1b[31m.png", "\udcff.png", "é"]


@st.composite
def steps(draw: Any) -> list[tuple[str, int, str, int]]:
    """What is made, in which folder, under which name, and where a link leads."""
    kinds = st.sampled_from(["folder", "folder", "link", "file", "file", "pipe", "self"])
    one = st.tuples(kinds, st.integers(0, 30), st.sampled_from(NAMES), st.integers(0, 30))
    return draw(st.lists(one, max_size=25))


def built(root: Path, made: list[tuple[str, int, str, int]]) -> Path:
    """Makes folders `in` (which is walked) and `out`, and what the steps say in them."""
    shutil.rmtree(root, ignore_errors=True)
    folders = [root / "in", root / "out"]
    for folder in folders:
        folder.mkdir(parents=True)
    for kind, place, name, goal in made:
        path = folders[place % len(folders)] / name
        if os.path.lexists(path):
            continue
        if kind == "folder":
            path.mkdir()
            folders.append(path)
        elif kind == "link":
            path.symlink_to([root, *folders][goal % (len(folders) + 1)])
        elif kind == "self":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.touch()
    return root / "in"


@given(made=steps())
@examples(80)
def test_every_picture_is_found_once(made: list[tuple[str, int, str, int]], tmp_path: Path) -> None:
    folder = built(tmp_path / "tree", made)
    found = walk(folder)
    assert found.images == sorted(found.images) and all(path.is_file() for path in found.images)
    real = [os.path.realpath(path) for path in found.images]
    assert len(set(real)) == len(real)
    # Everything that can be reached without links is found under its own name.
    plain = {
        Path(above, name)
        for above, folders, files in os.walk(folder)
        for name in files
        if not any(part.startswith(".") for part in Path(above, name).relative_to(folder).parts)
        and Path(name).suffix.lower() in (".png", ".jpg", ".gif")
        and Path(above, name).is_file()
    }
    assert plain <= set(found.images)
    leads = [os.path.realpath(link) for link in found.outside]
    assert all(not Path(lead).is_relative_to(folder) or ".hidden" in lead for lead in leads)


@given(
    names=st.lists(
        st.tuples(st.sampled_from(["a", "A", "a.png", "a.jpg", "d/a"]), st.sampled_from([".png", ".JPG", ".gif"])),
        min_size=1,
        unique_by=lambda name: "".join(name).casefold(),
    )
)
@examples(80)
def test_no_two_pictures_have_one_output(names: list[tuple[str, str]]) -> None:
    sources = sorted(Path(stem + suffix) for stem, suffix in names)
    outputs = output_names(sources, "png")
    # Also where a file system ignores case.
    assert len({str(path).casefold() for path in outputs}) == len(sources)
    assert all(path.suffix == ".png" for path in outputs)
