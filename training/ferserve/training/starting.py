"""The weights that a run begins with, as its recipe says."""

from pathlib import Path
from typing import Final

import torch
from torch import Generator, Tensor

from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.finish import load_best
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.models.net import ExpressionNet
from ferserve.training.pretrained import load_faceres, refit_batch_norm
from ferserve.training.recipe import Recipe
from ferserve.training.start_weights import load_run_weights, load_state_dict_file

REFIT_FACES: Final = 2048
"""Faces that batch norm's statistics are taken from before training."""


def load_start(
    net: ExpressionNet, recipe: Recipe, start_weights: Path | None, *, crops: Tensor, generator: Generator
) -> None:
    """Fill a net that has random weights.

    Args:
        start_weights: needed by every recipe that does not start from random weights.
        crops: to fit on, (N, S, S, C); batch norm's first statistics come from some of them where weights have none.
    Raises:
        DataError: no weights where there should be some, or those of another net or of another split.
        ArchiveError: the face weights are malformed.
    """
    start = recipe.start
    if start == "random":
        return
    if start_weights is None:
        source = {"faceres": "face weights", "run": "another run"}.get(start, f"{start} weights")
        raise DataError(f"recipe {recipe.name} starts from {source}: expected --start-weights, got none")
    if start == "run":
        former = Recipe.read(start_weights / "recipe.json")
        if former.task == recipe.task:
            recipe.check_same_split(former, str(start_weights))
        load_run_weights(net, load_best(start_weights, former)[0].state_dict(), str(start_weights))
    elif start == "faceres":
        _from_faceres(net, recipe, start_weights, crops, generator)
    else:
        load_state_dict_file(net, start_weights, start)


def _from_faceres(
    net: ExpressionNet, recipe: Recipe, model_json: Path, crops_NSSC: Tensor, generator: Generator
) -> None:
    if not isinstance(net, MobileNetV1):
        raise DataError(f"start faceres: expected architecture mobilenet_v1, got {recipe.architecture}")
    load_faceres(net, model_json)
    rows = torch.randperm(len(crops_NSSC), generator=generator)[:REFIT_FACES]
    size_px = recipe.input_size_px(0)
    refit_batch_norm(net, (to_input(crops_NSSC[part], size_px=size_px) for part in torch.split(rows, 256)))
