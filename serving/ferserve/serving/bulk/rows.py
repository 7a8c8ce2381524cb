"""The rows of a bulk run: one for each face, one for a picture without a face, one for a picture that failed."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ferserve.faces.errors import FerserveError, Reason
from ferserve.faces.labels import LABELS
from ferserve.faces.types import LANDMARKS, ScoredFace
from ferserve.serving.bulk.sources.errors import SourceError
from ferserve.serving.requests import ImageAnalysis
from ferserve.serving.status import public_error

Row = dict[str, Any]
Outcome = ImageAnalysis | Exception


class ColumnType(StrEnum):
    """What a column holds; every column may also hold nothing."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    TRUTH = "truth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the table."""

    name: str
    kind: ColumnType
    meaning: str


class PictureStatus(StrEnum):
    """What became of a picture."""

    OK = "ok"
    NO_FACE = "no_face"
    ERROR = "error"


def _column(name: str, kind: ColumnType, meaning: str) -> Column:
    return Column(name=name, kind=kind, meaning=meaning)


COLUMNS: Final = (
    _column(
        "path", ColumnType.TEXT, "the picture, as it was found; ARCHIVE!/MEMBER, VIDEO#t=SECONDS; empty if not asked"
    ),
    _column(
        "content_sha256", ColumnType.TEXT, "SHA-256 of the encoded picture, 64 hex digits; empty if it was not read"
    ),
    _column("time_s", ColumnType.NUMBER, "of a video's frame, from the video's beginning"),
    _column("status", ColumnType.TEXT, "ok (a face), no_face, or error"),
    _column("code", ColumnType.TEXT, "stable code of an error, such as INVALID_IMAGE; empty otherwise"),
    _column("message", ColumnType.TEXT, "what was expected and what came; empty without an error"),
    _column("width_px", ColumnType.INTEGER, "of the picture after EXIF rotation"),
    _column("height_px", ColumnType.INTEGER, "of the picture after EXIF rotation"),
    _column("face", ColumnType.INTEGER, "number of the face in its picture, from 0, highest detection score first"),
    *(
        _column(f"box_{edge}", ColumnType.NUMBER, "edge of the half-open box, pixels of the picture")
        for edge in ("x0", "y0", "x1", "y1")
    ),
    *(
        _column(f"{point}_{axis}", ColumnType.NUMBER, "landmark, pixels of the picture; right is the person's own")
        for point in LANDMARKS
        for axis in ("x", "y")
    ),
    _column("detection_score", ColumnType.NUMBER, "the detector's confidence, 0 to 1, on its own scale"),
    _column("expression", ColumnType.TEXT, "the expression with the highest score"),
    *(_column(label, ColumnType.NUMBER, "calibrated score, 0 to 1; the seven sum to 1") for label in LABELS),
    _column("uncertain", ColumnType.TRUTH, "the highest score lies below the archive's threshold"),
    _column("size_px", ColumnType.NUMBER, "shorter side of the box, pixels of the picture"),
    _column("sharpness", ColumnType.NUMBER, "variance of the Laplacian of the grey crop; below about 20 is blurred"),
    _column("yaw", ColumnType.NUMBER, "-1 (to the person's own right) to 1; 0 is frontal"),
    _column("roll_deg", ColumnType.NUMBER, "tilt of the eye line in degrees, clockwise positive"),
    _column("crop", ColumnType.TEXT, "file name of the face's crop, where crops were asked for"),
    _column("issues", ColumnType.TEXT, "why the face is a poor one, separated by spaces; empty for a good one"),
    _column("detector", ColumnType.TEXT, "the detector that ran"),
    _column("model", ColumnType.TEXT, "name of the archive"),
    _column("model_version", ColumnType.TEXT, "version of the archive"),
    _column("archive_sha256", ColumnType.TEXT, "SHA-256 of the archive, 64 hex digits"),
    _column("preprocess_sha256", ColumnType.TEXT, "SHA-256 of the pixel rules, 64 hex digits"),
    _column("precision", ColumnType.TEXT, "what the scores were computed in, fp32 or int8"),
)
_EMPTY: Final[Row] = dict.fromkeys(column.name for column in COLUMNS)


FINAL: Final = frozenset({Reason.INVALID_IMAGE, Reason.UNSUPPORTED_MEDIA, Reason.IMAGE_TOO_LARGE})
"""Errors that the same bytes always give."""


def rows_of(
    path: str | None, outcome: Outcome, *, content: bytes | None = None, time_s: float | None = None
) -> list[Row]:
    """The rows of one picture, each with every column of `COLUMNS`; None where a column does not apply.

    Args:
        content: SHA-256 of the encoded picture, 32 bytes; None if it could not be read.
        time_s: of a video's frame.
    """
    item = _EMPTY | {"path": path, "content_sha256": None if content is None else content.hex(), "time_s": time_s}
    if isinstance(outcome, Exception):
        return [item | _error(outcome)]
    picture = item | {
        "width_px": outcome.width_px,
        "height_px": outcome.height_px,
        "detector": outcome.detector,
        "model": outcome.model.name,
        "model_version": outcome.model.version,
        "archive_sha256": outcome.model.archive_sha256,
        "preprocess_sha256": outcome.model.preprocess_sha256,
        "precision": outcome.model.precision,
    }
    if not outcome.faces:
        return [picture | {"status": PictureStatus.NO_FACE.value}]
    ok = {"status": PictureStatus.OK.value}
    return [picture | ok | {"face": number} | _face(face) for number, face in enumerate(outcome.faces)]


def rows_elsewhere(rows: list[Row], path: str | None, time_s: float | None) -> list[Row]:
    """The rows of a picture for another place that holds the same bytes."""
    return [row | {"path": path, "time_s": time_s} for row in rows]


def is_final(row: Row) -> bool:
    """Whether the same bytes would get the same row again."""
    return row["status"] != PictureStatus.ERROR or row["code"] in FINAL


def _error(error: Exception) -> Row:
    shown: SourceError | FerserveError = error if isinstance(error, SourceError) else public_error(error)
    code = shown.code.value if isinstance(shown, SourceError) else shown.reason.value
    return {"status": PictureStatus.ERROR.value, "code": code, "message": shown.message}


def _face(face: ScoredFace) -> Row:
    box, quality = face.detection.box, face.quality
    return {
        "box_x0": float(box.x0),
        "box_y0": float(box.y0),
        "box_x1": float(box.x1),
        "box_y1": float(box.y1),
        **_landmarks(face),
        "detection_score": float(face.detection.score),
        "expression": face.expression.label,
        **dict(zip(LABELS, face.scores.tolist(), strict=True)),
        "uncertain": face.uncertain,
        "size_px": float(quality.size_px),
        "sharpness": float(quality.sharpness),
        "yaw": None if quality.yaw is None else float(quality.yaw),
        "roll_deg": None if quality.roll_deg is None else float(quality.roll_deg),
        "issues": " ".join(issue.value for issue in quality.issues),
    }


def _landmarks(face: ScoredFace) -> Row:
    points = face.detection.landmarks
    if points is None:
        return {}
    names = (f"{point}_{axis}" for point in LANDMARKS for axis in ("x", "y"))
    return dict(zip(names, points.reshape(-1).tolist(), strict=True))
