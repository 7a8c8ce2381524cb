"""Which files a bulk run reads."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ferserve.serving.errors import ConfigError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""What is picked up from folders; a file that is named itself is read whatever it is called."""


def find_pictures(sources: Sequence[Path]) -> Iterator[Path]:
    """Every file of `sources`, and of their folders every picture, in a stable order; folder links are not followed.

    Raises:
        ConfigError: a source does not exist.
    """
    for source in sources:
        if source.is_dir():
            yield from _in_folder(source)
        elif source.exists():
            yield source
        else:
            raise ConfigError(f"source: expected a file or a folder, got {source}, which does not exist")


def shown(path: Path) -> str:
    """A path as text: names that are no UTF-8 get replacement characters, which every format can hold."""
    return os.fsencode(path).decode("utf-8", "replace")


def _in_folder(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES:
                yield path
