"""Which pictures a small set is fitted on and which it is tested on.

By default no person is on both sides. The papers split frames at random: S4 (Miao et al. 2019) shuffles the pictures
into five groups, S3 draws 1,400, 200 and 275 of 1,875 frames. Frames of one sequence then fall on both sides, and what
is measured is memory for people (see docs/adr/0035). Both ways are here, each the same for the same seed.

Shapes: N pictures, K classes, G groups.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.errors import DataError
from ferserve.training.data.sets import Pictures

Protocol = Literal["subjects", "frames", "leave-one-out"]
"""Groups of people (the default), groups of pictures as the papers have them, or each person in turn."""
GROUPS: Final = 5


def cut_folds(
    pictures: Pictures, protocol: Protocol = "subjects", *, seed: int, groups: int = GROUPS
) -> NDArray[np.int64]:
    """Number the group that each picture is tested in, shape (N,); the others are what its test is fitted on.

    Args:
        seed: of the shuffle; `leave-one-out` needs none.
        groups: how many; `leave-one-out` has as many as people.
    Raises:
        DataError: people are not known but needed, or there are fewer people or pictures than groups.
    """
    if protocol == "frames":
        _enough(len(pictures), groups, "pictures")
        order = np.random.default_rng(seed).permutation(len(pictures))
        folds = np.empty(len(pictures), np.int64)
        folds[order] = np.arange(len(pictures)) % groups
        return folds
    people = _people(pictures)
    names = sorted(set(people))
    if protocol == "leave-one-out":
        _enough(len(names), 2, "people")
        return np.asarray([names.index(name) for name in people], np.int64)
    _enough(len(names), groups, "people")
    return _balanced(people, pictures.labels, np.full(groups, 1 / groups), seed)


def cut_parts(
    pictures: Pictures, sizes: Sequence[int], protocol: Protocol = "subjects", *, seed: int
) -> list[NDArray[np.int64]]:
    """Cut into parts such as fit, test and validation; S3's are 1,400, 200 and 275.

    Args:
        sizes: pictures of each part for `frames`; for `subjects` parts come as near to these shares as people allow.
    Returns:
        Rows of each part, ascending.
    Raises:
        DataError: more pictures are asked for than there are, or people are not known but needed.
        ValueError: `leave-one-out` has no parts.
    """
    if protocol == "leave-one-out":
        raise ValueError("expected subjects or frames for parts, got leave-one-out")
    if protocol == "frames":
        _enough(len(pictures), sum(sizes), "pictures")
        order = np.random.default_rng(seed).permutation(len(pictures))
        return [np.sort(part) for part in np.split(order, np.cumsum(sizes))[: len(sizes)]]
    people = _people(pictures)
    _enough(len(set(people)), len(sizes), "people")
    folds = _balanced(people, pictures.labels, np.asarray(sizes) / sum(sizes), seed)
    return [np.flatnonzero(folds == part) for part in range(len(sizes))]


def _enough(there: int, needed: int, what: str) -> None:
    if there < needed or needed < 1:
        raise DataError(f"expected at least {max(needed, 1)} {what} to cut, got {there}; ask for fewer groups")


def _people(pictures: Pictures) -> tuple[str, ...]:
    if pictures.subjects is None:
        raise DataError(
            "expected a data set that tells people apart, this one does not; the protocol `frames` needs none, but its "
            "figure may be one of memory for faces"
        )
    return pictures.subjects


def _balanced(
    people: Sequence[str], labels: NDArray[np.int64], shares_G: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Deal people out, most pictures first, each to the group that it brings nearest to its share of the classes."""
    names = sorted(set(people))
    person_N = np.asarray([names.index(name) for name in people])
    counts_PK = np.zeros((len(names), int(labels.max()) + 2))
    np.add.at(counts_PK, (person_N, labels), 1)
    counts_PK[:, -1] = counts_PK.sum(axis=1)  # the size of a group counts as one class more
    wanted_GK = shares_G[:, None] * counts_PK.sum(axis=0)
    held_GK = np.zeros_like(wanted_GK)
    group_P = np.zeros(len(names), np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    scale_K = np.maximum(counts_PK.sum(axis=0), 1)
    for person in shuffled[np.argsort(-counts_PK[shuffled].sum(axis=1), kind="stable")]:
        before_G = np.square((held_GK - wanted_GK) / scale_K).sum(axis=1)
        after_G = np.square((held_GK + counts_PK[person] - wanted_GK) / scale_K).sum(axis=1)
        group_P[person] = int(np.argmin(after_G - before_G))
        held_GK[group_P[person]] += counts_PK[person]
    folds: NDArray[np.int64] = group_P[person_N]
    return folds
