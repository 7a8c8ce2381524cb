"""Photo-like scenes around the pictures of a data set of faces, so that a whole server's path can be tried on them.

FER-2013's pictures are tight: the head fills the 48 x 48 pixels, hair and chin often reach over the edge. Each stands
whole in its scene, as a *tile*; the soft edge lies outside of it, where its outermost pixels go on and fade away.
Scenes are grey like the faces, as in a black-and-white photo.

Shapes: N faces of a split, F faces of a scene.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import Photo
from ferserve.training.detector.backgrounds import background
from ferserve.training.detector.geometry import overlaps

FADE: Final = 0.25
"""Width of the soft edge over the tile's side."""
CLEARANCE: Final = 0.3
"""No tile comes nearer to a labelled face of a photo than this part of its size: hair and chin belong to it."""
TRIES: Final = 30
"""Random places looked at before a face waits for the next scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSettings:
    """How scenes are made.

    Attributes:
        seed: the same seed, faces and photos give the same bytes.
        faces_per_scene: at most.
        min_side_px, max_side_px: of a tile; its logarithm is drawn evenly.
        width_px, height_px: of a made-up background; photos keep their own size.
        jpeg_quality: 1 to 100.
    """

    seed: int = 1
    faces_per_scene: int = 4
    min_side_px: int = 40
    max_side_px: int = 160
    width_px: int = 640
    height_px: int = 480
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if self.faces_per_scene < 1:
            raise ValueError(f"faces_per_scene must be at least 1, got {self.faces_per_scene}")
        if not 8 <= self.min_side_px <= self.max_side_px:
            raise ValueError(
                f"min_side_px must be 8 to max_side_px ({self.max_side_px}), got {self.min_side_px}: smaller is no face"
            )
        with_edge = _reserved_px(self.max_side_px)
        for name in ("width_px", "height_px"):
            if getattr(self, name) < with_edge:
                raise ValueError(f"{name} must be at least {with_edge} for the largest tile, got {getattr(self, name)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be 1 to 100, got {self.jpeg_quality}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComposedScene:
    """One scene.

    Attributes:
        jpeg: the encoded picture.
        tiles: where the faces stand: x0, y0, x1, y1 in pixels, float32, shape (F, 4); they never overlap.
        rows: which face of the split each is, int64, shape (F,).
    """

    jpeg: bytes
    tiles: NDArray[np.float32]
    rows: NDArray[np.int64]


def compose(
    images: NDArray[np.uint8], settings: SceneSettings, photos: Sequence[Photo] = ()
) -> Iterator[ComposedScene]:
    """Put every face into exactly one scene.

    Args:
        images: grey, uint8, shape (N, 48, 48).
        photos: backgrounds; a made-up one for each scene without any. Tiles keep clear of their labelled faces.
    Raises:
        DataError: no photo has room for some face.
    """
    rng = np.random.default_rng(settings.seed)
    low, high = np.log([settings.min_side_px, settings.max_side_px])
    sides_px = np.exp(rng.uniform(low, high, len(images))).round().astype(int)
    waiting = rng.permutation(len(images)).tolist()
    order = rng.permutation(len(photos)).tolist()
    number = full_in_turn = 0
    while waiting:
        photo = photos[order[number % len(order)]] if order else None
        canvas = _Canvas.start(photo, np.random.default_rng([settings.seed, number]), settings)
        for row in waiting[: 2 * settings.faces_per_scene]:
            if len(canvas.rows) < settings.faces_per_scene:
                canvas.place(row, images[row], int(sides_px[row]))
        number += 1
        if canvas.rows:
            full_in_turn = 0
            waiting = [row for row in waiting if row not in canvas.rows]
            yield canvas.encoded(settings.jpeg_quality)
            continue
        full_in_turn += 1
        if full_in_turn > len(photos):
            side = min(_reserved_px(int(sides_px[row])) for row in waiting[: 2 * settings.faces_per_scene])
            raise DataError(f"backgrounds: expected room for {side} x {side} pixels beside the faces of some photo")


def _edge_px(side_px: int) -> int:
    return max(1, round(FADE * side_px))


def _reserved_px(side_px: int) -> int:
    return side_px + 2 * _edge_px(side_px)


class _Canvas:
    """A scene under construction."""

    def __init__(self, picture: NDArray[np.uint8], taken: NDArray[np.float32], rng: Generator) -> None:
        self._picture = picture
        self._taken = taken
        self._rng = rng
        self.rows: list[int] = []
        self._tiles: list[tuple[int, int, int, int]] = []

    @classmethod
    def start(cls, photo: Photo | None, rng: Generator, settings: SceneSettings) -> "_Canvas":
        if photo is None:
            drawn = background((), rng, height_px=settings.height_px, width_px=settings.width_px)
            return cls(_grey(drawn), np.zeros((0, 4), np.float32), rng)
        size = np.tile(photo.labelled[:, 2:] - photo.labelled[:, :2], 2)
        taken = photo.labelled + CLEARANCE * size * np.array([-1, -1, 1, 1], np.float32)
        return cls(_grey(photo.read()), taken.astype(np.float32), rng)

    def place(self, row: int, image: NDArray[np.uint8], side_px: int) -> None:
        """Paste a face at a free place, if a few tries find one."""
        edge, whole = _edge_px(side_px), _reserved_px(side_px)
        height, width = self._picture.shape
        if whole > min(height, width):
            return
        for _ in range(TRIES):
            x, y = (int(self._rng.integers(0, length - whole + 1)) for length in (width, height))
            area = np.array([[x, y, x + whole, y + whole]], np.float32)
            if not overlaps(area, self._taken).any():
                self._picture[y : y + whole, x : x + whole] = _pasted(
                    self._picture[y : y + whole, x : x + whole], image, side_px
                )
                self._taken = np.concatenate((self._taken, area))
                self._tiles.append((x + edge, y + edge, x + edge + side_px, y + edge + side_px))
                self.rows.append(row)
                return

    def encoded(self, quality: int) -> ComposedScene:
        done, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(self._picture, cv2.COLOR_GRAY2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        if not done:
            raise RuntimeError("OpenCV could not encode a scene as JPEG")
        return ComposedScene(
            jpeg=jpeg.tobytes(),
            tiles=np.asarray(self._tiles, np.float32),
            rows=np.asarray(self.rows, np.int64),
        )


def _pasted(region: NDArray[np.uint8], image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """A face over a part of a picture: whole on its tile, fading over the edge around it."""
    edge = _edge_px(side_px)
    # Cubic blurs least of the cheap filters where a face grows; where it shrinks areas keep it from aliasing.
    way = cv2.INTER_CUBIC if side_px > image.shape[0] else cv2.INTER_AREA
    tile = cv2.resize(image, (side_px, side_px), interpolation=way)
    wide = cv2.copyMakeBorder(tile, edge, edge, edge, edge, cv2.BORDER_REPLICATE).astype(np.float32)
    steps = np.arange(edge, 0, -1, dtype=np.float32) / (edge + 1)
    ramp = np.concatenate((1 - steps, np.ones(side_px, np.float32), 1 - steps[::-1]))
    weight = np.minimum(ramp[:, None], ramp[None])
    return np.asarray((region + (wide - region) * weight + 0.5).clip(0, 255), dtype=np.uint8)


def _grey(image: Image) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
