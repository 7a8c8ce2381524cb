"""Single faces to paste into scenes: crops of three data sets in which the teacher is sure of exactly one face."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Image, Landmarks
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import read_image
from ferserve.training.detector.teacher import Teacher

SOURCES: Final = ("lfw", "expw_crops", "muxspace")
MIN_SCORE: Final = 0.8
"""The enlarged crop is an easy picture; what is not sure there is no face to learn from."""
OTHER_SCORE: Final = 0.3
_LOOK_AT_PX: Final = 208
_BORDER_PX: Final = 56
"""Crops are tight: with their edges continued the teacher sees a head in the middle of a picture of 320 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceCrop:
    """One face with its surroundings.

    Attributes:
        image: RGB uint8.
        box: x0, y0, x1, y1 in pixels of `image`, float32, shape (4,).
        landmarks: in pixels of `image`.
    """

    image: Image
    box: NDArray[np.float32]
    landmarks: Landmarks


def parse_sources(texts: Iterable[str]) -> dict[str, Path]:
    """Read `NAME=DIR` of each data set of faces.

    Raises:
        DataError: another form or name, or no folder there.
    """
    sources = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if name not in SOURCES or not folder or not Path(folder).is_dir():
            raise DataError(f"--faces: expected NAME=DIR with a NAME of {', '.join(SOURCES)}, got {text!r}")
        sources[name] = Path(folder)
    return sources


def verify(image: Image, teacher: Teacher) -> FaceCrop | None:
    """The crop with the box and landmarks that the teacher finds in it, enlarged; None if it is not one clear face."""
    side = image.shape[0]
    large = cv2.resize(image, (_LOOK_AT_PX, _LOOK_AT_PX), interpolation=cv2.INTER_LINEAR)
    border = (_BORDER_PX,) * 4
    seen = np.asarray(cv2.copyMakeBorder(large, *border, cv2.BORDER_REPLICATE), dtype=np.uint8)
    found = teacher.faces(seen, min_score=OTHER_SCORE)
    if len(found) != 1 or found.scores[0] < MIN_SCORE:
        return None
    back = side / _LOOK_AT_PX
    found = found.moved(x_px=-_BORDER_PX, y_px=-_BORDER_PX, scale_x=back, scale_y=back)
    box, landmarks = found.boxes[0], found.landmarks[0]
    # A little over the edge is a forehead cut off; more is a face of which too much is missing.
    if box.min() < -0.1 * side or box.max() > 1.1 * side or landmarks.min() < 0 or landmarks.max() > side:
        return None
    return FaceCrop(image=image, box=box, landmarks=landmarks)


def collect(
    sources: Mapping[str, Path],
    teacher: Teacher,
    *,
    per_source: int,
    seed: int,
    wanted: Callable[[Path], bool],
    workers: int,
) -> list[FaceCrop]:
    """Verified crops, the same ones in the same order for the same files.

    Args:
        per_source: files looked at in each data set.
        wanted: which files may be looked at; see `comes_from`.
        workers: threads.
    Raises:
        DataError: no usable face at all.
    """
    chosen: list[Path] = []
    for name, folder in sorted(sources.items()):
        paths = [path for path in sorted(folder.glob("*/*.jpg")) if wanted(path)]
        chosen += random.Random(f"{seed} {name}").sample(paths, min(per_source, len(paths)))  # noqa: S311 -- a draw
    with ThreadPoolExecutor(workers) as pool:
        looked_at = pool.map(lambda path: verify(_square(path), teacher), chosen)
        crops = [crop for crop in looked_at if crop is not None]
    if not crops:
        raise DataError(f"expected crops with one clear face in {', '.join(map(str, sources.values()))}, found none")
    return crops


def comes_from(path: Path, photos: Collection[str]) -> bool:
    """Whether a crop is of one of these photos: it has its name, or its name with the number of a further face.

    Args:
        photos: stems of the photos' file names.
    """
    return path.stem in photos or path.stem.rpartition("_")[0] in photos


def _square(path: Path) -> Image:
    image = read_image(path)
    side = min(image.shape[:2])
    return image[:side, :side]
