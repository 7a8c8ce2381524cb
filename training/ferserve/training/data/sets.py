"""What every data set gives: a description of itself, and its pictures, whose pixels are read when asked for.

Shapes: N pictures, A attributes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import LABELS, NUM_EXPRESSIONS
from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import read_image

CLASSES: Final = (*LABELS, "contempt")
"""Expressions of every data set, in one order: our seven, and CK+'s and FERPlus's eighth behind them."""
CONTEMPT: Final = NUM_EXPRESSIONS
WHOLE: Final = "all"
"""The split of a data set that its owner did not split."""
Origin = Path | NDArray[np.uint8]
"""Where a picture comes from: a file, or grey pixels (H, W) where the owner's file holds many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A data set as it describes itself.

    Attributes:
        name: what the command line calls it, as in `--data NAME=DIR`.
        source: who published it, and where.
        terms: under what terms it may be used.
        kind: what its labels are.
        layout: the owner's layout in one line; errors quote it.
        marker: a glob below the folder that a folder in this layout matches.
        classes: the labels it may hold; empty where the folder tells (people).
        cropped: whether its pictures are faces already, rather than pictures in which a face has to be found.
        subjects: how a picture's person is known, or that it is not.
        may_ship: whether, by the project's rule, an archive that learnt from it may ship.
    """

    name: str
    source: str
    terms: str
    kind: Literal["expression", "identity", "attributes"]
    layout: str
    marker: str
    classes: tuple[str, ...]
    subjects: str
    may_ship: bool
    cropped: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """N labelled pictures in an order that depends on the files alone.

    Attributes:
        names: of the pictures; file names relative to the folder, or the line of the owner's file.
        origins: where their pixels are.
        labels: int64; an index into `classes`, shape (N,), or 0 and 1 for each of them, shape (N, A).
        classes: what the labels number; `CLASSES` for every data set of expressions.
        subjects: of each picture, or None where the layout does not tell.
        splits: the owner's word for the part that each picture is in, `WHOLE` where there are no parts.
        dropped: pictures that have no label of these, by reason.
    """

    names: tuple[str, ...]
    origins: tuple[Origin, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    subjects: tuple[str, ...] | None
    splits: tuple[str, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> Image:
        """Pixels of a picture, RGB uint8, shape (H, W, 3).

        Raises:
            DataError: its file cannot be decoded.
        """
        origin = self.origins[row]
        return read_image(origin) if isinstance(origin, Path) else np.repeat(origin[:, :, None], 3, axis=2)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Pictures":
        """The rows of an index or a mask, in its order."""
        index = np.arange(len(self))[rows].tolist()
        return Pictures(
            names=tuple(self.names[row] for row in index),
            origins=tuple(self.origins[row] for row in index),
            labels=self.labels[rows],
            classes=self.classes,
            subjects=None if self.subjects is None else tuple(self.subjects[row] for row in index),
            splits=tuple(self.splits[row] for row in index),
            dropped=dict(self.dropped),
        )

    def part(self, split: str) -> "Pictures":
        """The pictures of one of the owner's splits, or all of them by `WHOLE`.

        Raises:
            DataError: no such split; the message lists the others.
        """
        if split == WHOLE:
            return self
        found = sorted(set(self.splits))
        if split not in found:
            raise DataError(f"expected pictures of split {split}, found splits {', '.join(found)}")
        return self.take(np.asarray([own == split for own in self.splits], dtype=np.bool_))

    def counts(self) -> dict[str, int]:
        """How many pictures each class has, classes without any left out."""
        many = self.labels.ndim > 1
        held = self.labels.sum(axis=0) if many else np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, held, strict=True) if count}

    def sha256(self) -> str:
        """Hash of names, labels and files (or pixels), 64 hex digits: the same data give the same hash anywhere."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels).tobytes())
        for name, origin in zip(self.names, self.origins, strict=True):
            content = origin.read_bytes() if isinstance(origin, Path) else origin.tobytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What the catalog lists: a description, and how a folder in that layout is read.

    `read` raises `DataError` where the folder is not in the layout: what was expected, what came, what to do next.
    """

    description: Description
    read: Callable[[Path], Pictures]


def layout_error(description: Description, folder: Path, found: str) -> DataError:
    """The error for a folder that is not in a data set's layout.

    Args:
        found: what is there instead.
    """
    return DataError(
        f"{folder}: expected {description.layout}, found {found}; unpack {description.source} there, or point "
        f"{description.name}=DIR at the folder that holds it"
    )
