"""Labelled crops in memory, as a run holds them: what it fits on and what it selects on.

Shapes: N faces, S the crop's side, C channels, K classes, A attributes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from ferserve.training.losses.soft import UNLABELLED, asked_labels
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
        labels: int64; class indices or `UNLABELLED`, shape (N,), or 0 and 1 for each attribute, shape (N, A).
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

    def asked(self, recipe: Recipe) -> Tensor:
        """What a recipe's net is to say of each face, and is measured by: labels, or votes where those outweigh them.

        Attributes and identities have labels alone.
        """
        if recipe.task != "expressions" or not recipe.objective.vote_weight:
            return self.labels
        return asked_labels(self.labels, self.votes, vote_weight=recipe.objective.vote_weight)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        crops, labels, votes = (tensor.to(device) for tensor in (self.crops, self.labels, self.votes))
        return type(self)(crops=crops, labels=labels, votes=votes)

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
        return cls(
            crops=_whole_crops(pictures, spec),
            labels=torch.from_numpy(pictures.labels),
            votes=torch.zeros(len(pictures), len(pictures.classes)),
        )

    @classmethod
    def without_labels(cls, pictures: Pictures, spec: PreprocessSpec, *, num_classes: int) -> Self:
        """The same pictures for teachers to speak of, among `num_classes`."""
        return cls(
            crops=_whole_crops(pictures, spec),
            labels=torch.full((len(pictures),), UNLABELLED),
            votes=torch.zeros(len(pictures), num_classes),
        )

    def joined(self, others: Self) -> Self:
        """These faces and the others behind them."""
        crops, labels = torch.cat([self.crops, others.crops]), torch.cat([self.labels, others.labels])
        return type(self)(crops=crops, labels=labels, votes=torch.cat([self.votes, others.votes]))


def _whole_crops(pictures: Pictures, spec: PreprocessSpec) -> Tensor:
    return torch.from_numpy(np.stack([whole_crop(pictures.read(row), spec) for row in range(len(pictures))]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunData:
    """What a run is made from.

    Attributes:
        name: of the data set.
        sha256: of the labelled faces that gradients come from.
        dropped: pictures that the run never sees, by reason.
        unlabelled: data sets whose faces stand behind the labelled ones in `fit`, with the hash of each.
    """

    name: str
    fit: Examples
    validation: Examples
    sha256: str
    dropped: dict[str, int]
    unlabelled: dict[str, str] = field(default_factory=dict)


def read_run_data(data: str, recipe: Recipe, unlabelled: Sequence[str] = ()) -> RunData:
    """Read `NAME=DIR` and cut the validation split by the recipe; test pictures serve only to be left out.

    Args:
        unlabelled: `NAME=DIR` of each data set that the recipe looks at without its labels.
    Raises:
        DataError: data of another kind than the recipe's task, no rows to train on, a malformed data set, or others
            without labels than the recipe names.
    """
    named = sorted(text.partition("=")[0] for text in unlabelled)
    if named != sorted(recipe.unlabelled):
        raise DataError(
            f"--unlabelled: recipe {recipe.name} looks at {', '.join(recipe.unlabelled) or 'none'} without labels, got "
            f"{', '.join(named) or 'none'}"
        )
    read = _read_labelled(data, recipe)
    # In the recipe's order: a seed then means the same whatever the command line's.
    for text in sorted(unlabelled, key=lambda text: recipe.unlabelled.index(text.partition("=")[0])):
        source = parse_set(text, option="--unlabelled")
        pictures = source.read()
        fit = read.fit.joined(Examples.without_labels(pictures, recipe.preprocess, num_classes=read.fit.num_classes))
        read = replace(read, fit=fit, unlabelled=read.unlabelled | {source.title: pictures.sha256()})
    return read


def _read_labelled(data: str, recipe: Recipe) -> RunData:
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
