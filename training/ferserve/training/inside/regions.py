"""The parts of a face that S3 covers (Lin et al. 2020, section 4.4), laid out by five landmarks.

S3 prints the parts' names and no sizes. Here they are rectangles in the face's own frame, so that they turn and shear
with it:

    p = e + x * a + y * d,      e between the eyes, a from eye to eye, d from e to between the mouth's corners

x is -0.5 and 0.5 at the eyes, y is 0 at the eyes and 1 at the mouth's corners. The frame has no place for the brows,
the nose and the chin: none of S3's parts does.

Shapes: N faces, S the crop's side.
"""

from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray


class Region(StrEnum):
    """What is covered, in the order of S3's Table 6. Left is the picture's left."""

    NONE = "none"
    CHEEKS_AND_FOREHEAD = "cheeks and forehead"
    EYES = "eyes"
    LEFT_MOUTH = "left half of the mouth"
    BOTTOM_MOUTH = "bottom half of the mouth"
    MOUTH = "mouth"
    MOUTH_AND_EYES = "mouth and eyes"


TABLE_6: Final = {
    Region.NONE: 99.0,
    Region.CHEEKS_AND_FOREHEAD: 96.5,
    Region.EYES: 94.0,
    Region.LEFT_MOUTH: 74.5,
    Region.BOTTOM_MOUTH: 73.0,
    Region.MOUTH: 59.0,
    Region.MOUTH_AND_EYES: 9.5,
}
"""S3's accuracy in percent on 200 frames of CK+, eight classes."""

EYE_HALF_WIDTH: Final = 0.32
EYE_HALF_HEIGHT: Final = 0.24
"""Lids and lashes, not the brows, which are a part of their own in every expression."""
MOUTH_TOP, MOUTH_BOTTOM = 0.80, 1.45
"""From under the nose to the lower lip of a mouth wide open."""
MOUTH_MARGIN: Final = 1.25
"""Half the mouth's width over half the distance of its corners: the corners lie inside what is covered."""
MOUTH_HALF_WIDTHS: Final = (0.40, 0.75)
"""Bounds of it, for landmarks that miss the corners."""
FOREHEAD_TOP, FOREHEAD_BOTTOM = -1.30, -0.50
FOREHEAD_HALF_WIDTH: Final = 0.80
CHEEK_TOP, CHEEK_BOTTOM = 0.32, MOUTH_TOP
CHEEK_INNER, CHEEK_OUTER = 0.42, 1.00
"""Beside the nose, which is no part."""


def region_masks(landmarks_N52: NDArray[np.floating], region: Region, *, size_px: int) -> NDArray[np.bool_]:
    """The crop's pixels whose middle lies in a region, shape (N, S, S).

    Args:
        landmarks_N52: pixels of the crop, five points a face in the order of `LANDMARKS`, eyes and mouth no one line.
    """
    x_NSS, y_NSS = face_coordinates(landmarks_N52, size_px=size_px)
    half_width_N11 = _mouth_half_width(landmarks_N52)[:, None, None]
    eyes = (np.abs(np.abs(x_NSS) - 0.5) <= EYE_HALF_WIDTH) & (np.abs(y_NSS) <= EYE_HALF_HEIGHT)
    mouth = (np.abs(x_NSS) <= half_width_N11) & (y_NSS >= MOUTH_TOP) & (y_NSS <= MOUTH_BOTTOM)
    if region is Region.NONE:
        return np.zeros(x_NSS.shape, np.bool_)
    if region is Region.CHEEKS_AND_FOREHEAD:
        forehead = (np.abs(x_NSS) <= FOREHEAD_HALF_WIDTH) & (y_NSS >= FOREHEAD_TOP) & (y_NSS <= FOREHEAD_BOTTOM)
        beside = (np.abs(x_NSS) >= CHEEK_INNER) & (np.abs(x_NSS) <= CHEEK_OUTER)
        return np.asarray(forehead | (beside & (y_NSS >= CHEEK_TOP) & (y_NSS < CHEEK_BOTTOM)))
    covered = {
        Region.EYES: eyes,
        Region.LEFT_MOUTH: mouth & (x_NSS < 0),
        Region.BOTTOM_MOUTH: mouth & (y_NSS >= 1),
        Region.MOUTH: mouth,
        Region.MOUTH_AND_EYES: mouth | eyes,
    }[region]
    return np.asarray(covered)


def face_coordinates(
    landmarks_N52: NDArray[np.floating], *, size_px: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y of the crop's pixels in each face's own frame, both of shape (N, S, S)."""
    eyes_N, across_N, down_N = _frames(landmarks_N52)
    middles_S = np.arange(size_px) + 0.5
    offset_NSS = middles_S[None, None, :] + 1j * middles_S[None, :, None] - eyes_N[:, None, None]
    # p - e = x a + y d, solved by cross products; complex numbers as elsewhere in `align`.
    area_N11 = _cross(across_N, down_N)[:, None, None]
    x_NSS = _cross(offset_NSS, down_N[:, None, None]) / area_N11
    y_NSS = _cross(across_N[:, None, None], offset_NSS) / area_N11
    return x_NSS, y_NSS


def frame_area(landmarks_N52: NDArray[np.floating]) -> NDArray[np.float64]:
    """Square pixels of the frame's unit parallelogram, shape (N,); 0 or less where the points are no upright face."""
    _, across_N, down_N = _frames(landmarks_N52)
    return _cross(across_N, down_N)


def cover(crops_NSSC: NDArray[np.uint8], masks_NSS: NDArray[np.bool_], *, with_mean: bool = False) -> NDArray[np.uint8]:
    """The crops with the masked pixels black, as S3 has them, or of the face's own mean; a copy.

    Args:
        crops_NSSC: uint8, shape (N, S, S, C).
    """
    mean_N11C = np.rint(crops_NSSC.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    fill_N11C = mean_N11C if with_mean else np.zeros_like(mean_N11C)
    return np.where(masks_NSS[:, :, :, None], fill_N11C, crops_NSSC)


def _frames(
    landmarks_N52: NDArray[np.floating],
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.complex128]]:
    points_N5 = _complex(landmarks_N52)
    eyes_N = (points_N5[:, 0] + points_N5[:, 1]) / 2
    return eyes_N, points_N5[:, 1] - points_N5[:, 0], (points_N5[:, 3] + points_N5[:, 4]) / 2 - eyes_N


def _mouth_half_width(landmarks_N52: NDArray[np.floating]) -> NDArray[np.float64]:
    """In the face's own frame: the mouth may be turned against the eyes, its width is measured along them."""
    _, across_N, down_N = _frames(landmarks_N52)
    points_N5 = _complex(landmarks_N52)
    x_N = _cross(points_N5[:, 4] - points_N5[:, 3], down_N) / _cross(across_N, down_N)
    return np.clip(MOUTH_MARGIN * np.abs(x_N) / 2, *MOUTH_HALF_WIDTHS)


def _complex(points_N52: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Points as x + iy, as in `align`."""
    x_N5, y_N5 = np.moveaxis(points_N52.astype(np.float64), -1, 0)
    return np.asarray(x_N5 + 1j * y_N5, np.complex128)


def _cross(one: NDArray[np.complex128], other: NDArray[np.complex128]) -> NDArray[np.float64]:
    return np.asarray(one.real * other.imag - one.imag * other.real)
