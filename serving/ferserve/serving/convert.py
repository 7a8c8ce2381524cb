"""The only translation between the values of `requests` and protocol buffers, both ways.

`*_to_pb` writes a message, `*_from_pb` reads one; coordinates and scores are float32 on the wire. Nothing is decided
here but what a field means when it is absent.
"""

from typing import Final

import numpy as np

from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.faces.labels import LABELS, Expression
from ferserve.faces.types import LANDMARKS, Box, Detection, Landmarks, Quality, QualityIssue, ScoredFace, Scores
from ferserve.serving.requests import (
    AnalyzeOptions,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    ModelRef,
    Priority,
    StageTimings,
)
from ferserve.serving.status import error_of, rich_status
from ferserve.serving.streams import FrameReply, StreamMode, StreamOptions
from ferserve.v1 import expression_pb2 as pb
from ferserve.v1 import expression_service_pb2 as service_pb

_PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BULK: Priority.BULK,
}
REQUEST_ID_KEY: Final = "x-request-id"
PRIORITY_KEY: Final = "x-priority"
_PRIORITY_NAMES = {priority: priority.name.lower() for priority in Priority}
_NAMED_PRIORITIES = {name: priority for priority, name in _PRIORITY_NAMES.items()}
_MODES = {
    service_pb.STREAM_MODE_UNSPECIFIED: StreamMode.RECORDED,
    service_pb.STREAM_MODE_RECORDED: StreamMode.RECORDED,
    service_pb.STREAM_MODE_LIVE: StreamMode.LIVE,
}
_ISSUES = {pb.QualityIssue.Value(f"QUALITY_ISSUE_{issue.name}"): issue for issue in QualityIssue}
_EMPTY_OUTCOME = "the server's reply holds neither a result nor an error that this version of the client knows"


def options_from_pb(message: service_pb.AnalyzeOptions) -> AnalyzeOptions:
    """Read the options of a request.

    Raises:
        InvalidRequestError: the priority is not one of the enum's, or a value is out of range.
    """
    priority = _PRIORITIES.get(message.priority)
    if priority is None:
        known = ", ".join(pb.Priority.Name(value) for value in _PRIORITIES)
        raise InvalidRequestError(f"priority: expected one of {known}, got {message.priority}")
    return AnalyzeOptions(
        model=message.model,
        priority=priority,
        detection_size_px=message.detection_size if message.HasField("detection_size") else None,
        exact=message.exact,
        max_faces=message.max_faces if message.HasField("max_faces") else None,
    )


def priority_metadata(priority: Priority) -> tuple[tuple[str, str]]:
    """The priority once more, where a full gateway sees it before it reads the message."""
    return ((PRIORITY_KEY, _PRIORITY_NAMES[priority]),)


def priority_of_metadata(value: object) -> Priority | None:
    """What `priority_metadata` wrote; None for anything else, which only the message tells then."""
    return _NAMED_PRIORITIES.get(value) if isinstance(value, str) else None


def options_to_pb(options: AnalyzeOptions) -> service_pb.AnalyzeOptions:
    """Write the options of a request."""
    return service_pb.AnalyzeOptions(
        model=options.model,
        priority=pb.Priority.Value(f"PRIORITY_{options.priority.name}"),
        detection_size=options.detection_size_px,
        exact=options.exact,
        max_faces=options.max_faces,
    )


def analysis_to_pb(analysis: ImageAnalysis) -> pb.ImageAnalysis:
    """Write what was found in one picture."""
    return pb.ImageAnalysis(
        width_px=analysis.width_px,
        height_px=analysis.height_px,
        faces=[_face_to_pb(face) for face in analysis.faces],
        detector=analysis.detector,
        model=_model_ref_to_pb(analysis.model),
        timings=_timings_to_pb(analysis.timings),
    )


def analysis_from_pb(message: pb.ImageAnalysis) -> ImageAnalysis:
    """Read what was found in one picture."""
    return ImageAnalysis(
        width_px=message.width_px,
        height_px=message.height_px,
        faces=tuple(_face_from_pb(face) for face in message.faces),
        detector=message.detector,
        model=_model_ref_from_pb(message.model),
        timings=_timings_from_pb(message.timings),
    )


def batch_item_to_pb(outcome: ImageAnalysis | FerserveError) -> service_pb.BatchAnalyzeItem:
    """Write what became of one picture of a batch."""
    if isinstance(outcome, FerserveError):
        return service_pb.BatchAnalyzeItem(error=rich_status(outcome))
    return service_pb.BatchAnalyzeItem(analysis=analysis_to_pb(outcome))


def stream_options_from_pb(message: service_pb.StreamOptions) -> StreamOptions:
    """Read how a stream is to be run.

    Raises:
        InvalidRequestError: the mode is not one of the enum's, or a value is out of range.
    """
    mode = _MODES.get(message.mode)
    if mode is None:
        known = ", ".join(service_pb.StreamMode.Name(value) for value in _MODES)
        raise InvalidRequestError(f"mode: expected one of {known}, got {message.mode}")
    return StreamOptions(mode=mode, tracks=message.tracks, smoothing=message.smoothing)


def stream_options_to_pb(options: StreamOptions) -> service_pb.StreamOptions:
    """Write how a stream is to be run."""
    mode = service_pb.StreamMode.Value(f"STREAM_MODE_{options.mode.name}")
    return service_pb.StreamOptions(mode=mode, tracks=options.tracks, smoothing=options.smoothing)


def stream_reply_to_pb(reply: FrameReply) -> service_pb.StreamAnalyzeResponse:
    """Write the reply to one frame of a stream."""
    if isinstance(reply.outcome, Exception):
        return service_pb.StreamAnalyzeResponse(
            id=reply.id, error=rich_status(reply.outcome), dropped_frames=reply.dropped
        )
    return service_pb.StreamAnalyzeResponse(
        id=reply.id, analysis=analysis_to_pb(reply.outcome), dropped_frames=reply.dropped
    )


def outcome_from_pb(
    message: service_pb.BatchAnalyzeItem | service_pb.StreamAnalyzeResponse,
) -> ImageAnalysis | FerserveError:
    """Read what became of one picture of a batch or one frame of a stream."""
    match message.WhichOneof("outcome"):
        case "analysis":
            return analysis_from_pb(message.analysis)
        case "error":
            return error_of(message.error) or FerserveError(message.error.message)
        case _:
            return FerserveError(_EMPTY_OUTCOME)


def classification_to_pb(classification: FacesClassification) -> service_pb.ClassifyFacesResponse:
    """Write the answer to crops."""
    return service_pb.ClassifyFacesResponse(
        items=[_classified_to_pb(item) for item in classification.items],
        model=_model_ref_to_pb(classification.model),
        timings=_timings_to_pb(classification.timings),
    )


def classification_from_pb(message: service_pb.ClassifyFacesResponse) -> FacesClassification:
    """Read the answer to crops."""
    return FacesClassification(
        items=tuple(_classified_from_pb(item) for item in message.items),
        model=_model_ref_from_pb(message.model),
        timings=_timings_from_pb(message.timings),
    )


def model_to_pb(model: ModelInfo) -> pb.ModelInfo:
    """Write the description of a model."""
    return pb.ModelInfo(
        ref=_model_ref_to_pb(model),
        architecture=model.architecture,
        paper=model.paper,
        crop_size_px=model.crop_size_px,
        crop_channels=model.crop_channels,
        temperature=model.temperature,
        uncertain_below=model.uncertain_below,
        figures=model.figures,
        is_default=model.is_default,
    )


def model_from_pb(message: pb.ModelInfo) -> ModelInfo:
    """Read the description of a model."""
    return ModelInfo(
        name=message.ref.name,
        version=message.ref.version,
        archive_sha256=message.ref.archive_sha256,
        preprocess_sha256=message.ref.preprocess_sha256,
        precision=message.ref.precision,
        architecture=message.architecture,
        paper=message.paper,
        crop_size_px=message.crop_size_px,
        crop_channels=message.crop_channels,
        temperature=message.temperature,
        uncertain_below=message.uncertain_below,
        figures=dict(message.figures),
        is_default=message.is_default,
    )


def _face_to_pb(face: ScoredFace) -> pb.Face:
    box = face.detection.box
    landmarks = face.detection.landmarks
    return pb.Face(
        box=pb.BoundingBox(x0=box.x0, y0=box.y0, x1=box.x1, y1=box.y1),
        landmarks=None if landmarks is None else _landmarks_to_pb(landmarks),
        detection_score=face.detection.score,
        scores=_scores_to_pb(face.scores),
        expression=_expression_to_pb(face.expression),
        uncertain=face.uncertain,
        quality=_quality_to_pb(face.quality),
        track_id=face.track_id,
    )


def _face_from_pb(message: pb.Face) -> ScoredFace:
    box = message.box
    return ScoredFace(
        detection=Detection(
            box=Box(x0=box.x0, y0=box.y0, x1=box.x1, y1=box.y1),
            score=message.detection_score,
            landmarks=_landmarks_from_pb(message.landmarks) if message.HasField("landmarks") else None,
        ),
        scores=_scores_from_pb(message.scores),
        uncertain=message.uncertain,
        quality=_quality_from_pb(message.quality),
        track_id=message.track_id if message.HasField("track_id") else None,
    )


def _landmarks_to_pb(landmarks: Landmarks) -> pb.Landmarks:
    points = {name: pb.Point(x=x, y=y) for name, (x, y) in zip(LANDMARKS, landmarks.tolist(), strict=True)}
    return pb.Landmarks(**points)


def _landmarks_from_pb(message: pb.Landmarks) -> Landmarks:
    points = [getattr(message, name) for name in LANDMARKS]
    return np.array([(point.x, point.y) for point in points], dtype=np.float32)


def _scores_to_pb(scores: Scores) -> pb.Scores:
    return pb.Scores(**dict(zip(LABELS, scores.tolist(), strict=True)))


def _scores_from_pb(message: pb.Scores) -> Scores:
    return np.array([getattr(message, label) for label in LABELS], dtype=np.float32)


def _expression_to_pb(expression: Expression) -> pb.Expression.ValueType:
    return pb.Expression.Value(f"EXPRESSION_{expression.name}")


def _quality_to_pb(quality: Quality) -> pb.Quality:
    return pb.Quality(
        size_px=quality.size_px,
        sharpness=quality.sharpness,
        yaw=quality.yaw,
        roll_deg=quality.roll_deg,
        issues=[pb.QualityIssue.Value(f"QUALITY_ISSUE_{issue.name}") for issue in quality.issues],
    )


def _quality_from_pb(message: pb.Quality) -> Quality:
    """Issues that a newer server may name and this version does not know are left out."""
    return Quality(
        size_px=message.size_px,
        sharpness=message.sharpness,
        yaw=message.yaw if message.HasField("yaw") else None,
        roll_deg=message.roll_deg if message.HasField("roll_deg") else None,
        issues=tuple(_ISSUES[issue] for issue in message.issues if issue in _ISSUES),
    )


def _classified_to_pb(item: FaceClassification | FerserveError) -> service_pb.ClassifyFacesItem:
    if isinstance(item, FerserveError):
        return service_pb.ClassifyFacesItem(error=rich_status(item))
    classification = pb.FaceClassification(
        scores=_scores_to_pb(item.scores),
        expression=_expression_to_pb(item.expression),
        uncertain=item.uncertain,
    )
    return service_pb.ClassifyFacesItem(classification=classification)


def _classified_from_pb(message: service_pb.ClassifyFacesItem) -> FaceClassification | FerserveError:
    match message.WhichOneof("outcome"):
        case "classification":
            result = message.classification
            return FaceClassification(scores=_scores_from_pb(result.scores), uncertain=result.uncertain)
        case "error":
            return error_of(message.error) or FerserveError(message.error.message)
        case _:
            return FerserveError(_EMPTY_OUTCOME)


def _model_ref_to_pb(model: ModelRef) -> pb.ModelRef:
    return pb.ModelRef(
        name=model.name,
        version=model.version,
        archive_sha256=model.archive_sha256,
        preprocess_sha256=model.preprocess_sha256,
        precision=model.precision,
    )


def _model_ref_from_pb(message: pb.ModelRef) -> ModelRef:
    return ModelRef(
        name=message.name,
        version=message.version,
        archive_sha256=message.archive_sha256,
        preprocess_sha256=message.preprocess_sha256,
        precision=message.precision,
    )


def _timings_to_pb(timings: StageTimings) -> pb.StageTimings:
    return pb.StageTimings(
        decode_ms=timings.decode_ms,
        detect_ms=timings.detect_ms,
        preprocess_ms=timings.preprocess_ms,
        queue_ms=timings.queue_ms,
        infer_ms=timings.infer_ms,
        total_ms=timings.total_ms,
    )


def _timings_from_pb(message: pb.StageTimings) -> StageTimings:
    return StageTimings(
        decode_ms=message.decode_ms,
        detect_ms=message.detect_ms,
        preprocess_ms=message.preprocess_ms,
        queue_ms=message.queue_ms,
        infer_ms=message.infer_ms,
        total_ms=message.total_ms,
    )
