"""FER-2013 (Goodfellow et al. 2013) in its official layout, with FERPlus's votes (Barsoum et al. 2016) where they are.

`fer2013.csv` has the columns `emotion,pixels,Usage`: a class 0 to 6 in `EXPRESSIONS`' order, 2,304 grey values with
blanks between them, and `Training`, `PublicTest` or `PrivateTest`. `fer2013new.csv` holds ten vote counts for each row
of the former, in the same order.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import NUM_EXPRESSIONS, Expression
from ferserve.training.data.errors import DataError

SIDE_PX: Final = 48
SPLITS: Final = {"train": "Training", "public": "PublicTest", "private": "PrivateTest"}
"""Our words for the csv's `Usage`."""
_FERPLUS_COLUMNS: Final = (
    Expression.NEUTRAL, Expression.HAPPY, Expression.SURPRISE, Expression.SAD,
    Expression.ANGRY, Expression.DISGUST, Expression.FEAR,
)  # fmt: skip
"""The first seven vote columns of fer2013new.csv as our classes; contempt, unknown and "not a face" follow."""
_NUM_VOTE_COLUMNS: Final = 10
NOT_A_FACE: Final = 9
"""Column of the raw votes that says the picture shows no face."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceSet:
    """Labelled crops of one split.

    Attributes:
        images: grey uint8, shape (N, 48, 48).
        labels: class indices, int64, shape (N,).
        votes: FERPlus counts for the seven classes, float32, shape (N, 7); zeros where there are none.
        raw_votes: all ten FERPlus counts in the file's order, int64, shape (N, 10).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    votes: NDArray[np.float32]
    raw_votes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "FaceSet":
        """The rows of an index or a mask, in its order."""
        return FaceSet(
            images=self.images[rows], labels=self.labels[rows], votes=self.votes[rows], raw_votes=self.raw_votes[rows]
        )


def read_fer2013(folder: Path) -> dict[str, FaceSet]:
    """Read a folder with `fer2013.csv` and, if it is there, `fer2013new.csv`.

    Returns:
        The splits that have rows, by our words (`train`, `public`, `private`).
    Raises:
        DataError: the csv is missing, or a row does not hold what the layout says; the message has the line number.
    """
    path = folder / "fer2013.csv"
    if not path.is_file():
        raise DataError(f"expected FER-2013's fer2013.csv in {folder}, found none")
    images, labels, usages = _read_pixels(path)
    raw_votes = _read_votes(folder / "fer2013new.csv", len(labels))
    whole = FaceSet(
        images=images,
        labels=labels,
        votes=_seven_class_votes(raw_votes),
        raw_votes=raw_votes,
    )
    masks = {word: np.asarray([usage == name for usage in usages]) for word, name in SPLITS.items()}
    return {word: whole.take(mask) for word, mask in masks.items() if mask.any()}


def _read_pixels(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    usages: list[str] = []
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if [name.strip() for name in header] != ["emotion", "pixels", "Usage"]:
            raise DataError(f"{path}: expected the header emotion,pixels,Usage, got {','.join(header)[:80]!r}")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            label, image, usage = _parse_row(row, where)
            images.append(image)
            labels.append(label)
            usages.append(usage)
    if not images:
        raise DataError(f"{path}: expected at least one row after the header, found none")
    return np.stack(images), np.asarray(labels, np.int64), usages


def _parse_row(row: list[str], where: str) -> tuple[int, NDArray[np.uint8], str]:
    if len(row) != len(("emotion", "pixels", "Usage")):
        raise DataError(f"{where}: expected 3 fields, got {len(row)}")
    label, pixels, usage = row
    if label not in {str(value) for value in range(NUM_EXPRESSIONS)}:
        raise DataError(f"{where}: expected an emotion 0 to {NUM_EXPRESSIONS - 1}, got {label[:20]!r}")
    if usage not in SPLITS.values():
        raise DataError(f"{where}: expected a Usage of {', '.join(SPLITS.values())}, got {usage[:20]!r}")
    try:
        values = [int(value) for value in pixels.split()]  # a quarter of the time that numpy takes for texts
    except ValueError as error:
        raise DataError(f"{where}: pixels are not all integers") from error
    if len(values) != SIDE_PX * SIDE_PX or min(values) < 0 or max(values) > np.iinfo(np.uint8).max:
        raise DataError(f"{where}: expected {SIDE_PX * SIDE_PX} pixels of 0 to 255, got {len(values)}")
    return int(label), np.array(values, dtype=np.uint8).reshape(SIDE_PX, SIDE_PX), usage


def _read_votes(path: Path, expected_rows: int) -> NDArray[np.int64]:
    if not path.is_file():
        return np.zeros((expected_rows, _NUM_VOTE_COLUMNS), np.int64)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    if len(rows) != expected_rows:
        raise DataError(f"{path}: expected {expected_rows} rows, one for each of fer2013.csv, got {len(rows)}")
    try:
        votes = np.asarray([row[-_NUM_VOTE_COLUMNS:] for row in rows], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{path}: expected {_NUM_VOTE_COLUMNS} vote counts in every row: {error}") from error
    return votes


def _seven_class_votes(raw_votes: NDArray[np.int64]) -> NDArray[np.float32]:
    votes = np.zeros((len(raw_votes), NUM_EXPRESSIONS), np.float32)
    for column, expression in enumerate(_FERPLUS_COLUMNS):
        votes[:, expression] = raw_votes[:, column]
    return votes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MajorityLabels:
    """FERPlus's majority among its voters, where it is one of our seven classes.

    Attributes:
        rows: mask of the faces that have such a majority, shape (N,).
        labels: class indices of those faces, shape (rows.sum(),).
        dropped: how many faces have none, by reason.
    """

    rows: NDArray[np.bool_]
    labels: NDArray[np.int64]
    dropped: dict[str, int]


def ferplus_majority(raw_votes: NDArray[np.int64]) -> MajorityLabels:
    """Read ten vote counts a face as one label; ties, contempt, unknown and "not a face" are dropped and counted.

    Args:
        raw_votes: counts in fer2013new.csv's column order, shape (N, 10).
    """
    top_N = raw_votes.argmax(axis=1)
    voted_N = raw_votes.sum(axis=1) > 0
    tied_N = voted_N & ((raw_votes == raw_votes.max(axis=1, keepdims=True)).sum(axis=1) > 1)
    seven_N = top_N < len(_FERPLUS_COLUMNS)
    rows_N = voted_N & ~tied_N & seven_N
    classes = np.asarray(_FERPLUS_COLUMNS, np.int64)
    return MajorityLabels(
        rows=rows_N,
        labels=classes[top_N[rows_N]],
        dropped={
            "no_votes": int((~voted_N).sum()),
            "tie": int(tied_N.sum()),
            "other_class": int((voted_N & ~tied_N & ~seven_N).sum()),
        },
    )
