"""The pictures below a folder, found as they are asked for: the folder may hold ten million.

What is held is one piece of a folder's entries and the names of folders still to be entered. Links to folders are not
followed, so a walk ends whatever links there are.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from ferserve.training.data.errors import DataError

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_PIECE: Final = 4096


def walk_pictures(folder: Path, *, skipped: Path | None = None) -> Iterator[str]:
    """Names of all files called as pictures are, relative to `folder`, with `/`; in order within pieces of a folder.

    Args:
        skipped: a folder that is passed over, because the campaign itself lies there.
    Raises:
        DataError: `folder` is none, or a folder below it cannot be listed.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder of pictures, found none at {folder}")
    beside = None if skipped is None else skipped.resolve()
    left = [""]
    while left:
        below: list[str] = []
        place = left.pop()
        try:
            with os.scandir(folder / place) as entries:
                while piece := list(islice(entries, _PIECE)):
                    for entry in sorted(piece, key=lambda entry: entry.name):
                        name = f"{place}/{entry.name}" if place else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if Path(entry.path).resolve() != beside:
                                below.append(name)
                        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                            yield name
        except OSError as error:
            raise DataError(f"{folder / place}: expected a folder that can be listed: {error.strerror}") from error
        left += sorted(below, reverse=True)
