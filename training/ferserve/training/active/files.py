"""Files of a campaign: written whole or not at all, so that a stop at any moment leaves what was there before."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.errors import DataError
from ferserve.training.whole_files import storage_error, whole_file


def write_whole(path: Path, data: bytes) -> None:
    """Write a file as `whole_file` does; makes its folder.

    Raises:
        StorageError: it could not be written whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    with whole_file(path) as file:
        file.write(data)


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
