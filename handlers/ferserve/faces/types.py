"""The values that pass between the rooms: frozen, with units and frames stated once, here.

Frames: unless said otherwise coordinates are pixels of the original image after its EXIF rotation, x to the right,
y down, the origin at the top left corner of the top left pixel. Boxes are half-open.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import EXPRESSIONS, Expression

Image = NDArray[np.uint8]
"""RGB uint8, shape (H, W, 3)."""
Crop = NDArray[np.uint8]
"""One face as a model takes it: uint8, shape (S, S, C), C = 1 (grey) or 3 (RGB)."""
Landmarks = NDArray[np.float32]
"""Shape (5, 2), x and y in pixels, rows in the order of `LANDMARKS`."""
Scores = NDArray[np.float32]
"""Calibrated scores, shape (7,) in the order of `EXPRESSIONS`; each in [0, 1], their sum 1."""

LANDMARKS: Final = ("right_eye", "left_eye", "nose", "right_mouth_corner", "left_mouth_corner")
"""Right and left are the person's own: the right eye is on the image's left in an upright frontal face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A half-open rectangle [x0, x1) x [y0, y1) in pixels; it may reach over the picture's edge."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width_px(self) -> float:
        """Width in pixels."""
        return self.x1 - self.x0

    @property
    def height_px(self) -> float:
        """Height in pixels."""
        return self.y1 - self.y0

    def scaled(self, factor: float) -> "Box":
        """The same rectangle in a frame whose coordinates are `factor` times as large."""
        return Box(x0=self.x0 * factor, y0=self.y0 * factor, x1=self.x1 * factor, y1=self.y1 * factor)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detection:
    """One face that a detector found.

    Attributes:
        box: where.
        score: the detector's confidence, 0 to 1; its scale is the detector's own.
        landmarks: five points, or None from a detector that gives none (Haar).
    """

    box: Box
    score: float
    landmarks: Landmarks | None = None

    def scaled(self, factor: float) -> "Detection":
        """The same detection in a frame whose coordinates are `factor` times as large."""
        points = None if self.landmarks is None else (self.landmarks * np.float32(factor)).astype(np.float32)
        return Detection(box=self.box.scaled(factor), score=self.score, landmarks=points)


class QualityIssue(StrEnum):
    """Why a face is a poor one to read an expression from."""

    SMALL = "small"
    BLURRED = "blurred"
    TURNED = "turned"
    TILTED = "tilted"
    CUT_OFF = "cut_off"
    DARK = "dark"
    BRIGHT = "bright"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good a picture of a face is.

    Attributes:
        size_px: the shorter side of the box in pixels of the original image.
        sharpness: variance of the Laplacian of the grey crop (uint8 scale); low is blurred (see `quality`).
        yaw: nose offset between the eyes, -1 (the person's own right) to 1; 0 is frontal; None without landmarks.
        roll_deg: tilt of the eye line in degrees, clockwise positive; None without landmarks.
        issues: why the face is poor; empty for a good one.
    """

    size_px: float
    sharpness: float
    yaw: float | None
    roll_deg: float | None
    issues: tuple[QualityIssue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredFace:
    """One face of a picture with its seven scores.

    Attributes:
        detection: box, detector's score and landmarks, in pixels of the original image.
        scores: shape (7,), calibrated.
        uncertain: the top score lies below the archive's calibrated threshold.
        quality: what makes the face easy or hard to read.
        track_id: the same for one face in all frames of a stream that asked for tracks, 1 or more; None elsewhere.
    """

    detection: Detection
    scores: Scores
    uncertain: bool
    quality: Quality
    track_id: int | None = None

    @property
    def expression(self) -> Expression:
        """The expression with the highest score; the first of them on a tie."""
        return EXPRESSIONS[int(np.argmax(self.scores))]
