"""A picture under construction: faces are pasted into it and their boxes and landmarks are known exactly."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ferserve.faces.types import Image
from ferserve.training.detector.crops import FaceCrop
from ferserve.training.detector.geometry import MIRRORED, moved_points, turned_boxes

HIDDEN_SHARE = 0.35
"""A face of whose box more is covered is ignored: nobody could say where its landmarks are."""
SHRINK_FIRST = 0.7
"""Below this scale a crop is averaged down before it is sampled, against aliasing."""
MASK_SIDE = 32
"""Masks are soft: they are drawn small and enlarged, which is ten times faster than blurring large ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and how a face is pasted.

    Attributes:
        x_px, y_px: of the box's centre.
        size_px: the longer side of the upright box.
        angle_deg: clockwise.
        mask: `oval` cuts the head out; `card` keeps the crop's surroundings.
    """

    x_px: float
    y_px: float
    size_px: float
    angle_deg: float
    mirror: bool
    mask: Literal["oval", "card"]


class Scene:
    """Pixels and faces.

    Attributes:
        image: RGB uint8, shape (H, W, 3).
        boxes: float32, shape (F, 4), in pixels.
        landmarks: float32, shape (F, 5, 2).
        exact: whether box and landmarks may be learnt, shape (F,); the others are ignored: cut by the picture's edge,
            too small, or hidden; also those that a scene begins with, if it is told so.
    """

    def __init__(
        self,
        image: Image,
        *,
        min_exact_px: float,
        boxes: NDArray[np.float32] | None = None,
        landmarks: NDArray[np.float32] | None = None,
        exact: bool = True,
    ) -> None:
        self.image = image
        self._min_exact_px = min_exact_px
        self.boxes = np.zeros((0, 4), np.float32) if boxes is None else boxes
        self.landmarks = np.zeros((0, 5, 2), np.float32) if landmarks is None else landmarks
        self._hidden = np.full(len(self.boxes), 0.0 if exact else 1.0, np.float32)

    @property
    def exact(self) -> NDArray[np.bool_]:
        """See the class."""
        height, width = self.image.shape[:2]
        inside = (self.boxes[:, :2] >= 0).all(axis=1) & (self.boxes[:, 2:] <= (width, height)).all(axis=1)
        large = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1, initial=0) >= self._min_exact_px
        return np.asarray(inside & large & (self._hidden <= HIDDEN_SHARE), dtype=np.bool_)

    def paste(self, crop: FaceCrop, placement: Placement, *, gain: NDArray[np.float32] | None = None) -> None:
        """Paste a face; what it covers of earlier ones is hidden.

        Args:
            gain: each channel of the crop is multiplied by it, shape (3,).
        """
        crop = _mirrored(crop) if placement.mirror else crop
        matrix = _placing(crop, placement)
        mask = _oval(crop) if placement.mask == "oval" else _card(*crop.image.shape[1::-1])
        shade = crop.image if gain is None else (crop.image * gain).clip(0, 255).astype(np.uint8)
        self._blend(shade, mask, matrix)
        self.boxes = np.concatenate((self.boxes, turned_boxes(crop.box[None], matrix)))
        self.landmarks = np.concatenate((self.landmarks, moved_points(crop.landmarks, matrix)[None]))
        self._hidden = np.append(self._hidden, np.float32(0))

    def cover(self, corners: NDArray[np.float64], pixels: Image) -> None:
        """Lay something before the faces.

        Args:
            corners: of a quadrilateral, clockwise from its top left, shape (4, 2).
            pixels: what fills it, RGB uint8.
        """
        height, width = pixels.shape[:2]
        source = np.array([[0, 0], [width, 0], [0, height]], dtype=np.float32)
        target = corners[[0, 1, 3]].astype(np.float32)
        matrix = np.asarray(cv2.getAffineTransform(source, target), dtype=np.float64)
        self._blend(pixels, np.full((height, width), 255, np.uint8), matrix)

    def _blend(self, pixels: Image, mask: NDArray[np.uint8], matrix: NDArray[np.float64]) -> None:
        height, width = self.image.shape[:2]
        scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
        if scale < SHRINK_FIRST:
            size = tuple(max(2, round(side * scale)) for side in pixels.shape[1::-1])
            ratio = np.array([pixels.shape[1] / size[0], pixels.shape[0] / size[1]])
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            matrix = np.concatenate((matrix[:, :2] * ratio, matrix[:, 2:]), axis=1)
        rows, columns = pixels.shape[:2]
        corners = moved_points(np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]], np.float32), matrix)
        x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0, (width, height)).tolist()
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int).clip(0, (width, height)).tolist()
        if x0 >= x1 or y0 >= y1:
            return
        local = matrix.copy()
        # Indices are continuous coordinates less a half, on either side of the map.
        local[:, 2] += local[:, :2] @ (0.5, 0.5) - (x0 + 0.5, y0 + 0.5)
        size = (x1 - x0, y1 - y0)
        warped = cv2.warpAffine(pixels, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(mask, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        region = self.image[y0:y1, x0:x1]
        weight = np.asarray(alpha, np.float32)[:, :, None] / 255
        region[:] = (region + (np.asarray(warped, np.float32) - region) * weight + 0.5).astype(np.uint8)
        self._hide(np.asarray(alpha, np.uint8), x0, y0)

    def _hide(self, alpha: NDArray[np.uint8], x0: int, y0: int) -> None:
        """Add to each face the share of its box that something laid at (x0, y0) covers."""
        rows, columns = alpha.shape
        for index, box in enumerate(self.boxes):
            left, top, right, bottom = (box - (x0, y0, x0, y0)).round().astype(int).tolist()
            seen = alpha[max(0, top) : min(rows, max(0, bottom)), max(0, left) : min(columns, max(0, right))]
            if seen.size:
                area = max(1.0, float((box[2] - box[0]) * (box[3] - box[1])))
                self._hidden[index] += float(cv2.sumElems(seen)[0]) / 255 / area


def _mirrored(crop: FaceCrop) -> FaceCrop:
    width = crop.image.shape[1]
    x0, y0, x1, y1 = crop.box
    points = crop.landmarks[list(MIRRORED)] * (-1, 1) + (width, 0)
    return FaceCrop(
        image=np.ascontiguousarray(crop.image[:, ::-1]),
        box=np.array([width - x1, y0, width - x0, y1], np.float32),
        landmarks=points.astype(np.float32),
    )


def _placing(crop: FaceCrop, placement: Placement) -> NDArray[np.float64]:
    """Affine map from the crop's continuous coordinates to the scene's, shape (2, 3)."""
    x0, y0, x1, y1 = crop.box.tolist()
    scale = placement.size_px / max(x1 - x0, y1 - y0)
    cos, sin = (scale * turn(math.radians(placement.angle_deg)) for turn in (math.cos, math.sin))
    linear = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    shift = np.array([placement.x_px, placement.y_px]) - linear @ centre
    return np.concatenate((linear, shift[:, None]), axis=1)


def _oval(crop: FaceCrop) -> NDArray[np.uint8]:
    """The head: an ellipse a little larger than the box, its edge soft."""
    height, width = crop.image.shape[:2]
    x0, y0, x1, y1 = (crop.box * MASK_SIDE / (width, height, width, height)).tolist()
    axes = (max(1, round((x1 - x0) * 0.62)), max(1, round((y1 - y0) * 0.62)))
    mask = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    cv2.ellipse(mask, (round((x0 + x1) / 2), round((y0 + y1) / 2)), axes, 0, 0, 360, (255,), -1)
    return _softened(mask, sigma=0.05 * MASK_SIDE, width_px=width, height_px=height)


@cache
def _card(width_px: int, height_px: int) -> NDArray[np.uint8]:
    """The whole crop, its edge soft."""
    mask = np.full((MASK_SIDE, MASK_SIDE), 255, np.uint8)
    return _softened(mask, sigma=0.02 * MASK_SIDE, width_px=width_px, height_px=height_px)


def _softened(mask: NDArray[np.uint8], *, sigma: float, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """The mask with an empty frame, blurred, at a crop's size: no hard edge anywhere."""
    mask[:1] = mask[-1:] = 0
    mask[:, :1] = mask[:, -1:] = 0
    soft = cv2.GaussianBlur(mask, (0, 0), sigma)
    return np.asarray(cv2.resize(soft, (width_px, height_px), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def face_gain(rng: Generator) -> NDArray[np.float32]:
    """A change of light and a slight tint: three factors."""
    light, tint = rng.uniform(0.7, 1.3), rng.normal(0, 0.05, 3)
    return np.asarray(light * (1 + tint), dtype=np.float32)
