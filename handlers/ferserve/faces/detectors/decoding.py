"""From a YuNet-shaped network's outputs to candidate faces.

The head is free of anchors (Wu, Peng and Yu 2023, YuNet: A Tiny Millisecond-level Face Detector; equations as in
OpenCV's `FaceDetectorYN`). At each stride s of 8, 16 and 32 the padded picture is a grid of cells, row by row. Of cell
(column c, row r) the network says:

    cls, obj                      score  = sqrt(clamp(cls, 0, 1) * clamp(obj, 0, 1))
    bbox = (dx, dy, dw, dh)       centre = ((c + dx) * s, (r + dy) * s), size = (exp(dw) * s, exp(dh) * s)
    kps  = (x, y) five times      point  = ((c + x) * s, (r + y) * s)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.detectors.nms import suppress
from ferserve.faces.types import LANDMARKS, Box, Detection

STRIDES: Final = (8, 16, 32)
PAD_TO_PX: Final = STRIDES[-1]
"""Sides of the network's input are multiples of this."""
CHANNELS: Final = {"cls": 1, "obj": 1, "bbox": 4, "kps": 2 * len(LANDMARKS)}
OUTPUTS: Final = {f"{kind}_{stride}": (stride, width) for stride in STRIDES for kind, width in CHANNELS.items()}
"""Each output's stride and numbers a cell, by its name."""
MAX_LOG_SIZE: Final = 10.0
"""A face of e^10 cells is larger than any picture; without a bound a strange network's sizes overflow."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Faces as arrays, rows in any order.

    Attributes:
        boxes: x0, y0, x1, y1 in pixels, float32, shape (N, 4).
        scores: 0 to 1, float32, shape (N,).
        landmarks: x and y in pixels, rows in the order of `LANDMARKS`, float32, shape (N, 5, 2).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All rows of at least one part."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            boxes=np.concatenate([part.boxes for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            landmarks=np.concatenate([part.landmarks for part in parts]),
        )

    def chosen(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Candidates":
        """Some of the rows, by their indices or by a mask."""
        return Candidates(boxes=self.boxes[rows], scores=self.scores[rows], landmarks=self.landmarks[rows])

    def suppressed(self, *, max_overlap: float) -> "Candidates":
        """One row a face, best first; see `suppress`."""
        return self.chosen(suppress(self.boxes, self.scores, max_overlap=max_overlap))

    def moved(self, *, x_px: float, y_px: float, scale_x: float, scale_y: float) -> "Candidates":
        """The same faces in another frame: moved by so many pixels, and then scaled."""
        if (x_px, y_px, scale_x, scale_y) == (0, 0, 1, 1):
            return self
        offset = np.array([x_px, y_px], dtype=np.float32)
        scale = np.array([scale_x, scale_y], dtype=np.float32)
        return Candidates(
            boxes=(self.boxes + np.tile(offset, 2)) * np.tile(scale, 2),
            scores=self.scores,
            landmarks=(self.landmarks + offset) * scale,
        )

    def detections(self) -> list[Detection]:
        """As the protocol wants them, in the rows' order."""
        return [
            Detection(box=Box(x0=x0, y0=y0, x1=x1, y1=y1), score=score, landmarks=points)
            for (x0, y0, x1, y1), score, points in zip(
                self.boxes.tolist(), self.scores.tolist(), self.landmarks.copy(), strict=True
            )
        ]


NOTHING: Final = Candidates(
    boxes=np.empty((0, 4), np.float32),
    scores=np.empty(0, np.float32),
    landmarks=np.empty((0, len(LANDMARKS), 2), np.float32),
)


def decode(outputs: Mapping[str, NDArray[np.float32]], *, columns_px: int, min_score: float) -> Candidates:
    """All cells that are sure enough; several for each face.

    Args:
        outputs: by the names of `OUTPUTS`, float32, shape (1, cells, numbers a cell), cells row by row.
        columns_px: width of the network's input in pixels, a multiple of `PAD_TO_PX`.
        min_score: cells that score lower are no candidates, 0 to 1.
    Returns:
        In pixels of the network's input; only finite rows.
    """
    squared: list[NDArray[np.float32]] = []
    cells: list[NDArray[np.float32]] = []
    numbers: list[NDArray[np.float32]] = []
    for stride in STRIDES:
        cls, obj = (outputs[f"{kind}_{stride}"].reshape(-1).clip(0.0, 1.0) for kind in ("cls", "obj"))
        product = cls * obj
        # Nearly all cells end here, so that the rest is about faces only; a NaN is not sure enough either.
        sure = np.flatnonzero(product >= min_score * min_score)
        if not len(sure):
            continue
        rows, columns = np.divmod(sure, columns_px // stride)
        squared.append(product[sure])
        cells.append(np.stack((columns, rows, np.full(len(sure), stride)), axis=1).astype(np.float32))
        numbers.append(np.concatenate([outputs[f"{kind}_{stride}"][0, sure] for kind in ("bbox", "kps")], axis=1))
    if not squared:
        return NOTHING
    # Once for all strides: a dozen faces take numpy no longer than one.
    return _faces(np.concatenate(squared), np.concatenate(cells), np.concatenate(numbers))


def _faces(squared: NDArray[np.float32], cells: NDArray[np.float32], numbers: NDArray[np.float32]) -> Candidates:
    """Cells that are sure enough as faces in pixels.

    Args:
        squared: their scores squared, shape (N,).
        cells: column, row and stride, shape (N, 3).
        numbers: four of the box and ten of the landmarks, shape (N, 14).
    """
    corner, stride = cells[:, :2], cells[:, 2:]
    centre = (corner + numbers[:, :2]) * stride
    half = np.exp(np.minimum(numbers[:, 2:4], MAX_LOG_SIZE)) * (stride / 2)
    points = numbers[:, 4:].reshape(-1, len(LANDMARKS), 2)
    found = Candidates(
        boxes=np.concatenate((centre - half, centre + half), axis=1),
        scores=np.sqrt(squared),
        landmarks=(corner[:, None] + points) * stride[:, None],
    )
    finite = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.landmarks).all(axis=(1, 2))
    solid = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)
    good = finite & solid
    return found if good.all() else found.chosen(np.asarray(good, dtype=np.bool_))
