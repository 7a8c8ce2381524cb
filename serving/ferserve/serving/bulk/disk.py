"""The few things that a run does to a disk, each of them either done or not done after a crash.

Tests put a disk of their own in the place of `RealDisk`, which loses what was not flushed.
"""

import errno
import os
from pathlib import Path
from typing import Final, Protocol

from ferserve.faces.errors import FerserveError

UNFINISHED: Final = ".part"
"""Ends the names of files that are being written; whatever bears it after a crash is rubbish."""


class OutputError(FerserveError):
    """The output cannot be written; what was committed stays, and the same call goes on from there."""


class Disk(Protocol):
    """Every method may raise OSError; a crash may come within any of them."""

    def names(self, folder: Path) -> list[str]:
        """What a folder holds; nothing if there is none."""
        ...

    def read(self, path: Path) -> bytes:
        """A whole file."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Write a file and flush its content; after a crash on the way it may hold anything."""
        ...

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name in its folder, in the place of whatever had it, and flush the folder."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there, and flush the folder."""
        ...


class RealDisk:
    """The file system."""

    def names(self, folder: Path) -> list[str]:
        """What a folder holds; nothing if there is none."""
        return sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - names are all that is wanted

    def read(self, path: Path) -> bytes:
        """A whole file."""
        return path.read_bytes()

    def write(self, path: Path, data: bytes) -> None:
        """Write a file and flush its content; nothing is left of one that cannot be written."""
        try:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)  # a full disk needs the room
            raise

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name in its folder, in the place of whatever had it, and flush the folder."""
        path.replace(to)
        _flush_folder(to.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there, and flush the folder."""
        path.unlink(missing_ok=True)
        _flush_folder(path.parent)


def write_whole(disk: Disk, path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or, also after a crash, as it was before.

    Raises:
        OutputError: the disk is full, or refuses for another reason.
    """
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")  # a dot: readers of a table of shards leave it out
    try:
        disk.write(unfinished, data)
        disk.rename(unfinished, path)
    except OSError as error:
        raise refused(path, error) from error


def refused(path: Path, error: OSError) -> OutputError:
    """What a run says when its disk does not take any more."""
    what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror or error)
    return OutputError(
        f"{path.parent}: {what}. What was committed there is kept; run the same command again to go on from it."
    )


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
