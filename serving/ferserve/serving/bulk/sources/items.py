"""One thing that gets rows, and how its bytes are read."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ferserve.serving.bulk.sources.errors import SourceError

Read = Callable[[int], bytes]
"""Reads at most so many bytes; raises SourceError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A picture, a frame, or a place where there should have been some.

    Attributes:
        identity: the same in every run, and for no other item: absolute path, and the place in it.
        path: as text for the table, as the user named it.
        size_bytes: of the encoded picture, as far as it is known beforehand.
        read: gives the encoded picture.
        is_sequential: `read` works only until the next item is asked for.
        time_s: of a frame in its video.
    """

    identity: bytes
    path: str
    size_bytes: int
    read: Read
    is_sequential: bool = False
    time_s: float | None = None


def shown(path: str | Path) -> str:
    """A path as text: names that are no UTF-8 get replacement characters, which every format can hold."""
    return os.fsencode(path).decode("utf-8", "replace")


def identity_of(path: str | Path, *places: str) -> bytes:
    """The identity of a path, or of a place in it; no path holds a NUL."""
    return b"\0".join(os.fsencode(part) for part in (os.path.abspath(path), *places))  # noqa: PTH100 - links stay links


def broken(path: str | Path, error: SourceError, *, place: str) -> Item:
    """An item that nothing but an error is known of.

    Args:
        place: tells it from an item of the same path.
    """

    def read(_limit_bytes: int) -> NoReturn:
        raise error

    return Item(identity=identity_of(path, place), path=shown(path), size_bytes=0, read=read)
