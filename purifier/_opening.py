"""Opening picture files: which formats are read, and how one that is damaged, too large or not there is refused."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from purifier._errors import InputError, PurifierError
from purifier._options import check_number

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# The formats that are read, by Pillow's names, and the endings of their files. Pillow knows many more, some of which
# start other programs (PostScript) or would silently cut values to 8 bits (AVIF, JPEG 2000).
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
SUFFIXES = tuple(ending for endings in FORMATS.values() for ending in endings)
# The largest limit of pixels, for pictures that need none.
MOST_PIXELS = 1e12
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|hdfs|file):/|data:", re.IGNORECASE)
# What Pillow takes for "not this format" when it opens a file.
_NOT_THIS = (SyntaxError, IndexError, TypeError, struct.error)


@contextmanager
def opened(source: Path | bytes | IO[bytes], *, max_pixels: float | None = None) -> Iterator[ImageFile]:
    """Opens a picture of one of `FORMATS`, whatever its name ends in.

    Args:
        source: A file's path, its content, or a binary file object.
        max_pixels: The largest number of pixels. None means Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        InputError: If it is not such a picture, has more pixels, or cannot be decoded in the body.
        OptionError: If max_pixels is no number.
    """
    if isinstance(source, Path):
        check_file(source)
    name = str(source) if isinstance(source, Path) else "bytes" if isinstance(source, bytes) else "a file object"
    try:
        with _binary(source) as file:
            image = _identified(file)
            _check_size(image.size, max_pixels)
            yield image
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except PurifierError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on damaged files
        raise InputError(f"expected an image file, got {name}, which cannot be read: {_reason(error)}") from error


@contextmanager
def _binary(source: Path | bytes | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    elif isinstance(source, bytes):
        yield BytesIO(source)
    else:
        with suppress(AttributeError, OSError):  # such as a pipe, which is read from where it stands
            source.seek(0)
        content = source.read()
        if not isinstance(content, bytes):
            raise InputError(f"expected a binary file, got one of {type(content).__name__}; open it with mode 'rb'")
        yield BytesIO(content)


def _identified(file: IO[bytes]) -> ImageFile:
    """Does the work of `PIL.Image.open(file, formats=...)`, whose limit of pixels only a global variable can raise."""
    from PIL import Image

    prefix = file.read(16)
    for name in FORMATS:
        if name not in Image.OPEN:
            import_module(f"PIL.{'WebP' if name == 'WEBP' else name.title()}ImagePlugin")
        factory, accept = Image.OPEN[name]
        with suppress(*_NOT_THIS):
            if accept is None or accept(prefix) is True:
                file.seek(0)
                # Without a name, Pillow does not map the file into memory, where a file that shrinks ends the process.
                return factory(file, "")
    *most, last = FORMATS
    raise OSError(f"its format is unknown or not one of {', '.join(most)} and {last}")


def _check_size(size: tuple[int, int], max_pixels: float | None) -> None:
    from PIL import Image

    width, height = size
    if min(size) < 1:
        raise InputError(f"expected at least one pixel, got a picture of {width} x {height}")
    if max_pixels is not None:
        check_number("max_pixels", max_pixels, low=1, high=MOST_PIXELS)
    limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if limit is not None and width * height > limit:
        raise InputError(
            f"expected at most {limit / 1e6:.3g} megapixels, got {width} x {height} pixels "
            f"({width * height / 1e6:.3g} megapixels), which a small file may claim to fill the memory; make the "
            "picture smaller, or, if you trust it, allow it with --max-megapixels of `purifier purify` or max_pixels "
            "of `purify_image`, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def _reason(error: Exception) -> str:
    if type(error).__name__.startswith("DecompressionBomb"):  # of a frame that is larger than the picture
        return "a part of it claims more pixels than the whole"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def as_path(value: object, *, wanted: str) -> Path:
    """Returns a path that is text or a path object.

    Args:
        value: What was given.
        wanted: What is expected, for the message.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(value, str | os.PathLike) and (isinstance(value, str) or isinstance(os.fspath(value), str)):
        return Path(value)
    raise InputError(f"expected the path of {wanted}, got {type(value).__name__}; give text or a pathlib.Path")


def check_file(path: Path, *, wanted: str = "an image file") -> None:
    """Checks that a path is that of a file that exists.

    Args:
        path: The path.
        wanted: What is expected, for the message.

    Raises:
        InputError: If it is not, or the system does not let one look.
    """
    if _kind(path) == stat.S_IFREG:
        return
    if _ADDRESS.match(str(path)):
        # A path has lost the second slash of an address.
        shown = re.sub(r"^(\w+:)/(?!/)", r"\1//", shortened(path))
        raise InputError(f"expected {wanted}, got the address {shown}; download it first and give the file")
    raise InputError(f"expected {wanted}, got {shortened(path)}, which does not exist or is not a file")


def is_file(path: Path) -> bool:
    """Whether a path is that of a file.

    Raises:
        InputError: If the system does not let one look, for example because the name is too long.
    """
    return _kind(path) == stat.S_IFREG


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; otherwise as `is_file`."""
    return _kind(path) == stat.S_IFDIR


def _kind(path: Path) -> int | None:
    """The kind of what a path leads to; None if it leads nowhere."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except ValueError:  # a null byte
        return None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise InputError(f"expected a path that can be read, got {shortened(path)}: {error.strerror}") from error


def shortened(path: Path) -> str:
    """Returns a path for a message, without the middle of a very long one."""
    shown = str(path)
    return shown if len(shown) <= 300 else f"{shown[:150]}...{shown[-100:]}"
