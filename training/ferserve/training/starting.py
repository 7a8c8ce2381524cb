"""The weights that a run begins with, as its recipe says."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Generator, Tensor

from ferserve.faces.archive import PROGRAM, Archive
from ferserve.faces.index import open_archive
from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.finish import load_best
from ferserve.training.held_out import recipe_of
from ferserve.training.models.mobilenet import ConvNormAct, MobileNetV1
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
        former = former_recipe(start_weights)
        if former.task == recipe.task:
            recipe.check_same_split(former, str(start_weights))
        if start_weights.is_dir():
            load_run_weights(net, load_best(start_weights, former)[0].state_dict(), str(start_weights))
        else:
            load_folded(_mobilenet(net, recipe), open_archive(str(start_weights)))
            _refit(net, recipe, crops, generator)
    elif start == "faceres":
        load_faceres(_mobilenet(net, recipe), start_weights)
        _refit(net, recipe, crops, generator)
    else:
        load_state_dict_file(net, start_weights, start)


def former_recipe(start_weights: Path) -> Recipe:
    """The recipe of a run, by its folder, or of an archive, by its name or path.

    Raises:
        DataError: no run, or an archive of an unknown recipe.
        ArchiveError: no such archive.
    """
    if start_weights.is_dir():
        return Recipe.read(start_weights / "recipe.json")
    return recipe_of(open_archive(str(start_weights)))


def load_folded(net: MobileNetV1, archive: Archive) -> None:
    """Put an archive's weights into `net`, so that in eval mode it computes the same.

    An archive's norms lie in its convolutions. They come out with mean 0 and variance 1; `refit_batch_norm` must follow
    before training. The classifier comes over if it is for as many classes.

    Raises:
        DataError: an archive of another architecture.
        ArchiveError: it has no program, or was altered.
    """
    if archive.manifest.architecture != "mobilenet_v1":
        raise DataError(
            f"--start-weights: expected an archive of mobilenet_v1, {archive.path.name} is of "
            f"{archive.manifest.architecture}"
        )
    program = torch.export.load(io.BytesIO(archive.read(PROGRAM)))
    state = {name.removeprefix("net."): value for name, value in program.state_dict.items()}
    load_run_weights(net, unfolded(net, state), archive.path.name)


def unfolded(net: MobileNetV1, folded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a net with norms that computes what one without, but with biases, does."""
    state = dict(folded)
    for name, module in net.named_modules():
        if isinstance(module, ConvNormAct):
            assert isinstance(module.norm, torch.nn.BatchNorm2d)
            bias = state.pop(f"{name}.conv.bias")
            state |= {
                f"{name}.norm.weight": torch.ones_like(bias),
                f"{name}.norm.bias": bias,
                f"{name}.norm.running_mean": torch.zeros_like(bias),
                f"{name}.norm.running_var": torch.full_like(bias, 1.0 - module.norm.eps),
            }
    return state


def _mobilenet(net: ExpressionNet, recipe: Recipe) -> MobileNetV1:
    if not isinstance(net, MobileNetV1):
        raise DataError(
            f"--start-weights: face weights and archives are for architecture mobilenet_v1, recipe {recipe.name} has "
            f"{recipe.architecture}: expected the folder of a run"
        )
    return net


def _refit(net: ExpressionNet, recipe: Recipe, crops_NSSC: Tensor, generator: Generator) -> None:
    rows = torch.randperm(len(crops_NSSC), generator=generator)[:REFIT_FACES]
    size_px = recipe.input_size_px(0)
    refit_batch_norm(net, (to_input(crops_NSSC[part], size_px=size_px) for part in torch.split(rows, 256)))
