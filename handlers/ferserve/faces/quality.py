"""How good a picture of a face is, cheaply: from its box, its landmarks and its crop."""

import math
from typing import Final

import cv2

from ferserve.faces.types import Crop, Detection, Image, Landmarks, Quality, QualityIssue

SMALL_BELOW_PX: Final = 32.0
"""Two thirds of the 48 px that the training pictures have; below, a crop is mostly made of interpolation."""
BLURRED_BELOW: Final = 300.0
"""Variance of the Laplacian of a 48 px crop; 199 of 200 of FER-2013's training pictures lie above 330."""
TURNED_ABOVE: Final = 0.35
"""Nose offset over half the eye distance; about 30 degrees of yaw."""
TILTED_ABOVE_DEG: Final = 25.0
DARK_BELOW, BRIGHT_ABOVE = 40.0, 220.0
"""Mean grey of the crop, 0 to 255; 98 of 100 of FER-2013's training pictures lie between 52 and 202."""
CUT_OFF_ABOVE: Final = 0.1
"""Share of the box outside the picture."""


def assess(image: Image, detection: Detection, crop: Crop, *, scale: float) -> Quality:
    """Measure one detected face.

    Args:
        image: the picture that `detection` is in, shape (H, W, 3).
        detection: in pixels of `image`.
        crop: the aligned face, uint8, shape (S, S, C).
        scale: `image`'s size over the original's, so that sizes come out in original pixels.
    """
    grey = crop[:, :, 0] if crop.shape[2] == 1 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    size_px = min(detection.box.width_px, detection.box.height_px) / scale
    # OpenCV's sums: numpy's variance of so small an array takes ten times as long.
    sharpness = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))[1][0, 0]) ** 2
    yaw, roll_deg = (None, None) if detection.landmarks is None else _pose(detection.landmarks)
    brightness = cv2.mean(grey)[0]
    found = {
        QualityIssue.SMALL: size_px < SMALL_BELOW_PX,
        QualityIssue.BLURRED: sharpness < BLURRED_BELOW,
        QualityIssue.TURNED: yaw is not None and abs(yaw) > TURNED_ABOVE,
        QualityIssue.TILTED: roll_deg is not None and abs(roll_deg) > TILTED_ABOVE_DEG,
        QualityIssue.CUT_OFF: _outside(image, detection) > CUT_OFF_ABOVE,
        QualityIssue.DARK: brightness < DARK_BELOW,
        QualityIssue.BRIGHT: brightness > BRIGHT_ABOVE,
    }
    return Quality(
        size_px=size_px,
        sharpness=sharpness,
        yaw=yaw,
        roll_deg=roll_deg,
        issues=tuple(issue for issue, holds in found.items() if holds),
    )


def _pose(landmarks: Landmarks) -> tuple[float, float]:
    """Yaw (-1 to 1) and roll (degrees) from the eyes and the nose."""
    right_eye, left_eye, nose = (complex(x, y) for x, y in landmarks[:3].tolist())
    across = left_eye - right_eye
    if across == 0:
        return 0.0, 0.0
    # The nose in the frame of the eyes: real part 0 between them, +-1 at either eye.
    offset = ((nose - (right_eye + left_eye) / 2) / (across / 2)).real
    return max(-1.0, min(1.0, offset)), math.degrees(math.atan2(across.imag, across.real))


def _outside(image: Image, detection: Detection) -> float:
    """Share of the box's area that lies outside the picture."""
    height, width = image.shape[:2]
    box = detection.box
    inside_x = max(0.0, min(box.x1, width) - max(box.x0, 0.0))
    inside_y = max(0.0, min(box.y1, height) - max(box.y0, 0.0))
    area = box.width_px * box.height_px
    return 1.0 - inside_x * inside_y / area if area > 0 else 1.0
