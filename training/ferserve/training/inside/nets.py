"""Nets to look into: a run's best weights, or an archive's, read back into torch."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ferserve.faces.archive import PROGRAM
from ferserve.faces.index import open_archive
from ferserve.training.data.errors import DataError
from ferserve.training.finish import load_best
from ferserve.training.held_out import recipe_of
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.registry import make_net
from ferserve.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedNet:
    """A net in eval mode.

    Attributes:
        name: of the archive, or of the run's recipe.
        sha256: of the archive's file; None of a run.
        recipe: what it was trained by, which says how faces are brought to it.
    """

    name: str
    sha256: str | None
    net: ExpressionNet
    recipe: Recipe


def open_net(name_or_path: str, *, recipes: Sequence[Path] = ()) -> OpenedNet:
    """A run by its folder, or an archive by name or path.

    An archive's norms lie in its convolutions: the net computes the same and cannot train on (see `load_folded`).

    Args:
        recipes: `recipe.json` files to know an archive's recipe by, beside this version's.
    Raises:
        ArchiveError: no such archive, one without a program, or an altered one.
        DataError: a run without weights, an archive of an unknown recipe, or one whose weights are another net's.
    """
    path = Path(name_or_path)
    if path.is_dir():
        recipe = Recipe.read(path / "recipe.json")
        return OpenedNet(name=recipe.name, sha256=None, net=load_best(path, recipe)[0], recipe=recipe)
    archive = open_archive(name_or_path)
    recipe = recipe_of(archive, recipes)
    program = torch.export.load(io.BytesIO(archive.read(PROGRAM)))
    state = {name.removeprefix("net."): value for name, value in program.state_dict.items() if name.startswith("net.")}
    net = make_net(recipe)
    net.eval()  # norms fold in eval mode only
    net.fold_norms()
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{archive.path.name}: expected the weights of {recipe.architecture}, got others") from error
    return OpenedNet(name=archive.manifest.name, sha256=archive.sha256, net=net, recipe=recipe)
