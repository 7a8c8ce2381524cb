"""Data sets by the names that the command line takes: `--data fer2013=DIR`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import FaceSet, read_fer2013

READERS: Final[dict[str, Callable[[Path], dict[str, FaceSet]]]] = {"fer2013": read_fer2013}


def parse_source(text: str) -> tuple[str, Path]:
    """Split `NAME=DIR`.

    Raises:
        DataError: no such form, or an unknown name; the message lists the known ones.
    """
    name, separator, folder = text.partition("=")
    if not separator or not folder or name not in READERS:
        raise DataError(f"--data: expected NAME=DIR with a NAME of {', '.join(READERS)}, got {text!r}")
    return name, Path(folder)


def read_source(text: str) -> tuple[str, dict[str, FaceSet]]:
    """Read the splits that `NAME=DIR` names."""
    name, folder = parse_source(text)
    return name, READERS[name](folder)
