"""OpenCV's Haar cascade for frontal faces (Viola & Jones 2001), the detector that the reproduced papers used."""

import math
import threading
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from ferserve.faces.align import resize
from ferserve.faces.detectors.protocol import Detector
from ferserve.faces.errors import ArchiveError
from ferserve.faces.types import Box, Detection, Image

CASCADE: Final = "haarcascade_frontalface_default.xml"
MIN_FACE_PX: Final = 24
"""The cascade's own window; it cannot see a smaller face."""
DEFAULT_SIZE_PX: Final = 640
"""For pictures of any size: the cascade's time grows with the area, and it is slow."""
SCALE_STEP: Final = 1.1
MIN_NEIGHBOURS: Final = 5
_WEIGHT_SCALE: Final = 4.0


class HaarDetector(Detector):
    """Upright frontal faces, without landmarks. Thread-safe: each thread has its own cascade, which OpenCV's is not."""

    name = "haar"

    def __init__(self) -> None:
        self._local = threading.local()
        self._path = Path(cv2.__file__).parent / "data" / CASCADE
        self._cascade()

    def default_size_px(self, height_px: int, width_px: int) -> int:  # noqa: ARG002 - the protocol's
        """See `Detector.default_size_px`."""
        return DEFAULT_SIZE_PX

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:
        """Find faces; see `Detector.detect`.

        The score squashes the cascade's last-stage weight w, a sum over neighbouring windows: 1 - exp(-w / 4).
        """
        height, width = image.shape[:2]
        scale = min(1.0, (size_px or self.default_size_px(height, width)) / max(height, width))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        if min(small) < MIN_FACE_PX:
            return []
        grey = cv2.equalizeHist(cv2.cvtColor(resize(image, small), cv2.COLOR_RGB2GRAY))
        boxes, _, weights = self._cascade().detectMultiScale3(
            grey,
            scaleFactor=SCALE_STEP,
            minNeighbors=MIN_NEIGHBOURS,
            minSize=(MIN_FACE_PX, MIN_FACE_PX),
            outputRejectLevels=True,
        )
        to_x, to_y = width / small[0], height / small[1]
        found = [
            Detection(
                box=Box(x0=x * to_x, y0=y * to_y, x1=(x + w) * to_x, y1=(y + h) * to_y),
                score=1.0 - math.exp(-max(0.0, float(weight)) / _WEIGHT_SCALE),
            )
            for (x, y, w, h), weight in zip(np.asarray(boxes).tolist(), np.asarray(weights).ravel(), strict=True)
        ]
        return sorted(found, key=lambda detection: detection.score, reverse=True)

    def _cascade(self) -> cv2.CascadeClassifier:
        cascade: cv2.CascadeClassifier | None = getattr(self._local, "cascade", None)
        if cascade is None:
            cascade = cv2.CascadeClassifier(str(self._path))
            if cascade.empty():
                raise ArchiveError(f"expected OpenCV's {CASCADE} in its package, found none: install opencv below 5")
            self._local.cascade = cascade
        return cascade
