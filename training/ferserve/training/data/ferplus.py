"""FERPlus (Barsoum et al. 2016): ten voters' counts for the pictures of FER-2013, read by their majority.

Two layouts: `fer2013.csv` beside `fer2013new.csv`, and what FERPlus's own script makes of them, folders `FER2013Train`,
`FER2013Valid`, `FER2013Test`, each with `label.csv` (`fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0`; some
copies have no box) and the pictures. Vote columns: neutral, happiness, surprise, sadness, anger, disgust, fear,
contempt, unknown, not a face. Ties, unknown and "not a face" have no class here and are counted in `dropped`.
"""

import csv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import Expression
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import SPLITS as FER2013_SPLITS
from ferserve.training.data.fer2013 import read_fer2013
from ferserve.training.data.sets import CLASSES, CONTEMPT, DataSet, Description, Origin, Pictures, layout_error

_COLUMNS: Final = (
    Expression.NEUTRAL, Expression.HAPPY, Expression.SURPRISE, Expression.SAD,
    Expression.ANGRY, Expression.DISGUST, Expression.FEAR, CONTEMPT,
)  # fmt: skip
"""Our class of each vote column; unknown and "not a face" follow."""
_VOTES: Final = 10
_FOLDERS: Final = {"FER2013Train": "train", "FER2013Valid": "public", "FER2013Test": "private"}
DESCRIPTION: Final = Description(
    name="ferplus",
    source="FERPlus (Barsoum, Zhang, Ferrer, Zhang 2016)",
    terms="labels MIT, pictures FER-2013's (research use)",
    kind="expression",
    layout="fer2013.csv beside fer2013new.csv, or FER2013Train/label.csv with its pictures",
    marker="FER2013*/label.csv",
    classes=CLASSES,
    subjects="not known",
    may_ship=True,
)


def read_ferplus(folder: Path) -> Pictures:
    """Read the pictures whose votes have a majority among the eight expressions.

    Raises:
        DataError: neither layout, a malformed row (names the line), or a missing picture.
    """
    if (folder / "fer2013new.csv").is_file():
        return _from_csv(folder)
    names: list[str] = []
    splits: list[str] = []
    votes: list[list[int]] = []
    for part, word in _FOLDERS.items():
        if (folder / part / "label.csv").is_file():
            for name, counts in _read_labels(folder / part / "label.csv"):
                names.append(f"{part}/{name}")
                splits.append(word)
                votes.append(counts)
    if not names:
        raise layout_error(DESCRIPTION, folder, "neither fer2013new.csv nor FER2013Train/label.csv")
    return _by_majority(names, [folder / name for name in names], splits, np.asarray(votes, np.int64))


def _from_csv(folder: Path) -> Pictures:
    names: list[str] = []
    origins: list[Origin] = []
    splits: list[str] = []
    votes: list[NDArray[np.int64]] = []
    for word, faces in read_fer2013(folder).items():
        names += [f"{FER2013_SPLITS[word]} {number}" for number in range(len(faces))]
        origins += list(faces.images)
        splits += [word] * len(faces)
        votes.append(faces.raw_votes)
    return _by_majority(names, origins, splits, np.concatenate(votes))


def _read_labels(path: Path) -> list[tuple[str, list[int]]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    found = []
    for number, row in enumerate(rows, start=1):
        counts = row[-_VOTES:]
        if len(row) not in {_VOTES + 1, _VOTES + 2} or not all(count.strip().isdecimal() for count in counts):
            raise DataError(
                f"{path}, line {number}: expected a file's name, a box or none, and {_VOTES} counts, "
                f"got {','.join(row)[:80]!r}"
            )
        if not (path.parent / row[0]).is_file():
            raise DataError(
                f"{path}, line {number}: expected a picture {row[0]!r} beside it, found none; FERPlus's "
                "generate_training_data.py writes them from fer2013.csv"
            )
        found.append((row[0], [int(count) for count in counts]))
    return found


def _by_majority(
    names: list[str], origins: list[Path] | list[Origin], splits: list[str], votes: NDArray[np.int64]
) -> Pictures:
    """The pictures with a class, the others counted."""
    top = votes.argmax(axis=1)
    voted = votes.sum(axis=1) > 0
    tied = voted & ((votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1)
    named = top < len(_COLUMNS)
    rows = np.flatnonzero(voted & ~tied & named)
    return Pictures(
        names=tuple(names[row] for row in rows),
        origins=tuple(origins[row] for row in rows),
        labels=np.asarray(_COLUMNS, np.int64)[top[rows]],
        classes=CLASSES,
        subjects=None,
        splits=tuple(splits[row] for row in rows),
        dropped={
            "no_votes": int((~voted).sum()),
            "tie": int(tied.sum()),
            "unknown_or_not_a_face": int((voted & ~tied & ~named).sum()),
        },
    )


FERPLUS: Final = DataSet(description=DESCRIPTION, read=read_ferplus)
