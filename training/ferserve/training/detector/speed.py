"""Milliseconds a photo, several detectors in turn on the same pictures: a slow moment of the machine meets them all."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import cv2

from ferserve.faces.align import resize
from ferserve.faces.types import Image
from ferserve.training.detector.contenders import Contender

SIZES_PX: Final = ((640, 480), (320, 240))
"""Width and height of the pictures."""
PICTURES: Final = 12
ROUNDS: Final = 4


def measure_ms(
    contenders: Sequence[Contender],
    images: Sequence[Image],
    *,
    clock: Callable[[], float] = time.perf_counter,
    rounds: int = ROUNDS,
) -> dict[str, dict[str, float]]:
    """Median time of `detect`, decoding of the file excluded, one thread.

    Args:
        images: RGB uint8; the first `PICTURES` are brought to each of `SIZES_PX`.
        clock: seconds.
    Returns:
        Milliseconds by detector's name, then by size as `640x480`.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return _measure(contenders, images, clock, rounds)
    finally:
        cv2.setNumThreads(threads)


def _measure(
    contenders: Sequence[Contender], images: Sequence[Image], clock: Callable[[], float], rounds: int
) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {contender.name: {} for contender in contenders}
    for width, height in SIZES_PX:
        pictures = [resize(image, (width, height)) for image in images[:PICTURES]]
        times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for contender in contenders:
            contender.detector.detect(pictures[0], size_px=width)  # the first call allocates
        for picture in pictures * rounds:
            for contender in contenders:
                started = clock()
                contender.detector.detect(picture, size_px=width)
                times[contender.name].append(1000 * (clock() - started))
        for name, values in times.items():
            result[name][f"{width}x{height}"] = statistics.median(values)
    return result
