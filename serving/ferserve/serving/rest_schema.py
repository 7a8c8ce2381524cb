"""The JSON that REST answers with: the protobuf JSON of `ferserve.v1` with the fields' own names.

One document describes both protocols: field names, enum names, frames and units are those of `proto/ferserve/v1`,
and a test compares what this module writes with what protobuf writes for the same answer. Fields that the proto marks
`optional` are left out when absent; everything else is always written. Two things differ: an answer that is one thing
stands without a wrapper (an `ImageAnalysis`, a `ModelInfo`), and an item's error is written as the error of a whole
call is (`ErrorDetail`).
"""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field

from ferserve.faces.labels import LABELS, Expression
from ferserve.faces.types import LANDMARKS, QualityIssue
from ferserve.serving.requests import ModelInfo


class ExpressionName(StrEnum):
    """The proto's names of the seven expressions, in the order of `Expression`."""

    EXPRESSION_ANGRY = "EXPRESSION_ANGRY"
    EXPRESSION_DISGUST = "EXPRESSION_DISGUST"
    EXPRESSION_FEAR = "EXPRESSION_FEAR"
    EXPRESSION_HAPPY = "EXPRESSION_HAPPY"
    EXPRESSION_SAD = "EXPRESSION_SAD"
    EXPRESSION_SURPRISE = "EXPRESSION_SURPRISE"
    EXPRESSION_NEUTRAL = "EXPRESSION_NEUTRAL"


_EXPRESSION_NAMES: Final = tuple(ExpressionName)


def _float32(value: float) -> float:
    """The shortest decimal that stands for `value` as the proto's float32, which is what protobuf's JSON writes."""
    return float(str(np.float32(value)))


def _expression_name(value: Any) -> Any:
    return _EXPRESSION_NAMES[value] if isinstance(value, Expression) else value


def _issue_name(value: Any) -> Any:
    return f"QUALITY_ISSUE_{value.name}" if isinstance(value, QualityIssue) else value


def _scores_by_label(value: Any) -> Any:
    return dict(zip(LABELS, value, strict=True)) if isinstance(value, np.ndarray) else value


def _points_by_name(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return {name: {"x": x, "y": y} for name, (x, y) in zip(LANDMARKS, value, strict=True)}


Float32 = Annotated[float, BeforeValidator(_float32)]


class _Message(BaseModel):
    """Read from the attributes of the protocol-neutral answer, so that only what differs is spelt out."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class ErrorDetail(_Message):
    """Why there is no answer."""

    code: int = Field(description="The HTTP status.")
    reason: str = Field(description="Stable code, the same as ErrorInfo.reason over gRPC.")
    message: str = Field(description="What was expected and what came.")
    request_id: str = Field(description="The call's X-Request-Id.")
    retry_after_ms: int | None = Field(None, description="Only where the same call may succeed later.")


class ErrorMessage(_Message):
    """The body of every answer that is no success."""

    error: ErrorDetail


class BoxMessage(_Message):
    """A half-open rectangle in pixels of the original image."""

    x0: Float32
    y0: Float32
    x1: Float32
    y1: Float32


class PointMessage(_Message):
    """A point in pixels of the original image."""

    x: Float32
    y: Float32


class LandmarksMessage(_Message):
    """Five points in pixels of the original image; right and left are the person's own."""

    right_eye: PointMessage
    left_eye: PointMessage
    nose: PointMessage
    right_mouth_corner: PointMessage
    left_mouth_corner: PointMessage


class ScoresMessage(_Message):
    """Seven calibrated scores, 0 to 1, that sum to 1."""

    angry: Float32
    disgust: Float32
    fear: Float32
    happy: Float32
    sad: Float32
    surprise: Float32
    neutral: Float32


class QualityMessage(_Message):
    """How good a picture of a face is; yaw and roll_deg are absent where the detector gives no landmarks."""

    size_px: Float32
    sharpness: Float32
    yaw: Float32 | None
    roll_deg: Float32 | None
    issues: list[Annotated[str, BeforeValidator(_issue_name)]]


Named = Annotated[ExpressionName, BeforeValidator(_expression_name)]
SevenScores = Annotated[ScoresMessage, BeforeValidator(_scores_by_label)]
FivePoints = Annotated[LandmarksMessage | None, BeforeValidator(_points_by_name)]


class FaceMessage(_Message):
    """One face of a picture."""

    box: BoxMessage = Field(validation_alias=AliasPath("detection", "box"))
    landmarks: FivePoints = Field(validation_alias=AliasPath("detection", "landmarks"))
    detection_score: Float32 = Field(validation_alias=AliasPath("detection", "score"))
    scores: SevenScores
    expression: Named
    uncertain: bool
    quality: QualityMessage
    track_id: int | None = None


class ModelRefMessage(_Message):
    """Which model answered."""

    name: str
    version: str
    archive_sha256: str
    preprocess_sha256: str
    precision: str


class ModelInfoMessage(_Message):
    """A loaded model."""

    ref: ModelRefMessage
    architecture: str
    paper: str
    crop_size_px: int
    crop_channels: int
    temperature: float
    uncertain_below: float
    figures: dict[str, float]
    is_default: bool

    @classmethod
    def of(cls, model: ModelInfo) -> Self:
        """Write all that callers may know of a model."""
        return cls.model_validate({"ref": model, **asdict(model)})


class TimingsMessage(_Message):
    """Where the time went, in milliseconds."""

    decode_ms: float
    detect_ms: float
    preprocess_ms: float
    queue_ms: float
    infer_ms: float
    total_ms: float


class ImageAnalysisMessage(_Message):
    """Everything said about one picture; no face is an empty list."""

    width_px: int
    height_px: int
    faces: list[FaceMessage]
    detector: str
    model: ModelRefMessage
    timings: TimingsMessage


class FaceClassificationMessage(_Message):
    """The scores of one crop."""

    scores: SevenScores
    expression: Named
    uncertain: bool


class BatchAnalyzeItem(_Message):
    """What became of one picture: exactly one of the two."""

    analysis: ImageAnalysisMessage | None = None
    error: ErrorDetail | None = None


class BatchAnalyzeReply(_Message):
    """One item a picture, in the order sent."""

    items: list[BatchAnalyzeItem]


class StreamReplyMessage(_Message):
    """The reply to one frame of a stream: exactly one of `analysis` and `error`."""

    id: str = Field(description="The frame's id in decimal digits: JSON's numbers do not hold 64 bits everywhere.")
    dropped_frames: int = Field(description="Frames that were dropped between this one and the one answered before.")
    analysis: ImageAnalysisMessage | None = None
    error: ErrorDetail | None = None


class ClassifyFacesItem(_Message):
    """What became of one crop: exactly one of the two."""

    classification: FaceClassificationMessage | None = None
    error: ErrorDetail | None = None


class ClassifyFacesReply(_Message):
    """One item a crop, in the order sent."""

    items: list[ClassifyFacesItem]
    model: ModelRefMessage
    timings: TimingsMessage


def _corners(value: Any) -> Any:
    return [{"x": corner.real, "y": corner.imag} for corner in value] if isinstance(value, tuple) else value


def _rows(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


class OcclusionMessage(_Message):
    """Which parts of one face its top expression rests on."""

    width_px: int
    height_px: int
    face: FaceMessage
    corners: Annotated[list[PointMessage], BeforeValidator(_corners)] = Field(
        validation_alias=AliasPath("square", "corners"),
        description="Of the square that the map lies on: top left, top right, bottom right, bottom left.",
    )
    drops: Annotated[list[list[Float32]], BeforeValidator(_rows)] = Field(
        description="What the score loses where the face is covered, -1 to 1; rows from the square's upper edge."
    )
    model: ModelRefMessage
    timings: TimingsMessage


class ModelsReply(_Message):
    """All loaded models, the default one first."""

    models: list[ModelInfoMessage]
