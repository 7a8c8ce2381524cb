"""The one pixel path from a picture to what a model takes.

Training, the TorchServe handlers, the gateway and bulk scoring all call `face_crop` (a face in a photo) or `whole_crop`
(a picture that is a face already). What they do is fixed by a `PreprocessSpec`, whose hash every archive and every
response carries: two crops with one hash were made by the same rules. Normalisation is inside the model's graph.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import cv2
import numpy as np

from ferserve.faces.align import Square, between, box_square, cut_square, landmark_square, resize
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.faces.types import Crop, Detection, Image

PIXELS_VERSION = 2
"""Raised whenever the same spec would give other pixels, so that the hash changes with them."""
MIN_SIZE_PX, MAX_SIZE_PX = 16, 512
GREY, RGB = 1, 3
FRACTION_RANGES = {"box_scale": (0.5, 3.0), "eye_y": (0.1, 0.9), "eye_distance": (0.1, 0.9)}
"""Wide enough for every published crop; beyond them it is a mistake of units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """What a crop looks like.

    Attributes:
        size_px: S, the crop's side.
        channels: 1 (grey, ITU-R BT.601 luma) or 3 (RGB).
        box_scale: side of the square that a box stands for, over the box's longer side.
        eye_y: height of the eye line in the square that landmarks stand for, as a fraction of its side.
        eye_distance: distance of the eyes in that square, as a fraction of its side.
    """

    size_px: int
    channels: int
    box_scale: float = 1.0
    eye_y: float = 0.36
    eye_distance: float = 0.44

    def __post_init__(self) -> None:
        if type(self.size_px) is not int or not MIN_SIZE_PX <= self.size_px <= MAX_SIZE_PX:
            raise ValueError(
                f"size_px must be a whole number from {MIN_SIZE_PX} to {MAX_SIZE_PX}, got {self.size_px!r}"
            )
        if type(self.channels) is not int or self.channels not in (GREY, RGB):
            raise ValueError(f"channels must be {GREY} or {RGB}, got {self.channels!r}")
        for name, (low, high) in FRACTION_RANGES.items():
            # 1 and 1.0 are one value but two texts: the hash sees floats only.
            object.__setattr__(self, name, float(getattr(self, name)))
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, got {getattr(self, name)}")

    @property
    def sha256(self) -> str:
        """Hash of the spec and of the pixel path's version, 64 hex digits."""
        text = json.dumps(asdict(self) | {"pixels_version": PIXELS_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote.

        Raises:
            ArchiveError: a key is missing or unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if set(value) != known:
            raise ArchiveError(f"preprocess spec: expected keys {sorted(known)}, got {sorted(value)}")
        try:
            return cls(**value)
        except (TypeError, ValueError) as error:
            raise ArchiveError(f"preprocess spec: {error}") from error


def face_crop(image: Image, detection: Detection, spec: PreprocessSpec) -> Crop:
    """Cut one detected face out of a picture, by its box; upright, and by both, if its landmarks are known.

    Args:
        image: RGB uint8, shape (H, W, 3).
        detection: in pixels of `image`.
    Returns:
        uint8, shape (S, S, C).
    Raises:
        DegenerateFaceError: the box is empty or outside the picture, or the eyes coincide.
    """
    return square_crop(image, face_square(image, detection, spec), spec)


def face_square(image: Image, detection: Detection, spec: PreprocessSpec) -> Square:
    """Where in a picture the crop of a detected face lies; see `face_crop`."""
    square = box_square(image, detection.box, scale=spec.box_scale)
    if detection.landmarks is None:
        return square
    by_eyes = landmark_square(detection.landmarks, eye_y=spec.eye_y, eye_distance=spec.eye_distance)
    return between(square, by_eyes)


def square_crop(image: Image, square: Square, spec: PreprocessSpec) -> Crop:
    """Cut a square out of a picture as a model takes it; see `face_crop`."""
    return _to_channels(cut_square(image, square, size_px=spec.size_px), spec)


def whole_crop(image: Image, spec: PreprocessSpec) -> Crop:
    """Bring a picture that is a face already to the model's size and channels.

    Args:
        image: RGB uint8, shape (H, W, 3); grey pictures as three equal channels.
    Returns:
        uint8, shape (S, S, C). A picture of S x S grey pixels passes unchanged.
    Raises:
        InvalidRequestError: not an RGB picture of at least one pixel.
    """
    if image.shape[2:] != (RGB,) or image.dtype != np.uint8 or image.size == 0:
        raise InvalidRequestError(f"expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    return _to_channels(resize(image, (spec.size_px, spec.size_px)), spec)


def _to_channels(crop: Image, spec: PreprocessSpec) -> Crop:
    if spec.channels == RGB:
        return crop
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(grey[:, :, None], dtype=np.uint8)
