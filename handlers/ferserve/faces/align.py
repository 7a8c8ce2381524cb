"""From a face in a picture to a square crop: by its box, and upright by its landmarks.

Box and landmarks each say where the square lies; `cut_square` reads its pixels, whoever said it. Coordinates are
continuous (the origin is the top left *corner* of the top left pixel, so that pixel's centre is (0.5, 0.5)) and are
written as complex numbers x + iy: multiplying by one is a rotation and a scaling, which is all that alignment does.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.types import Box, Image, Landmarks

EYES_TO_MOUTH = 1.15
"""Length from between the eyes to between the mouth's corners over the distance of the eyes, in a frontal face."""
FRONTAL_FROM, PROFILE_BELOW = 0.75, 0.25
"""Apparent eye distance over the one expected from the eyes-to-mouth length. Turning by 40 degrees leaves cos 40 = 0.75
of it; up to there the eyes alone place the crop. Below 0.25 (75 degrees) their distance and slope are mostly noise."""
MIN_EYE_DISTANCE_PX = 1.0
"""Eyes closer than a pixel are no two points."""
SHRINK_KEEPS = 2
"""A large face is shrunk by a whole factor before it is sampled, but never below so many pixels a crop pixel."""


def resize(image: Image, size_px: tuple[int, int]) -> Image:
    """Bring a picture to a size: averaging areas along an axis that shrinks, linear along one that grows.

    Args:
        image: uint8, shape (H, W, 3).
        size_px: width and height to reach, both at least 1.
    Returns:
        uint8, shape (height, width, 3), never sharing memory with `image`; the same pixels if the size is the same.
    """
    height, width = image.shape[:2]
    # Shrinking comes first, on its own: OpenCV's area filter falls back to point samples if the other axis grows.
    shrunk = (min(width, size_px[0]), min(height, size_px[1]))
    out = image
    if shrunk != (width, height):
        out = np.asarray(cv2.resize(out, shrunk, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if shrunk != size_px:
        out = np.asarray(cv2.resize(out, size_px, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return np.array(out, order="C") if out is image else np.ascontiguousarray(out)


@dataclass(frozen=True, slots=True)
class Square:
    """A square in a picture, perhaps turned, perhaps reaching over its edges.

    Attributes:
        centre: in pixels of the picture.
        edge: the upper edge as a vector from left to right; its length is the side.
    """

    centre: complex
    edge: complex

    def scaled(self, factor: float) -> "Square":
        """The same square in a frame whose coordinates are `factor` times as large."""
        return Square(self.centre * factor, self.edge * factor)

    @property
    def corners(self) -> tuple[complex, complex, complex, complex]:
        """Top left, top right, bottom right and bottom left as the crop shows them."""
        top_left = self.centre - self.edge / 2 * (1 + 1j)
        return top_left, top_left + self.edge, top_left + self.edge * (1 + 1j), top_left + self.edge * 1j


def box_square(image: Image, box: Box, *, scale: float) -> Square:
    """The upright square around a box's centre.

    Args:
        image: shape (H, W, 3).
        box: pixels of `image`.
        scale: side of the square over the box's longer side.
    Raises:
        DegenerateFaceError: the box is empty, not finite or outside the picture.
    """
    side = scale * max(box.width_px, box.height_px)
    if not math.isfinite(side) or not (box.width_px > 0 and box.height_px > 0):
        raise DegenerateFaceError(f"expected a finite box with x0 < x1 and y0 < y1, got {box}")
    height, width = image.shape[:2]
    if not (box.x0 < width and box.y0 < height and box.x1 > 0 and box.y1 > 0):
        raise DegenerateFaceError(f"expected a box that meets the picture of {width} x {height} pixels, got {box}")
    return Square(complex(box.x0 + box.width_px / 2, box.y0 + box.height_px / 2), complex(side))


def landmark_square(landmarks: Landmarks, *, eye_y: float, eye_distance: float) -> Square:
    """The turned square in which the eyes sit on the template's, level and symmetrical about the middle.

    A face turned to the side shows its eyes close together; scaled by them alone the crop would show little but a
    cheek. There the direction and length from the eyes to the mouth take over, the more the further it is turned.

    Args:
        landmarks: pixels of the picture, shape (5, 2), order LANDMARKS.
        eye_y: height of the eye line, as a fraction of the side.
        eye_distance: distance of the eyes, as a fraction of the side.
    Raises:
        DegenerateFaceError: the landmarks are not finite, the eyes coincide, or mouth and eyes contradict each other.
    """
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise DegenerateFaceError(f"expected 5 finite landmarks (x, y), got {landmarks.tolist()}")
    right_eye, left_eye, _, right_mouth, left_mouth = (complex(x, y) for x, y in landmarks.tolist())
    eyes = (right_eye + left_eye) / 2
    edge = _face_axis(left_eye - right_eye, (right_mouth + left_mouth) / 2 - eyes) / eye_distance
    return Square(eyes + edge * 1j * (0.5 - eye_y), edge)


def between(box: Square, landmarks: Square) -> Square:
    """The square halfway between what a face's box and its landmarks say, turned as the landmarks say.

    They err apart from each other: together they place crops better than either (docs/adr/0014).
    """
    side = math.sqrt(abs(box.edge) * abs(landmarks.edge))
    return Square((box.centre + landmarks.centre) / 2, side * landmarks.edge / abs(landmarks.edge))


def cut_square(image: Image, square: Square, *, size_px: int) -> Image:
    """Bring a square of a picture to so many pixels; beyond the picture its edge pixels go on.

    Linear samples no more than one source pixel apart, averaged over each crop pixel: no aliasing at any scale.

    Args:
        image: RGB uint8, shape (H, W, 3).
        square: in pixels of `image`.
        size_px: S, the crop's side.
    Returns:
        RGB uint8, shape (S, S, 3), contiguous, not a view of `image`.
    Raises:
        DegenerateFaceError: the square lies outside the picture, or is many times larger.
    """
    return _sample(
        image, origin=square.centre - square.edge / 2 * (1 + 1j), step=square.edge / size_px, size_px=size_px
    )


def _face_axis(across: complex, down: complex) -> complex:
    """Vector from the right to the left eye as a frontal face with this size and tilt would show it."""
    if abs(across) < MIN_EYE_DISTANCE_PX:
        raise DegenerateFaceError(f"expected eyes at least {MIN_EYE_DISTANCE_PX:g} pixel apart, got {abs(across):.3g}")
    expected = down / (1j * EYES_TO_MOUTH)
    if abs(across) >= FRONTAL_FROM * abs(expected):
        return across
    turned = (FRONTAL_FROM - abs(across) / abs(expected)) / (FRONTAL_FROM - PROFILE_BELOW)
    weight = min(1.0, turned)
    axis = (1 - weight) * across + weight * expected
    if abs(axis) < MIN_EYE_DISTANCE_PX:
        raise DegenerateFaceError("expected the mouth below the eyes, got landmarks that contradict each other")
    return axis


def _sample(image: Image, *, origin: complex, step: complex, size_px: int) -> Image:
    """Read the square grid whose top left corner is `origin` and whose pixels are `step` wide and turned."""
    corners = [origin + step * size_px * corner for corner in (0, 1, 1j, 1 + 1j)]
    height, width = image.shape[:2]
    if not abs(step) <= max(width, height):
        limit = size_px * max(width, height)
        raise DegenerateFaceError(f"expected a face of at most {limit} pixels, got {abs(step) * size_px:g}")
    shrink = max(1, int(abs(step) / SHRINK_KEEPS))
    x0, x1 = _span([corner.real for corner in corners], width, shrink)
    y0, y1 = _span([corner.imag for corner in corners], height, shrink)
    region = image[y0:y1, x0:x1]
    if shrink > 1:
        region = resize(region, (math.ceil((x1 - x0) / shrink), math.ceil((y1 - y0) / shrink)))
    ratio_x, ratio_y = region.shape[1] / (x1 - x0), region.shape[0] / (y1 - y0)
    samples = max(1, math.ceil(abs(step) / shrink - 1e-6))
    fine = step / samples
    # From index to continuous coordinate is + 0.5, on either side of the map.
    first = origin - complex(x0, y0) + fine * complex(0.5, 0.5)
    to_region = np.array(
        [
            [fine.real * ratio_x, -fine.imag * ratio_x, first.real * ratio_x - 0.5],
            [fine.imag * ratio_y, fine.real * ratio_y, first.imag * ratio_y - 0.5],
        ]
    )
    grid = cv2.warpAffine(
        region,
        to_region,
        (size_px * samples, size_px * samples),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return resize(np.asarray(grid, dtype=np.uint8), (size_px, size_px))


def _span(ends: list[float], length_px: int, shrink: int) -> tuple[int, int]:
    """The part of one axis that the grid covers, with room for the filter, whole shrunken pixels where possible."""
    low, high = min(ends), max(ends)
    if not (low < length_px and high > 0):
        raise DegenerateFaceError(f"expected a face inside 0 to {length_px} pixels, got {low:g} to {high:g}")
    margin = 2 * shrink
    start = max(0, math.floor(low) - margin)
    blocks = math.ceil((high + margin - start) / shrink)
    return start, min(length_px, start + blocks * shrink)
