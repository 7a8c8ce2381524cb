"""Web photos with an expression for each labelled face: ExpW's layout, read by `detector.photos`, and its last column.

ExpW (Zhang et al. 2018) numbers expressions as `EXPRESSIONS` does: 0 angry, 1 disgust, 2 fear, 3 happy, 4 sad,
5 surprise, 6 neutral. Its labels are one annotator's, and noisy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.data.errors import DataError
from ferserve.training.detector.photos import Photo, read_photos

NAME = "expw_scenes"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledScene:
    """One photo.

    Attributes:
        photo: its pixels and boxes.
        expressions: class indices of the boxes, int64, shape (F,).
    """

    photo: Photo
    expressions: NDArray[np.int64]


def parse_scenes(text: str, *, option: str) -> Path:
    """Read `expw_scenes=DIR`.

    Args:
        option: the flag that the error names.
    Raises:
        DataError: another form or name.
    """
    name, _, folder = text.partition("=")
    if name != NAME or not folder:
        raise DataError(f"{option}: expected {NAME}=DIR, got {text!r}")
    return Path(folder)


def read_scenes(folder: Path) -> list[LabelledScene]:
    """Read the photos, ordered by name, with the expressions of their faces.

    Raises:
        DataError: see `read_photos`, or an expression is none of the seven; names the line.
    """
    photos = read_photos(folder)
    path = folder / "label.lst"
    found: dict[str, list[int]] = {photo.name: [] for photo in photos}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        name, *_, expression = line.split()
        if expression not in {str(value) for value in range(NUM_EXPRESSIONS)}:
            raise DataError(f"{path} line {number}: expected an expression 0 to {NUM_EXPRESSIONS - 1}, got {line!r}")
        found[name].append(int(expression))
    return [LabelledScene(photo=photo, expressions=np.asarray(found[photo.name], np.int64)) for photo in photos]
