"""Web photos in ExpW's layout, and their split by photo: `image/*.jpg` and `label.lst`.

A line of `label.lst` reads `name face_id top left right bottom confidence expression` (Zhang et al. 2018, From Facial
Expression Recognition to Interpersonal Relation Prediction). Not every face of a photo is labelled.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError

SALT = "ferserve detector photos 1:"
"""Part of every hash that orders the photos: another salt is another split."""
_LINE = "name face_id top left right bottom confidence expression"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photo:
    """One photo.

    Attributes:
        name: its file's name, by which it is split.
        labelled: boxes x0, y0, x1, y1 in pixels, float32, shape (N, 4); faces may be missing.
    """

    name: str
    path: Path
    labelled: NDArray[np.float32]

    def read(self) -> Image:
        """Its pixels, RGB uint8.

        Raises:
            DataError: the file cannot be decoded.
        """
        return read_image(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSplit:
    """Photos by their use.

    Attributes:
        fit: views and backgrounds are taken from these.
        selection: the threshold is chosen on these.
        aside: for the final evaluation only.
    """

    fit: tuple[Photo, ...]
    selection: tuple[Photo, ...]
    aside: tuple[Photo, ...]


def read_image(path: Path) -> Image:
    """Decode a file to RGB uint8.

    Raises:
        DataError: it cannot be decoded.
    """
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(f"{path}: expected a picture that can be decoded")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_photos(folder: Path) -> list[Photo]:
    """Read the list of photos, ordered by name; pixels are read when asked for.

    Raises:
        DataError: `label.lst` is missing or malformed (names the line), or a photo is missing.
    """
    path = folder / "label.lst"
    if not path.is_file():
        raise DataError(f"{folder}: expected label.lst and image/ as ExpW has them, found no label.lst")
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fields = line.split()
        try:
            top, left, right, bottom = (float(field) for field in fields[2:6])
        except ValueError:
            fields = []
        if len(fields) != len(_LINE.split()):
            raise DataError(f"{path} line {number}: expected `{_LINE}`, got {line!r}")
        boxes.setdefault(fields[0], []).append((left, top, right, bottom))
    photos = [
        Photo(name=name, path=folder / "image" / name, labelled=np.asarray(rows, dtype=np.float32))
        for name, rows in sorted(boxes.items())
    ]
    missing = [photo.name for photo in photos if not photo.path.is_file()]
    if missing:
        raise DataError(f"{folder}/image: expected {missing[0]}, named in label.lst; {len(missing)} are missing")
    return photos


def split_photos(photos: list[Photo], *, aside: int, selection: int) -> PhotoSplit:
    """Split by a hash of each name, so that the order of files and any further photos move few of them.

    Args:
        aside, selection: how many photos each gets.
    Raises:
        DataError: nothing would be left to fit on.
    """
    if len(photos) <= aside + selection:
        raise DataError(f"expected more than {aside + selection} photos, got {len(photos)}")
    ordered = sorted(photos, key=lambda photo: hashlib.sha256((SALT + photo.name).encode()).hexdigest())
    return PhotoSplit(
        aside=tuple(ordered[:aside]),
        selection=tuple(ordered[aside : aside + selection]),
        fit=tuple(ordered[aside + selection :]),
    )
