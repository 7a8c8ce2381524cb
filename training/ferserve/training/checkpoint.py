"""Checkpoints that a killed run resumes from: written whole or not at all, read without running code."""

from pathlib import Path
from typing import Any

import torch

from ferserve.training.data.errors import DataError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; a crash or a full disk leaves the former file in place."""
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.replace(path)


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
