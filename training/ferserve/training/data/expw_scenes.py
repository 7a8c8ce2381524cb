"""Web photos in ExpW's layout, with boxes and expressions of faces: `image/*.jpg` and `label.lst`.

A line of `label.lst` reads `name face_id top left right bottom confidence expression` (Zhang et al. 2018, From Facial
Expression Recognition to Interpersonal Relation Prediction). Expressions are numbered as ours: 0 angry, 1 disgust,
2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral; they are one annotator's, and noisy. Not every face is labelled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import read_image

NAME: Final = "expw_scenes"
_LINE: Final = "name face_id top left right bottom confidence expression"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photo:
    """One photo and its F labelled faces; others may be in it.

    Attributes:
        name: its file's name.
        labelled: boxes x0, y0, x1, y1 in pixels, float32, shape (F, 4).
        expressions: class indices of the boxes, int64, shape (F,).
    """

    name: str
    path: Path
    labelled: NDArray[np.float32]
    expressions: NDArray[np.int64]

    def read(self) -> Image:
        """Its pixels, RGB uint8.

        Raises:
            DataError: the file cannot be decoded.
        """
        return read_image(self.path)


def parse_photos(text: str, *, option: str) -> Path:
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


def read_photos(folder: Path) -> list[Photo]:
    """Read the list of photos, ordered by name; pixels are read when asked for.

    Raises:
        DataError: `label.lst` is missing or malformed (names the line), or a photo is missing.
    """
    path = folder / "label.lst"
    if not path.is_file():
        raise DataError(f"{folder}: expected label.lst and image/ as ExpW has them, found no label.lst")
    faces: dict[str, list[tuple[list[float], int]]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        name, box, expression = _parse_line(line, f"{path} line {number}")
        faces.setdefault(name, []).append((box, expression))
    photos = [
        Photo(
            name=name,
            path=folder / "image" / name,
            labelled=np.asarray([box for box, _ in rows], dtype=np.float32),
            expressions=np.asarray([expression for _, expression in rows], dtype=np.int64),
        )
        for name, rows in sorted(faces.items())
    ]
    missing = [photo.name for photo in photos if not photo.path.is_file()]
    if missing:
        raise DataError(f"{folder}/image: expected {missing[0]}, named in label.lst; {len(missing)} are missing")
    return photos


def _parse_line(line: str, where: str) -> tuple[str, list[float], int]:
    """Name, box and expression of a face."""
    fields = line.split()
    try:
        top, left, right, bottom = (float(field) for field in fields[2:6])
    except ValueError:
        fields = []
    if len(fields) != len(_LINE.split()):
        raise DataError(f"{where}: expected `{_LINE}`, got {line!r}")
    if fields[-1] not in {str(value) for value in range(NUM_EXPRESSIONS)}:
        raise DataError(f"{where}: expected an expression 0 to {NUM_EXPRESSIONS - 1}, got {line!r}")
    return fields[0], [left, top, right, bottom], int(fields[-1])
