"""One picture's file, read whole and as it was at one moment."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Final

from ferserve.serving.bulk.sources.errors import SourceCode, SourceError, unreadable
from ferserve.serving.bulk.sources.items import Item, identity_of, shown

ATTEMPTS: Final = 3
Open = Callable[[str], IO[bytes]]


def file_item(path: str | Path) -> Item:
    """The item of a file, whatever it is called; that it cannot be read becomes known as it is read."""
    try:
        size_bytes = os.stat(path).st_size  # noqa: PTH116 - a Path for each of a million names costs more than the call
    except OSError:
        size_bytes = 0
    read = partial(read_file, os.fspath(path))
    return Item(identity=identity_of(path), path=shown(path), size_bytes=size_bytes, read=read)


def open_regular(path: str) -> IO[bytes]:
    """Open a file for reading, without waiting for whoever would write into a pipe of that name."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)


def read_file(path: str, limit_bytes: int, *, open_file: Open = open_regular) -> bytes:
    """Read a file, at most so many bytes of it.

    Raises:
        SourceError: it cannot be read, is no regular file, or changed while it was read, `ATTEMPTS` times over.
    """
    try:
        for _ in range(ATTEMPTS):
            with open_file(path) as file:
                data = _read_unchanged(file, limit_bytes)
            if data is not None:
                return data
    except OSError as error:
        raise unreadable("file", error) from error
    raise SourceError(
        SourceCode.CHANGED, f"the file changed while it was read, {ATTEMPTS} times over; expected it to stay as it is"
    )


def _read_unchanged(file: IO[bytes], limit_bytes: int) -> bytes | None:
    before = os.fstat(file.fileno())
    if not stat.S_ISREG(before.st_mode):
        raise SourceError(SourceCode.UNREADABLE, "expected a regular file, got a pipe, a device or a folder")
    data = _read_up_to(file, limit_bytes)
    after = os.fstat(file.fileno())
    was, is_now = ((found.st_size, found.st_mtime_ns) for found in (before, after))
    return data if was == is_now and len(data) == min(before.st_size, limit_bytes) else None


def _read_up_to(file: IO[bytes], limit_bytes: int) -> bytes:
    parts = []
    left = limit_bytes
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
