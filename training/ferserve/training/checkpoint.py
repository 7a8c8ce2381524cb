"""Checkpoints that a stopped run resumes from: written whole or not at all, read without running code."""

import os
from pathlib import Path
from typing import Any

import torch

from ferserve.faces.errors import FerserveError
from ferserve.training.data.errors import DataError


class StorageError(FerserveError):
    """A run's folder cannot be written to; what was there before stands."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a crash or a full disk leaves the former file in place.

    Raises:
        StorageError: it could not be written whole.
    """
    temporary = path.with_suffix(".partial")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        temporary.unlink(missing_ok=True)
        raise _storage_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file of a run, whole or not at all.

    Raises:
        StorageError: it could not be written whole.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: Exception) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return StorageError(
        f"{path} cannot be written: {reason}; the former file stands. Make room there, then run the same command: it "
        "goes on from the last checkpoint"
    )


def load_checkpoint(path: Path, *, recipe_sha256: str) -> dict[str, Any]:
    """Read a checkpoint of the same recipe.

    Raises:
        DataError: the file holds another recipe's run.
    """
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state["recipe_sha256"] != recipe_sha256:
        raise DataError(
            f"{path} is a run of recipe {state['recipe_sha256'][:12]}, this one is {recipe_sha256[:12]}: "
            "choose another --out, or finish that run first"
        )
    return state
