"""Nine patches of a face: windows at the corners, the middles of the edges and the centre, brought back to its size.

S2 says that each picture is cut into nine patches and not how large they are. Windows of a third of the side would show
an eye or a chin, which no net trained on faces has an opinion of; here each keeps `SHARE` of the side, so that every
patch is a face that lacks something, and neighbours overlap (docs/adr/0060).

Shapes: N faces, S the crop's side, C channels.
"""

from itertools import product
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

GRID: Final = 3
PATCHES: Final = GRID * GRID
SHARE: Final = 0.75


def nine_patches(crops_NSSC: NDArray[np.uint8], *, share: float = SHARE) -> NDArray[np.uint8]:
    """Cut nine patches of each crop, row by row from the top left; uint8, shape (N, 9, S, S, C).

    Args:
        share: side of a patch over the crop's, more than 0, at most 1.
    """
    count, side_px, _, channels = crops_NSSC.shape
    window_px = max(1, round(share * side_px))
    starts = [round(place * (side_px - window_px) / (GRID - 1)) for place in range(GRID)]
    patches = np.empty((count, PATCHES, side_px, side_px, channels), np.uint8)
    for row, crop in enumerate(crops_NSSC):
        for number, (top, left) in enumerate(product(starts, starts)):
            window = np.ascontiguousarray(crop[top : top + window_px, left : left + window_px])
            resized = cv2.resize(window, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
            patches[row, number] = resized.reshape(side_px, side_px, channels)
    return patches
