"""Checkpoints that a stopped run resumes from: written whole or not at all, read without running code."""

from pathlib import Path
from typing import Any

import torch

from ferserve.training.data.errors import DataError
from ferserve.training.whole_files import whole_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a crash or a full disk leaves the former file in place.

    Raises:
        StorageError: it could not be written whole.
    """
    with whole_file(path) as file:
        torch.save(state, file)


def write_text(path: Path, text: str) -> None:
    """Write a small file of a run, whole or not at all.

    Raises:
        StorageError: it could not be written whole.
    """
    with whole_file(path) as file:
        file.write(text.encode())


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
