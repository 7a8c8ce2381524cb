"""Pictures without a face: regions of photos, gradients, textures of noise."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ferserve.faces.align import resize
from ferserve.faces.types import Image
from ferserve.training.detector.labelling import LabelledPhoto

PHOTO_SHARE = 0.75
MIN_REGION_PX = 40
_TRIES = 12
_CLEARANCE = 0.3
"""Regions keep so much of a face's size away from it: hair and chin are no background."""


def background(photos: Sequence[LabelledPhoto], rng: Generator, *, height_px: int, width_px: int) -> Image:
    """Draw one background.

    Args:
        photos: regions are cut where the teacher is nowhere near sure of a face.
    """
    if photos and rng.random() < PHOTO_SHARE:
        region = faceless_region(photos[int(rng.integers(len(photos)))], rng)
        if region is not None:
            return resize(region, (width_px, height_px))
    draw = _gradient if rng.random() < 0.3 else _texture
    return draw(rng, height_px, width_px)


def faceless_region(photo: LabelledPhoto, rng: Generator) -> Image | None:
    """A random part of a photo that keeps clear of every face or hint of one, mirrored every second time.

    Returns:
        None if a few tries find no such part.
    """
    height, width = photo.image.shape[:2]
    size = photo.avoid[:, 2:] - photo.avoid[:, :2]
    low, high = photo.avoid[:, :2] - _CLEARANCE * size, photo.avoid[:, 2:] + _CLEARANCE * size
    shortest = min(height, width)
    for _ in range(_TRIES):
        side = rng.uniform(min(MIN_REGION_PX, shortest), shortest)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        meets = (low < (x + side, y + side)).all(axis=1) & (high > (x, y)).all(axis=1)
        if not meets.any():
            part = photo.image[int(y) : int(y + side), int(x) : int(x + side)]
            return part[:, ::-1] if rng.random() < 0.5 else part
    return None


def _gradient(rng: Generator, height_px: int, width_px: int) -> Image:
    corners: NDArray[np.uint8] = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(corners, (width_px, height_px), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _texture(rng: Generator, height_px: int, width_px: int) -> Image:
    """Noise of several sizes of grain, added up."""
    finest = 64
    total = np.zeros((finest, finest, 3), np.float32)
    colourful = rng.random() < 0.4
    for cells in (2, 4, 8, 16, 32, finest):
        grain = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        grain = grain if colourful else np.repeat(grain[:, :, :1], 3, axis=2)
        total += cv2.resize(grain, (finest, finest), interpolation=cv2.INTER_LINEAR) * rng.uniform(0, 40)
    picture = (total + rng.uniform(40, 215, 3)).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
