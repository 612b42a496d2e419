"""Reading COCO JSON files of instances."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from purifier._errors import InputError, shown
from purifier._opening import check_file
from purifier.data.tables import MOST_CLASSES, inside

# x1, y1, x2, y2 in pixels of the file, the category's id, and whether it is a crowd (1) or not (0).
Box = tuple[float, float, float, float, int, int]
# The largest coordinate of a box, in pixels.
_FARTHEST = 1e7


def read_instances(path: Path, root: Path) -> tuple[list[tuple[Path, list[Box]]], dict[int, str]]:
    """Returns the images with their boxes, and the names of the categories by id.

    Boxes without an area, which detectors refuse, are left out.

    Args:
        path: The JSON file.
        root: The folder of the images.

    Raises:
        InputError: If it is not such a file; with the entry that is wrong.
    """
    truth = _read(path)
    categories: dict[int, str] = {}
    for number, entry in enumerate(truth["categories"]):
        place = f"{path}, categories[{number}]"
        name = str(_field(entry, "name", place))
        _add(categories, _category(entry, "id", place), name, place)
    images: dict[Hashable, tuple[Path, list[Box]]] = {}
    for number, entry in enumerate(truth["images"]):
        place = f"{path}, images[{number}]"
        name = _field(entry, "file_name", place)
        if not isinstance(name, str):
            raise InputError(f"expected file_name as text in {place}, got {shown(name)}")
        _add(images, _identity(entry, "id", place), (inside(root, name, place), []), place)
    for number, entry in enumerate(truth["annotations"]):
        place = f"{path}, annotations[{number}]"
        owner, box = _identity(entry, "image_id", place), _box(entry, place)
        if owner not in images:
            raise InputError(f"expected the id of an image as image_id in {place}, got {shown(owner)}")
        if box[2] > box[0] and box[3] > box[1]:
            images[owner][1].append(box)
    if not images:
        raise InputError(f"expected images in {path}, got none")
    return list(images.values()), categories


def _read(path: Path) -> Mapping[str, list[Any]]:
    check_file(path, wanted="a COCO JSON file")
    wanted = f"expected COCO instances with images, annotations and categories in {path}, got"
    try:
        truth = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"expected a COCO JSON file, got {path}, which cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{wanted} something else: {str(error) or type(error).__name__}") from error
    if not isinstance(truth, dict):
        raise InputError(f"{wanted} a {type(truth).__name__}")
    for name in ("images", "annotations", "categories"):
        if not isinstance(truth.get(name), list):
            raise InputError(f"{wanted} {shown(truth.get(name))} instead of a list of {name}")
    return truth


def _field(entry: Any, name: str, place: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise InputError(f"expected an object with {name} in {place}, got {shown(entry)}")
    return entry[name]


def _identity(entry: Any, name: str, place: str) -> Hashable:
    value = _field(entry, name, place)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"expected {name} as an integer or text in {place}, got {shown(value)}")
    return value


def _category(entry: Any, name: str, place: str) -> int:
    value = _field(entry, name, place)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_CLASSES:
        raise InputError(f"expected {name} as an integer from 0 to {MOST_CLASSES} in {place}, got {shown(value)}")
    return value


def _add(found: dict[Any, Any], key: Hashable, value: Any, place: str) -> None:
    if key in found:
        raise InputError(f"expected ids that differ, got the id {shown(key)} a second time in {place}")
    found[key] = value


def _box(entry: Any, place: str) -> Box:
    values = _field(entry, "bbox", place)
    if not (isinstance(values, list) and len(values) == 4 and all(map(_is_coordinate, values))):
        raise InputError(
            f"expected bbox as four finite numbers x, y, width, height in pixels in {place}, got {shown(values)}"
        )
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"expected iscrowd as 0 or 1 in {place}, got {shown(crowd)}")
    x, y, width, height = values
    # A negative width or height would make a box that ends before it begins; it has no area either.
    return x, y, x + width, y + height, _category(entry, "category_id", place), int(crowd)


def _is_coordinate(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= _FARTHEST  # which NaN is not
