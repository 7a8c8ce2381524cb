"""Which pictures may be trained on: duplicates audited, the validation split cut from Training."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.fer2013 import NOT_A_FACE, FaceSet


def duplicates_of(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask of `images`, shape (N,): True where the same pixels stand in `others` too."""
    known = {image.tobytes() for image in others}
    return np.asarray([image.tobytes() in known for image in images], dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSplit:
    """What a run fits on and what it selects on; test pictures are in neither.

    Attributes:
        fit: the faces that gradients come from.
        validation: cut from Training; early stopping, temperature and thresholds are chosen on it.
        dropped: how many rows of Training were left out, by reason.
    """

    fit: FaceSet
    validation: FaceSet
    dropped: dict[str, int]


def cut_training(train: FaceSet, tests: list[FaceSet], *, validation_share: float, seed: int) -> TrainingSplit:
    """Cut a stratified validation split from FER-2013's Training rows.

    Pictures that also stand in a test split are dropped from both sides, and so are those that at least half of the
    FERPlus voters call no face. Pixel-identical pictures stay on one side.

    Args:
        validation_share: share of each class, 0 to 1.
    """
    in_test = np.zeros(len(train), np.bool_)
    for test in tests:
        in_test |= duplicates_of(train.images, test.images)
    total = train.raw_votes.sum(axis=1)
    faceless = (total > 0) & (2 * train.raw_votes[:, NOT_A_FACE] >= total) & ~in_test
    kept = train.take(~(in_test | faceless))
    validation = _stratified_groups(kept, validation_share, np.random.default_rng(seed))
    return TrainingSplit(
        fit=kept.take(~validation),
        validation=kept.take(validation),
        dropped={"duplicate_of_test": int(in_test.sum()), "not_a_face": int(faceless.sum())},
    )


def _stratified_groups(faces: FaceSet, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of about `share` of each class; identical pictures share their fate."""
    groups: dict[bytes, list[int]] = {}
    for row, image in enumerate(faces.images):
        groups.setdefault(image.tobytes(), []).append(row)
    members = list(groups.values())
    wanted = np.bincount(faces.labels) * share
    mask = np.zeros(len(faces), np.bool_)
    taken = np.zeros_like(wanted)
    for index in rng.permutation(len(members)):
        rows = members[index]
        label = faces.labels[rows[0]]
        if taken[label] + len(rows) <= wanted[label]:
            mask[rows] = True
            taken[label] += len(rows)
    return mask
