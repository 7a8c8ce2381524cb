"""What a gateway and a TorchServe worker say to each other; the one place where both forms are written down.

TorchServe hands over a request as a map of named inputs, and which inputs there are says what is asked:

    crops                       `.npy`, uint8 (N, S, S, C)
                                -> `.npy`, float32 (N, 7): calibrated scores, a row for each crop
    photo.NAME, one or more     encoded pictures; beside them `options`, JSON, may be missing: {"detection_size_px",
                                "exact", "max_faces"}
                                -> JSON {"NAME": photo or error, ...}; one bad picture is an error in its own place
    describe                    its value means nothing
                                -> JSON, see `Description`
    data or body                what TorchServe calls a body without a name over REST: crops if it begins as `.npy`
                                does, otherwise one picture
                                -> as for crops, or JSON: photo or error

    photo   {"width_px", "height_px", "detector", "found", "skipped", "faces": [face, ...], "timings_ms": {"decode",
            "detect", "preprocess", "infer"}}, faces in the order of their detection score
    face    {"box": [x0, y0, x1, y1], "detection_score", "landmarks": [[x, y] x 5] or null, "scores": {label: score},
            "expression": label, "uncertain", "quality": {"size_px", "sharpness", "yaw", "roll_deg", "issues"}}
    error   {"error": {"reason": one of `Reason`, "message"}}

Units and frames are those of `types`. A reply to crops that begins with a brace is an error: over gRPC TorchServe
answers OK whatever status a handler sets.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import numpy as np

from ferserve.faces.errors import FerserveError, InvalidRequestError, Reason
from ferserve.faces.labels import EXPRESSIONS, LABELS
from ferserve.faces.types import Box, Detection, Quality, QualityIssue, ScoredFace

MAX_MESSAGE_BYTES: Final = 64 * 2**20
"""Of a request and of an answer, on both sides; TorchServe's own default is 6.5 MB."""
CROPS: Final = "crops"
PHOTO_PREFIX: Final = "photo."
OPTIONS: Final = "options"
DESCRIBE: Final = "describe"
UNNAMED: Final = ("data", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoOptions:
    """How pictures are searched, as in the API.

    Attributes:
        detection_size_px: longer side that a picture is searched at, 1 or more; None leaves it to the detector.
        exact: search every pixel; `detection_size_px` then means nothing.
        max_faces: keep so many faces, those with the highest detection scores; None keeps all.
    """

    detection_size_px: int | None = None
    exact: bool = False
    max_faces: int | None = None

    def __post_init__(self) -> None:
        for name in ("detection_size_px", "max_faces"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidRequestError(f"options: {name}: expected a whole number from 1 or null, got {value!r}")
        if type(self.exact) is not bool:
            raise InvalidRequestError(f"options: exact: expected true or false, got {self.exact!r}")

    def pack(self) -> bytes:
        """As JSON."""
        return _json(asdict(self))

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Self:
        """Read JSON.

        Raises:
            InvalidRequestError: no JSON object, an unknown key or a wrong value.
        """
        known = {field.name for field in fields(cls)}
        value = read_object(data)
        if not known.issuperset(value):
            raise InvalidRequestError(f"options: expected keys of {sorted(known)}, got {sorted(value)}")
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a worker runs.

    Attributes:
        model, version: of the archive.
        program_sha256: of the archive's `model.pt2`: who has the same archive knows that it is the same model.
        preprocess_sha256: hash of the rules by which photos become crops.
        precision: what it computes in: `fp32` or `fp16`.
        device: such as `cpu` or `cuda:0`.
        detector: what searches photos.
    """

    model: str
    version: str
    program_sha256: str
    preprocess_sha256: str
    precision: str
    device: str
    detector: str

    def pack(self) -> bytes:
        """As JSON."""
        return _json(asdict(self))

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Self:
        """Read JSON.

        Raises:
            InvalidRequestError: not what `pack` writes.
            RemoteError: the worker answered with an error.
        """
        value = read_reply(data)
        known = {field.name for field in fields(cls)}
        if set(value) != known or not all(isinstance(entry, str) for entry in value.values()):
            raise InvalidRequestError(f"expected a description with the texts {sorted(known)}, got {sorted(value)}")
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPhoto:
    """One picture with its scored faces.

    Attributes:
        width_px, height_px: of the original picture after EXIF rotation.
        detector: name of the detector that ran.
        found: faces that it found.
        skipped: of those kept by `max_faces`, how many gave no crop.
        faces: highest detection score first.
        decode_s, detect_s, preprocess_s: spent on this picture.
        infer_s: spent on the batch that its faces were in.
    """

    width_px: int
    height_px: int
    detector: str
    found: int
    skipped: int
    faces: tuple[ScoredFace, ...]
    decode_s: float
    detect_s: float
    preprocess_s: float
    infer_s: float


class RemoteError(FerserveError):
    """An error that a worker answered with.

    Attributes:
        reason: the worker's, not this class's.
    """

    reason: Reason  # type: ignore[misc] # here it is the other side's, so each error has its own

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def pack_error(error: FerserveError) -> bytes:
    """An error as a whole reply."""
    return _json(error_object(error))


def pack_photo(outcome: ScoredPhoto | FerserveError) -> bytes:
    """One picture's outcome as a whole reply."""
    return _json(_outcome_object(outcome))


def pack_photos(outcomes: Mapping[str, ScoredPhoto | FerserveError]) -> bytes:
    """The outcomes of named pictures as a whole reply."""
    return _json({name: _outcome_object(outcome) for name, outcome in outcomes.items()})


def unpack_photos(data: bytes | bytearray) -> dict[str, ScoredPhoto | RemoteError]:
    """Read what `pack_photos` wrote.

    Raises:
        RemoteError: the worker answered with an error for all of them.
        InvalidRequestError: something else.
    """
    try:
        return {name: _outcome(value) for name, value in read_reply(data).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequestError(f"expected photos, got JSON of another form: {type(error).__name__}") from error


def read_reply(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object that is no error.

    Raises:
        RemoteError: it is one.
        InvalidRequestError: it is no JSON object.
    """
    value = read_object(data)
    error = _error(value)
    if error is not None:
        raise error
    return value


def read_object(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidRequestError: something else.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"expected a JSON object, got {len(data)} other bytes") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"expected a JSON object, got {type(value).__name__}")
    return value


def error_object(error: FerserveError) -> dict[str, Any]:
    """An error as JSON has it."""
    return {"error": {"reason": error.reason.value, "message": error.message}}


def _error(value: Mapping[str, Any]) -> RemoteError | None:
    """The error that an object is, if it is one; TorchServe's own are {"code", "type", "message"}."""
    if set(value) == {"error"}:
        inner = value["error"] if isinstance(value["error"], dict) else {}
        try:
            return RemoteError(Reason(str(inner.get("reason"))), str(inner.get("message")))
        except ValueError:
            return RemoteError(Reason.INTERNAL, "an error without a known reason")
    if set(value) == {"code", "type", "message"}:
        return RemoteError(Reason.WORKER_FAILED, f"TorchServe: {value['code']} {value['type']}")
    return None


def _outcome_object(outcome: ScoredPhoto | FerserveError) -> dict[str, Any]:
    if isinstance(outcome, FerserveError):
        return error_object(outcome)
    stages = ("decode", "detect", "preprocess", "infer")
    return {
        "width_px": outcome.width_px,
        "height_px": outcome.height_px,
        "detector": outcome.detector,
        "found": outcome.found,
        "skipped": outcome.skipped,
        "faces": [_face_object(face) for face in outcome.faces],
        "timings_ms": {stage: getattr(outcome, f"{stage}_s") * 1000 for stage in stages},
    }


def _outcome(value: dict[str, Any]) -> ScoredPhoto | RemoteError:
    error = _error(value)
    if error is not None:
        return error
    return ScoredPhoto(
        width_px=int(value["width_px"]),
        height_px=int(value["height_px"]),
        detector=str(value["detector"]),
        found=int(value["found"]),
        skipped=int(value["skipped"]),
        faces=tuple(_face(face) for face in value["faces"]),
        **{f"{stage}_s": float(value_ms) / 1000 for stage, value_ms in value["timings_ms"].items()},
    )


def _face_object(face: ScoredFace) -> dict[str, Any]:
    box, landmarks = face.detection.box, face.detection.landmarks
    return {
        "box": [float(edge) for edge in (box.x0, box.y0, box.x1, box.y1)],
        "detection_score": float(face.detection.score),
        "landmarks": None if landmarks is None else landmarks.tolist(),
        "scores": dict(zip(LABELS, face.scores.tolist(), strict=True)),
        "expression": face.expression.label,
        "uncertain": face.uncertain,
        "quality": asdict(face.quality),
    }


def _face(value: dict[str, Any]) -> ScoredFace:
    x0, y0, x1, y1 = map(float, value["box"])
    points = value["landmarks"]
    quality = value["quality"]
    scores = np.array([value["scores"][expression.label] for expression in EXPRESSIONS], dtype=np.float32)
    return ScoredFace(
        detection=Detection(
            box=Box(x0=x0, y0=y0, x1=x1, y1=y1),
            score=float(value["detection_score"]),
            landmarks=None if points is None else np.array(points, dtype=np.float32).reshape(5, 2),
        ),
        scores=scores,
        uncertain=bool(value["uncertain"]),
        quality=Quality(**quality | {"issues": tuple(QualityIssue(issue) for issue in quality["issues"])}),
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
