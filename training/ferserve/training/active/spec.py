"""Whose crops a campaign is cut for."""

from pathlib import Path

from ferserve.faces.errors import ArchiveError
from ferserve.faces.index import open_archive
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.data.errors import DataError
from ferserve.training.recipe import Recipe
from ferserve.training.recipes import RECIPES


def crops_spec(name: str) -> PreprocessSpec:
    """The crops that a model takes: a run's folder, an archive by name or path, or a recipe by name.

    An archive's name goes before a recipe's, as in `mobilenet`: its crops are the same.

    Raises:
        DataError: none of the three.
    """
    if Path(name).is_dir():
        return Recipe.read(Path(name) / "recipe.json").preprocess
    try:
        return open_archive(name).manifest.preprocess
    except ArchiveError as error:
        if name in RECIPES:
            return RECIPES[name]().preprocess
        raise DataError(
            f"--crops-for: expected a run's folder, an archive, or a recipe of {', '.join(RECIPES)}, got {name!r}"
        ) from error
