"""The faces that an archive may be chosen or measured by: those that its own recipe kept out of the fit.

Shapes: N faces, S the crop's side, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.archive import Archive
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.data.crops import make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import FaceSet
from ferserve.training.data.sources import read_source
from ferserve.training.data.splits import TrainingSplit, cut_training
from ferserve.training.recipe import Recipe
from ferserve.training.recipes import RECIPES

SplitName = Literal["public", "train-validation"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Faces:
    """Crops (N, S, S, C) and their labels (N,)."""

    crops: NDArray[np.uint8]
    labels: NDArray[np.int64]


def recipe_of(archive: Archive, paths: Sequence[Path] = ()) -> Recipe:
    """The recipe that an archive was trained by: its split seed says which faces no gradient saw.

    Args:
        paths: `recipe.json` of runs, to look in beside this version's recipes.
    Raises:
        DataError: none has the hash that the archive holds.
    """
    expected = archive.manifest.recipe_sha256
    for recipe in [*(make() for make in RECIPES.values()), *(Recipe.read(path) for path in paths)]:
        if recipe.sha256 == expected:
            return recipe
    looked = " or ".join(["this version's recipes", *map(str, paths)])
    raise DataError(
        f"expected the recipe with SHA-256 {expected}, which {archive.path.name} was made by, not found in {looked}; "
        "--recipe names its run's recipe.json"
    )


def read_held_out(data: str, split: SplitName, recipe: Recipe) -> tuple[FaceSet, FaceSet, FaceSet]:
    """What a recipe fits on, its validation split, and the split to measure on.

    Args:
        data: `NAME=DIR` with Training rows, and PublicTest rows for that split.
    Raises:
        DataError: the data set has no such rows.
    """
    name, splits = read_source(data)
    for needed in ("train", *(() if split == "train-validation" else (split,))):
        if needed not in splits:
            raise DataError(f"{name}: expected rows of split {needed}, found splits {', '.join(splits)}")
    cut = cut_splits(splits, recipe)
    return cut.fit, cut.validation, cut.validation if split == "train-validation" else splits[split]


def cut_splits(splits: Mapping[str, FaceSet], recipe: Recipe) -> TrainingSplit:
    """Cut Training, which `splits` must hold, as a recipe's runs do."""
    tests = [faces for word, faces in splits.items() if word != "train"]
    return cut_training(splits["train"], tests, validation_share=recipe.validation_share, seed=recipe.split_seed)


def fitted_rows(count: int, recipe: Recipe) -> NDArray[np.int64]:
    """Which of `count` faces to fit on a recipe does fit on, in their order; all unless `fit_faces` says fewer.

    Raises:
        DataError: the recipe asks for more than there are.
    """
    if recipe.fit_faces > count:
        raise DataError(f"fit_faces: recipe {recipe.name} fits on {recipe.fit_faces} faces, the data set has {count}")
    if not recipe.fit_faces:
        return np.arange(count)
    return np.sort(np.random.default_rng(recipe.split_seed).permutation(count)[: recipe.fit_faces])


def crop_faces(faces: FaceSet, spec: PreprocessSpec) -> Faces:
    """Through the one pixel path."""
    return Faces(crops=make_crops(faces, spec), labels=faces.labels)
