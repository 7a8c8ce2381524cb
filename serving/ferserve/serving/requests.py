"""What a request asks and what an answer holds, free of any protocol.

The adapters (`grpc_api`, `rest_api`, `client`) translate to and from these; `Analyzer` computes with them.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.align import Square
from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.faces.labels import EXPRESSIONS, Expression
from ferserve.faces.occlusion import MAX_GRID, MIN_GRID, OcclusionMap
from ferserve.faces.types import ScoredFace, Scores

MIN_DETECTION_SIZE_PX = 64
MAX_DETECTION_SIZE_PX = 4096
MAX_FACES_LIMIT = 1000


class Priority(IntEnum):
    """Which queue a face waits in; the lower value is served first, but bulk keeps its guaranteed share."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeOptions:
    """What a caller may ask for, the same over every protocol.

    Attributes:
        model: name of a loaded archive; empty for the default one.
        priority: interactive unless told otherwise.
        detection_size_px: longer side in pixels that the picture is brought down to before detection, 64 to 4096;
            None leaves it to the detector.
        exact: decode and detect at full resolution, for small faces in large pictures; slower.
        max_faces: keep the detections with the highest scores only, 1 to 1000; None keeps all.
    """

    model: str = ""
    priority: Priority = Priority.INTERACTIVE
    detection_size_px: int | None = None
    exact: bool = False
    max_faces: int | None = None

    def __post_init__(self) -> None:
        size = self.detection_size_px
        if size is not None and not MIN_DETECTION_SIZE_PX <= size <= MAX_DETECTION_SIZE_PX:
            raise InvalidRequestError(
                f"detection_size: expected {MIN_DETECTION_SIZE_PX} to {MAX_DETECTION_SIZE_PX} pixels, got {size}"
            )
        if self.max_faces is not None and not 1 <= self.max_faces <= MAX_FACES_LIMIT:
            raise InvalidRequestError(f"max_faces: expected 1 to {MAX_FACES_LIMIT}, got {self.max_faces}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OcclusionQuestion:
    """Which face of a photo an occlusion map is asked of.

    Attributes:
        face: its place in the answer for the same photo and options, the first being 0.
        grid: places along one side of the map, 2 to 12.
    """

    face: int = 0
    grid: int = 10

    def __post_init__(self) -> None:
        if self.face < 0:
            raise InvalidRequestError(f"face: expected 0 or more, got {self.face}")
        if not MIN_GRID <= self.grid <= MAX_GRID:
            raise InvalidRequestError(f"grid: expected {MIN_GRID} to {MAX_GRID}, got {self.grid}")

    @property
    def faces(self) -> int:
        """Faces that answering it scores."""
        return self.grid * self.grid + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """Who waits, and until when.

    Attributes:
        request_id: opaque id that logs and errors carry; the unit of fairness in the queue.
        deadline_s: reading of the batcher's clock (`loop.time()`) after which nobody waits any more; None takes
            the configured default.
    """

    request_id: str
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimings:
    """Where the time of one answer went, in milliseconds; the stages of faces scored side by side overlap."""

    decode_ms: float = 0.0
    detect_ms: float = 0.0
    preprocess_ms: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Which archive answered: what every answer repeats of it.

    Attributes:
        archive_sha256: of the whole file, 64 hex digits.
        preprocess_sha256: of the pixel rules, 64 hex digits.
        precision: what it computed in, `fp32` or `int8`; empty where a gateway of an older version does not say.
    """

    name: str
    version: str
    archive_sha256: str
    preprocess_sha256: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo(ModelRef):
    """A loaded archive as callers see it.

    Attributes:
        uncertain_below: top scores below this make a face `uncertain`, 0 to 1.
        figures: measured figures from the archive's manifest, name to value.
    """

    architecture: str
    paper: str
    crop_size_px: int
    crop_channels: int
    temperature: float
    uncertain_below: float
    figures: dict[str, float]
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAnalysis:
    """Everything said about one picture. No face is an empty tuple, not an error.

    Attributes:
        width_px, height_px: of the original picture after EXIF rotation; the frame of all coordinates.
        faces: highest detection score first.
        detector: name of the detector that ran.
    """

    width_px: int
    height_px: int
    faces: tuple[ScoredFace, ...]
    detector: str
    model: ModelRef
    timings: StageTimings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceClassification:
    """The scores of one crop that a caller sent ready-made."""

    scores: Scores
    uncertain: bool

    @property
    def expression(self) -> Expression:
        """The expression with the highest score."""
        return EXPRESSIONS[int(self.scores.argmax())]


@dataclass(frozen=True, slots=True, kw_only=True)
class FacesClassification:
    """The answer to crops: one result or one error an item, in the order sent."""

    items: tuple[FaceClassification | FerserveError, ...]
    model: ModelRef
    timings: StageTimings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OcclusionAnalysis:
    """Which parts of one face its top expression rests on.

    Attributes:
        width_px, height_px: of the original picture after EXIF rotation; the frame of all coordinates.
        square: what the map lies on, which may be turned, in pixels of the original picture.
        drops: what the top expression's score loses where the face is covered, shape (G, G), rows from the square's
            upper edge, -1 to 1.
    """

    width_px: int
    height_px: int
    face: ScoredFace
    square: Square
    drops: OcclusionMap
    model: ModelRef
    timings: StageTimings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CropScores:
    """The answer to crops that came as one tensor.

    Attributes:
        scores: float32, shape (N, 7) in the order of `EXPRESSIONS`, one row a crop in the order sent.
    """

    scores: NDArray[np.float32]
    model: ModelRef
    timings: StageTimings
