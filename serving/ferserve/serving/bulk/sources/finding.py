"""From the sources that a user names to the items that get rows."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ferserve.serving.bulk.sources import archives, videos
from ferserve.serving.bulk.sources.errors import unreadable
from ferserve.serving.bulk.sources.files import file_item
from ferserve.serving.bulk.sources.folders import Walker, has_magic
from ferserve.serving.bulk.sources.items import Item, broken
from ferserve.serving.errors import ConfigError

LIST_MARK: Final = "@"
_LIST_PIECE_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Finder:
    """Finds what is to be scored.

    Attributes:
        sources: pictures, folders, globs, tar and zip archives, videos, and `@FILE` for a list of such paths, one a
            line or separated by NUL. Folders give pictures only: an archive or a video is read where it is named.
        frames_per_s: of a video, above 0.
        skipped: real paths of folders that walks pass over.
    """

    sources: Sequence[str]
    frames_per_s: float = 1.0
    skipped: frozenset[str] = frozenset()

    def check(self) -> None:
        """Refuse sources that cannot be meant.

        Raises:
            ConfigError: one does not exist, and is no pattern; or nothing is to be found in any of them.
        """
        for source in self.sources:
            path = source.removeprefix(LIST_MARK)
            if not os.path.lexists(path) and (source != path or not has_magic(source)):
                raise ConfigError(f"source: expected a file, a folder or a glob, got {source}, which does not exist")
        if next(self.items(), None) is None:
            raise ConfigError("source: expected at least one picture, found none")

    def items(self) -> Iterator[Item]:
        """Everything, in a stable order, found as it is asked for; one path may come twice."""
        for found in self.paths():
            yield from (found,) if isinstance(found, Item) else items_at(found, self.frames_per_s)

    def count(self) -> int | None:
        """How many items there are, without reading them; None where only reading would tell."""
        total = 0
        for found in self.paths():
            number = self._counted(found)
            if number is None:
                return None
            total += number
        return total

    def paths(self) -> Iterator[str | Item]:
        """Files, archives and videos by path, and an item for each folder or list that cannot be read."""
        walker = Walker(skipped=self.skipped)
        for source in self.sources:
            if source.startswith(LIST_MARK):
                yield from self._in_list(walker, source.removeprefix(LIST_MARK))
            elif has_magic(source) and not os.path.lexists(source):
                for found in walker.matches(source):
                    yield from (found,) if isinstance(found, Item) else self._named(walker, found)
            else:
                yield from self._named(walker, source)

    def _counted(self, found: str | Item) -> int | None:
        if isinstance(found, Item):
            return 1
        if archives.is_archive(found):
            return archives.counted(found)
        return videos.counted(found, self.frames_per_s) if videos.is_video(found) else 1

    def _named(self, walker: Walker, path: str) -> Iterator[str | Item]:
        path = str(Path(path))  # without `./` and double slashes
        if os.path.isdir(path):  # noqa: PTH112 - paths are text here, see `folders`
            yield from walker.pictures(path)
        else:
            yield path

    def _in_list(self, walker: Walker, path: str) -> Iterator[str | Item]:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the same
                for line in _entries(file):
                    yield from self._named(walker, os.fsdecode(line))
        except OSError as error:
            yield broken(path, unreadable("list", error), place="list")


def is_container(path: str) -> bool:
    """Whether a path stands for many items."""
    return archives.is_archive(path) or videos.is_video(path)


def items_at(path: str, frames_per_s: float) -> Iterator[Item]:
    """The pictures of an archive, the frames of a video, or the one picture that a file is."""
    if archives.is_archive(path):
        yield from archives.members(path)
    elif videos.is_video(path):
        yield from videos.frames(path, frames_per_s)
    else:
        yield file_item(path)


def _entries(file: IO[bytes]) -> Iterator[bytes]:
    """The entries of a list; NUL separates them if there is one near the start, otherwise the ends of lines."""
    is_nul = b"\0" in file.read(_LIST_PIECE_BYTES)
    file.seek(0)
    lines = _split(file, b"\0") if is_nul else (line.rstrip(b"\r\n") for line in file)
    return (line for line in lines if line)


def _split(file: IO[bytes], separator: bytes) -> Iterator[bytes]:
    rest = b""
    while piece := file.read(_LIST_PIECE_BYTES):
        *whole, rest = (rest + piece).split(separator)
        yield from whole
    yield rest
