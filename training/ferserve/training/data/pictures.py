"""Picture files of data sets, decoded."""

from pathlib import Path
from typing import Final

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.errors import FerserveError
from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
_LIMITS: Final = DecodeLimits()


def read_image(path: Path) -> Image:
    """Decode a file to RGB uint8 as serving does: a truncated picture is an error, not half a face and half grey.

    Raises:
        DataError: it cannot be read or decoded.
    """
    try:
        return decode(path.read_bytes(), _LIMITS).pixels
    except OSError as error:
        raise DataError(f"{path}: expected a picture that can be read: {error.strerror}") from error
    except FerserveError as error:
        raise DataError(f"{path}: expected a picture that can be decoded; {error.message}; copy it anew") from error


def is_picture(path: Path) -> bool:
    """Whether a file's name is a picture's; what systems and owners leave beside them (`.DS_Store`) is none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def picture_files(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_picture(path))


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name; hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
