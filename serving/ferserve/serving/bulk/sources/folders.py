"""Walks folders and expands globs, a piece at a time: a folder may hold a million pictures.

Links to folders are not followed, so a walk ends whatever links there are. A folder that cannot be listed becomes an
item that fails. Names come in order within pieces of `PIECE` names.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import islice
from pathlib import Path
from typing import Final

from ferserve.serving.bulk.sources.errors import unreadable
from ferserve.serving.bulk.sources.items import Item, broken

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""What is picked up from folders and archives; a file that is named itself is read whatever it is called."""
PIECE: Final = 4096
_MAGIC: Final = re.compile(r"[*?[]")
_ANY_DEPTH: Final = "**"


def is_picture(name: str) -> bool:
    """Whether a file of this name is picked up."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - a Path for each of a million names is slow


def has_magic(pattern: str) -> bool:
    """Whether a name is a pattern."""
    return _MAGIC.search(pattern) is not None


@dataclass(slots=True)
class _Piece:
    """Some of a folder's entries, by name."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walker:
    """Finds files.

    Attributes:
        skipped: real paths of folders that are passed over, because the run itself writes there.
    """

    skipped: frozenset[str] = frozenset()

    def pictures(self, folder: str) -> Iterator[str | Item]:
        """Paths of all pictures in a folder and the folders in it; an item for each folder that cannot be listed."""
        left = [folder]
        while left:
            place = left.pop()
            below: list[str] = []
            for piece in self._listed(place):
                if isinstance(piece, Item):
                    yield piece
                    continue
                below.extend(piece.folders)
                yield from (_joined(place, name) for name in piece.files if is_picture(name))
            left.extend(_joined(place, name) for name in sorted(below, reverse=True))

    def matches(self, pattern: str) -> Iterator[str | Item]:
        """Paths of files and folders that a pattern stands for; `**` is any number of folders."""
        parts = [part for part in Path(pattern).parts if part not in ("", ".")]
        plain = next(index for index, part in enumerate(parts) if has_magic(part))
        yield from self._expanded(os.path.join(*parts[:plain]) if plain else os.curdir, parts[plain:])  # noqa: PTH118

    def _expanded(self, place: str, parts: Sequence[str]) -> Iterator[str | Item]:
        first, *rest = parts
        if first == _ANY_DEPTH:
            yield from self._at_any_depth(place, rest)
            return
        matches = re.compile(translate(first)).match
        for piece in self._listed(place):
            if isinstance(piece, Item):
                yield piece
                continue
            if not rest:
                yield from (_joined(place, name) for name in piece.files + piece.folders if matches(name))
                continue
            for name in filter(matches, piece.folders):
                yield from self._expanded(_joined(place, name), rest)

    def _at_any_depth(self, place: str, rest: Sequence[str]) -> Iterator[str | Item]:
        if not rest:
            yield place
            return
        yield from self._expanded(place, rest)
        for piece in self._listed(place):
            for name in () if isinstance(piece, Item) else piece.folders:
                yield from self._at_any_depth(_joined(place, name), rest)

    def _listed(self, place: str) -> Iterator[_Piece | Item]:
        try:
            with os.scandir(place) as entries:
                while names := list(islice(entries, PIECE)):
                    piece = _Piece()
                    for entry in sorted(names, key=lambda entry: entry.name):
                        self._sort_in(entry, piece)
                    yield piece
        except OSError as error:
            yield broken(place, unreadable("folder", error), place="folder")

    def _sort_in(self, entry: "os.DirEntry[str]", piece: _Piece) -> None:
        if entry.is_dir(follow_symlinks=False):
            if os.path.realpath(entry.path) not in self.skipped:
                piece.folders.append(entry.name)
        elif not (entry.is_symlink() and os.path.isdir(entry.path)):  # noqa: PTH112 - as above
            piece.files.append(entry.name)  # also a link that leads nowhere: its row says so


def _joined(place: str, name: str) -> str:
    return name if place == os.curdir else os.path.join(place, name)  # noqa: PTH118 - as above
