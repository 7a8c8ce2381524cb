"""Files that are written whole or not at all: a stop at any moment, or a full disk, leaves what was there before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ferserve.faces.errors import FerserveError


class StorageError(FerserveError):
    """A folder of a run or a campaign cannot be written to; what was there before stands."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes `path`'s place, flushed to the disk, when the block ends without an error.

    Raises:
        StorageError: it could not be written whole.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        partial.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def storage_error(path: Path, error: Exception) -> StorageError:
    """What is said when a disk takes no more."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return StorageError(
        f"{path} cannot be written: {reason}; the former file stands. Make room there, then run the same command: it "
        "goes on from what was written before"
    )
