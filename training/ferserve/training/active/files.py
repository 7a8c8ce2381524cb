"""Files of a campaign: written whole or not at all, so that a stop at any moment leaves what was there before."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.errors import FerserveError
from ferserve.training.data.errors import DataError


class CampaignStorageError(FerserveError):
    """A campaign's folder cannot be written to; what was committed there stands."""


def write_whole(path: Path, data: bytes) -> None:
    """Write and flush a file under another name, then give it its own; makes its folder.

    Raises:
        CampaignStorageError: it could not be written whole.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise refused(path, error) from error


def refused(path: Path, error: OSError) -> CampaignStorageError:
    """What is said when a disk takes no more."""
    return CampaignStorageError(
        f"{path} cannot be written: {error.strerror or error}; what was written before stands. Make room there, then "
        "run the same command: it goes on from there"
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as indented JSON."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path, *, made_by: str) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Args:
        made_by: the command that writes it, for the error.
    Raises:
        DataError: no such file, or no JSON object in it.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"expected {path}, found none; `{made_by}` writes it") from error
    except ValueError as error:
        raise DataError(f"{path}: expected the JSON that `{made_by}` writes: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected the JSON object that `{made_by}` writes, got a {type(value).__name__}")
    return value


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write named arrays as one `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read them back; nothing in them is ever unpickled.

    Raises:
        DataError: no such file, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: expected a whole .npz of this campaign: {error}") from error
