"""What cameras and networks do to pictures: blur, low light, noise, JPEG, grey, a colour cast. No pixel moves."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ferserve.faces.types import Image

_NOISE_SIDE: Final = 1024
_NOISE: Final = np.random.default_rng(0).normal(0, 16, (_NOISE_SIDE, _NOISE_SIDE, 3)).astype(np.int16)
"""Drawing fresh noise for every picture would cost more than all the rest; a random window of this costs nothing."""


def damage(image: Image, rng: Generator, *, share: float) -> Image:
    """Do each kind of damage with the same probability, in the order a camera does.

    Args:
        image: RGB uint8; not changed.
        share: 0 to 1.
    """
    for step in (_blur, _smear, _light, _darken, _cast, _noise, _grey, _jpeg):
        if rng.random() < share:
            image = step(image, rng)
    return image


def _blur(image: Image, rng: Generator) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.0)), dtype=np.uint8)


def _smear(image: Image, rng: Generator) -> Image:
    """Motion along one direction."""
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    reach = (length - 1) / 2
    angle = rng.uniform(0, np.pi)
    ends = [
        (round(reach + sign * reach * np.cos(angle)), round(reach + sign * reach * np.sin(angle))) for sign in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], (1.0,), 1)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.uint8)


def _curve(image: Image, levels: NDArray[Any]) -> Image:
    """Each level replaced by another, shape (256,) or (256, 3)."""
    table = levels.clip(0, 255).round().astype(np.uint8).reshape(1, 256, -1)
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


def _light(image: Image, rng: Generator) -> Image:
    levels = np.arange(256) * rng.uniform(0.6, 1.4) + rng.uniform(-40, 40)
    return _curve(image, levels)


def _darken(image: Image, rng: Generator) -> Image:
    """Low light: little signal, the noise of it, shadows crushed."""
    levels = 255 * (np.arange(256) / 255) ** rng.uniform(1.0, 1.8) * rng.uniform(0.15, 0.6)
    return _noise(_curve(image, levels), rng, strength=0.4)


def _cast(image: Image, rng: Generator) -> Image:
    return _curve(image, np.arange(256)[:, None] * rng.uniform(0.75, 1.25, 3))


def _noise(image: Image, rng: Generator, *, strength: float = 1.0) -> Image:
    height, width = image.shape[:2]
    y, x = (int(rng.integers(0, max(1, _NOISE_SIDE - side))) for side in (height, width))
    tile = _NOISE[y : y + height, x : x + width]
    if tile.shape != image.shape:
        tile = np.asarray(cv2.resize(_NOISE, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.int16)
    scale = strength * rng.uniform(0.2, 1.2)
    return np.asarray(cv2.addWeighted(image, 1.0, tile, scale, 0.0, dtype=cv2.CV_8U), dtype=np.uint8)


def _grey(image: Image, rng: Generator) -> Image:  # noqa: ARG001 -- one signature for every kind
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def _jpeg(image: Image, rng: Generator) -> Image:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 80))])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
