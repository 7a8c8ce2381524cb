"""Labelled crops in memory, as a run holds them: what it fits on and what it selects on.

Shapes: N faces, S the crop's side, C channels, K classes, A attributes.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferserve.faces.preprocess import PreprocessSpec, whole_crop
from ferserve.training.data.catalog import parse_set
from ferserve.training.data.crops import data_sha256, make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import FaceSet
from ferserve.training.data.sets import Pictures
from ferserve.training.data.sources import READERS, read_source
from ferserve.training.held_out import cut_splits, fitted_rows
from ferserve.training.recipe import Recipe, TaskName

MIN_PICTURES: Final = 4
"""Of a person, for identities: one of them is held out."""
KINDS: Final[dict[TaskName, str]] = {
    "expressions": "expression",
    "identities": "identity",
    "attributes": "attributes",
}
"""What the labels of a data set must be for a task."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """N faces.

    Attributes:
        crops: uint8, shape (N, S, S, C).
        labels: int64; class indices, shape (N,), or 0 and 1 for each attribute, shape (N, A).
        votes: counts of votes for each class, float32, shape (N, K); zeros where nobody voted.
    """

    crops: Tensor
    labels: Tensor
    votes: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """K, or A."""
        return self.votes.shape[1]

    @classmethod
    def of_faces(cls, faces: FaceSet, spec: PreprocessSpec) -> Self:
        """FER-2013's faces through the one pixel path."""
        return cls(
            crops=torch.from_numpy(make_crops(faces, spec)),
            labels=torch.from_numpy(faces.labels),
            votes=torch.from_numpy(faces.votes),
        )

    @classmethod
    def of_pictures(cls, pictures: Pictures, spec: PreprocessSpec) -> Self:
        """Pictures of any data set, each a face already."""
        crops = np.stack([whole_crop(pictures.read(row), spec) for row in range(len(pictures))])
        return cls(
            crops=torch.from_numpy(crops),
            labels=torch.from_numpy(pictures.labels),
            votes=torch.zeros(len(pictures), len(pictures.classes)),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunData:
    """What a run is made from.

    Attributes:
        name: of the data set.
        sha256: of the faces that gradients come from.
        dropped: pictures that the run never sees, by reason.
    """

    name: str
    fit: Examples
    validation: Examples
    sha256: str
    dropped: dict[str, int]


def read_run_data(data: str, recipe: Recipe) -> RunData:
    """Read `NAME=DIR` and cut the validation split by the recipe; test pictures serve only to be left out.

    Raises:
        DataError: data of another kind than the recipe's task, no rows to train on, or a malformed data set.
    """
    if data.partition("=")[0] in READERS:
        return _read_fer2013(data, recipe)
    source = parse_set(data, option="--data")
    kind = source.data_set.description.kind
    if kind != KINDS[recipe.task]:
        raise DataError(
            f"--data: recipe {recipe.name} learns {recipe.task}, expected a data set of kind {KINDS[recipe.task]}, "
            f"{source.title} is of kind {kind}"
        )
    pictures = source.read()
    if recipe.task == "identities":
        pictures = _known_people(pictures)
    held = _held_out(pictures, recipe)
    fit, validation = pictures.take(~held), pictures.take(held)
    if not len(fit) or not len(validation):
        raise DataError(
            f"{source.title}: expected pictures to fit on and to select on, got {len(fit)}, {len(validation)}"
        )
    fit, spec = fit.take(fitted_rows(len(fit), recipe)), recipe.preprocess
    return RunData(
        name=source.title,
        fit=Examples.of_pictures(fit, spec),
        validation=Examples.of_pictures(validation, spec),
        sha256=fit.sha256(),
        dropped=pictures.dropped,
    )


def _read_fer2013(data: str, recipe: Recipe) -> RunData:
    if recipe.task != "expressions":
        raise DataError(f"--data: recipe {recipe.name} learns {recipe.task}, fer2013 has expressions")
    name, splits = read_source(data)
    if "train" not in splits:
        raise DataError(f"{name}: expected Training rows, found splits {', '.join(splits) or 'none'}")
    split = cut_splits(splits, recipe)
    fit = split.fit.take(fitted_rows(len(split.fit), recipe))
    return RunData(
        name=name,
        fit=Examples.of_faces(fit, recipe.preprocess),
        validation=Examples.of_faces(split.validation, recipe.preprocess),
        sha256=data_sha256(fit),
        dropped=split.dropped,
    )


def _known_people(pictures: Pictures) -> Pictures:
    """The people with enough pictures, numbered anew."""
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    kept = np.flatnonzero(counts >= MIN_PICTURES)
    number = np.full(len(counts), -1)
    number[kept] = np.arange(len(kept))
    rows = number[pictures.labels] >= 0
    taken = pictures.take(rows)
    return Pictures(
        names=taken.names,
        origins=taken.origins,
        labels=number[taken.labels],
        classes=tuple(pictures.classes[row] for row in kept),
        subjects=taken.subjects,
        splits=taken.splits,
        dropped=taken.dropped | {f"person_with_fewer_than_{MIN_PICTURES}_pictures": int((~rows).sum())},
    )


def _held_out(pictures: Pictures, recipe: Recipe) -> NDArray[np.bool_]:
    """Mask of the validation split: the owner's own if there is one; one picture a person for identities; else people.

    Where people are known, none is on both sides of a split of expressions or attributes.
    """
    named = np.asarray([split == "validation" for split in pictures.splits])
    if named.any():
        return named
    rng = np.random.default_rng(recipe.split_seed)
    order = rng.permutation(len(pictures))
    held = np.zeros(len(pictures), np.bool_)
    if recipe.task == "identities":
        _, first = np.unique(pictures.labels[order], return_index=True)
        held[order[first]] = True
        return held
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row in order.tolist():
        groups[pictures.names[row] if pictures.subjects is None else pictures.subjects[row]].append(row)
    for rows in groups.values():
        if held.sum() >= recipe.validation_share * len(pictures):
            break
        held[rows] = True
    return held
