"""LFW (Huang et al. 2007): `Aaron_Peirsol/Aaron_Peirsol_0001.jpg`, and the 6,000 verification pairs in ten folds.

`pairs.txt` is the owner's: a line `10 300`, then for each fold 300 lines `NAME 1 4` (one person) and 300 lines
`NAME 1 OTHER 2` (two). `pairs.csv` says the same as `first,second,same,fold` with files.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.errors import DataError
from ferserve.training.data.identity_folders import read_identity_folders
from ferserve.training.data.sets import DataSet, Description, Pictures

DESCRIPTION: Final = Description(
    name="lfw",
    source="LFW (Huang, Ramesh, Berg, Learned-Miller 2007)",
    terms="research benchmark",
    kind="identity",
    layout="a folder a person with pictures in it, as Aaron_Peirsol/Aaron_Peirsol_0001.jpg",
    marker="[A-Z]*/[A-Z]*_0001.jpg",
    classes=(),
    subjects="the folder",
    may_ship=True,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """P pairs for verification.

    Attributes:
        first, second: rows of the pictures, int64, shape (P,).
        same: whether both show one person, shape (P,).
        fold: 0 to 9, shape (P,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]


def read_lfw(folder: Path) -> Pictures:
    """Read the pictures by person.

    Raises:
        DataError: see `read_identity_folders`.
    """
    return read_identity_folders(folder, DESCRIPTION)


def read_lfw_pairs(folder: Path, pictures: Pictures) -> Pairs:
    """Read the pairs of the folder that `pictures` were read from.

    Raises:
        DataError: neither list is there, a line is malformed, or a picture of a pair is missing; names the line.
    """
    rows = {name: row for row, name in enumerate(pictures.names)}
    if (folder / "pairs.csv").is_file():
        named = _read_csv(folder / "pairs.csv")
    elif (folder / "pairs.txt").is_file():
        named = _read_official(folder / "pairs.txt")
    else:
        raise DataError(f"{folder}: expected pairs.txt or pairs.csv beside the people's folders, found neither")
    for first, second, _, _, where in named:
        absent = [name for name in (first, second) if name not in rows]
        if absent:
            raise DataError(f"{where}: expected a picture {absent[0]}, found none; unpack LFW whole")
    return Pairs(
        first=np.asarray([rows[first] for first, _, _, _, _ in named], np.int64),
        second=np.asarray([rows[second] for _, second, _, _, _ in named], np.int64),
        same=np.asarray([same for _, _, same, _, _ in named], np.bool_),
        fold=np.asarray([fold for _, _, _, fold, _ in named], np.int64),
    )


_Named = tuple[str, str, bool, int, str]
"""First and second picture, whether they show one person, the fold, and the line that says so."""


def _read_csv(path: Path) -> list[_Named]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    named = []
    for number, row in enumerate(rows[1:], start=2):
        where = f"{path}, line {number}"
        if len(row) != 4 or row[2] not in {"0", "1"} or not row[3].isdecimal():
            raise DataError(f"{where}: expected first,second,same,fold, got {','.join(row)[:80]!r}")
        named.append((row[0], row[1], row[2] == "1", int(row[3]), where))
    return named


def _read_official(path: Path) -> list[_Named]:
    lines = path.read_text().splitlines()
    head = lines[0].split() if lines else []
    if len(head) != 2 or not all(word.isdecimal() for word in head):
        raise DataError(f"{path}, line 1: expected the numbers of folds and of pairs, as `10 300`, got {lines[:1]}")
    folds, pairs = map(int, head)
    if len(lines) != 1 + 2 * folds * pairs:
        raise DataError(f"{path}: expected {2 * folds * pairs} pairs, as line 1 says, got {len(lines) - 1}")
    return [
        _parse(line, (number - 2) // (2 * pairs), f"{path}, line {number}") for number, line in enumerate(lines[1:], 2)
    ]


def _parse(line: str, fold: int, where: str) -> _Named:
    words = line.split()
    if len(words) == 3 and all(word.isdecimal() for word in words[1:]):
        words = [words[0], words[1], words[0], words[2]]
        return _file(words[0], words[1]), _file(words[2], words[3]), True, fold, where
    if len(words) == 4 and words[1].isdecimal() and words[3].isdecimal():
        return _file(words[0], words[1]), _file(words[2], words[3]), False, fold, where
    raise DataError(f"{where}: expected `NAME 1 4` or `NAME 1 OTHER 2`, got {line[:80]!r}")


def _file(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"


LFW: Final = DataSet(description=DESCRIPTION, read=read_lfw)
