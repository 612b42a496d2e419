"""Reading CSV files of labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from purifier._errors import InputError, nearest, shown
from purifier._opening import check_file, is_file

# The largest class number; also that of category ids.
MOST_CLASSES = 2**31 - 1
# Characters of a label that are compared with the names of the classes, and of one that may be a number.
_SHOWN, _DIGITS = 80, 20


@dataclass(frozen=True)
class TableRow:
    """A row of a CSV file: its line, and the texts of its columns file and label; None if one is missing."""

    line: int
    file: str | None
    label: str | None


def read_table(table: Path) -> list[TableRow]:
    """Reads the columns file and label of a CSV file in UTF-8.

    Raises:
        InputError: If it is not such a file, or has no rows.
    """
    check_file(table, wanted="a CSV file of labels")
    line = 1
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [str(name) for name in reader.fieldnames or ()]
            if not {"file", "label"} <= set(names):
                raise InputError(f"expected columns file,label in {table}, got {shown(','.join(names))}")
            rows = []
            for row in reader:
                line = reader.line_num
                rows.append(TableRow(line, row["file"], row["label"]))
    except UnicodeDecodeError as error:
        raise InputError(f"expected text in UTF-8 in {table}, got other bytes after line {line}; save it so") from error
    except csv.Error as error:
        raise InputError(f"expected CSV in {table}, got a wrong line after line {line}: {error}") from error
    except OSError as error:
        raise InputError(f"expected a CSV file that can be read, got {table}: {error.strerror}") from error
    if not rows:
        raise InputError(f"expected rows of file,label in {table}, got none")
    return rows


def labelled_files(root: Path, table: Path, classes: Sequence[str] | None) -> list[tuple[Path, int]]:
    """Returns the images that a table lists, below a folder, each with its class number.

    Raises:
        InputError: If an image does not exist or is outside the folder, or a label is unknown or contradicts another.
    """
    pairs: dict[Path, int] = {}
    for row in read_table(table):
        place = f"{table} line {row.line}"
        path = inside(root, row.file or "", place)
        label = class_number(row.label, classes, place)
        if pairs.setdefault(path, label) != label:
            raise InputError(f"expected one label for {row.file!r}, got {pairs[path]} and, in {place}, {label}")
    return list(pairs.items())


def labels_of(files: Sequence[Path], table: Path, folder: Path, classes: Sequence[str] | None) -> Mapping[Path, int]:
    """Returns the class numbers of some image files. Rows of other files are ignored.

    The table's paths may be relative to the folder of the images, to that of the table, or to a folder above the first.

    Raises:
        InputError: If an image has no row, or its label is unknown.
    """
    rows = read_table(table)
    wanted = {os.path.realpath(path): path for path in files}
    best: dict[Path, TableRow] = {}
    for root in _roots(folder, table):
        found = {
            wanted[place]: row
            for row in rows
            if (place := os.path.realpath(root / (row.file or "").replace("\0", ""))) in wanted
        }
        best = max(best, found, key=len)
        if len(best) == len(wanted):
            return {path: class_number(row.label, classes, f"{table} line {row.line}") for path, row in best.items()}
    missing = next(path for path in files if path not in best)
    raise InputError(
        f"expected a label for every image, got none for {missing} in {table}; its paths may be relative to {folder}, "
        "to a folder above, or to the folder of the CSV file"
    )


def _roots(folder: Path, table: Path) -> Iterator[Path]:
    place = Path(os.path.realpath(folder))
    yield from dict.fromkeys([place, Path(os.path.realpath(table.parent)), *place.parents])


def class_number(text: str | None, classes: Sequence[str] | None, place: str) -> int:
    """Returns the class number that a label states, as a number or as one of the classes' names.

    Raises:
        InputError: If it is neither.
    """
    stated = text or ""
    if len(stated) < _DIGITS:
        try:
            number = int(stated)
        except ValueError:
            pass
        else:
            if 0 <= number <= MOST_CLASSES:
                return number
    if classes is not None and text is not None and text in classes:
        return list(classes).index(text)
    advice = nearest(stated[:_SHOWN], classes or ())
    raise InputError(f"expected a class number{' or name' if classes else ''} in {place}, got {shown(text)}{advice}")


def inside(root: Path, name: str, place: str) -> Path:
    """Returns the path of a file below a folder.

    Args:
        root: The folder.
        name: The file's path, as a label file states it.
        place: Where it states it, for messages.

    Raises:
        InputError: If it is outside the folder, or does not exist.
    """
    # Without "..", which behind a link would lead elsewhere than it seems.
    relative = os.path.relpath(os.path.normpath(os.path.join(root, name)), root) if "\0" not in name else ""  # noqa: PTH118
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        raise InputError(f"expected an image below {root}, got {shown(name)} in {place}, which leads out of it")
    if not name or not relative or not is_file(root / relative):
        raise InputError(f"expected an image {shown(name)} below {root}, as {place} says, got no such file")
    return root / relative
