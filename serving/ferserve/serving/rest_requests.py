"""The JSON that REST callers send: the protobuf JSON of `ferserve.v1`'s requests with the fields' own names."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ferserve.faces.occlusion import MAX_GRID, MIN_GRID
from ferserve.serving.requests import (
    MAX_DETECTION_SIZE_PX,
    MAX_FACES_LIMIT,
    MIN_DETECTION_SIZE_PX,
    AnalyzeOptions,
    OcclusionQuestion,
    Priority,
)
from ferserve.serving.rest_calls import MAX_TIMEOUT_MS
from ferserve.serving.streams import StreamMode, StreamOptions
from ferserve.serving.tracking import MAX_SMOOTHING

PRIORITY_PREFIX: Final = "PRIORITY_"


def _priority_word(value: Any) -> Any:
    """Bring the proto's `PRIORITY_BULK` and the word `bulk` to the word."""
    return value.upper().removeprefix(PRIORITY_PREFIX).lower() if isinstance(value, str) else value


class _Request(BaseModel):
    # Base64 as protobuf's JSON reads it: the standard or the URL-safe alphabet, padded or not.
    model_config = ConfigDict(frozen=True, extra="forbid", val_json_bytes="base64")


class OptionsMessage(_Request):
    """What a caller may ask for: query parameters of raw and multipart bodies, `options` in JSON."""

    model: str = Field("", description="Name of a loaded model; empty for the default one.")
    priority: Annotated[Literal["unspecified", "interactive", "bulk"], BeforeValidator(_priority_word)] = Field(
        "interactive", description="Which queue the faces wait in; the proto's name, PRIORITY_BULK, is read as well."
    )
    detection_size: int | None = Field(
        None,
        ge=MIN_DETECTION_SIZE_PX,
        le=MAX_DETECTION_SIZE_PX,
        description="Longer side in pixels that the picture is brought down to before detection.",
    )
    exact: bool = Field(
        default=False, description="Decode and detect at full resolution, for small faces in large pictures; slower."
    )
    max_faces: int | None = Field(
        None, ge=1, le=MAX_FACES_LIMIT, description="Keep the faces with the highest detection scores only."
    )

    def to_options(self) -> AnalyzeOptions:
        """The same, free of the protocol."""
        return AnalyzeOptions(
            model=self.model,
            priority=Priority.BULK if self.priority == "bulk" else Priority.INTERACTIVE,
            detection_size_px=self.detection_size,
            exact=self.exact,
            max_faces=self.max_faces,
        )


class StreamOptionsMessage(OptionsMessage):
    """What a stream may ask for: query parameters of the WebSocket's address, or its first text message."""

    mode: Literal["recorded", "live"] = Field(
        "recorded", description="Every frame, which slows the sender down; or the newest, which drops older ones."
    )
    tracks: bool = Field(default=False, description="Follow faces from frame to frame: each gets a track_id.")
    smoothing: float = Field(
        0.0, ge=0, le=MAX_SMOOTHING, description="Weight that a face's earlier scores and box keep; turns tracks on."
    )
    timeout_ms: int | None = Field(
        None, ge=1, le=MAX_TIMEOUT_MS, description="Milliseconds after its arrival at which a frame is of no use."
    )

    def to_stream_options(self) -> StreamOptions:
        """How the stream is run, free of the protocol."""
        return StreamOptions(mode=StreamMode(self.mode), tracks=self.tracks, smoothing=self.smoothing)


class OcclusionOptionsMessage(OptionsMessage):
    """What an occlusion map may be asked for, as query parameters."""

    face: int = Field(
        0, ge=0, description="Place of the face in the answer of images:analyze for the same picture and options."
    )
    grid: int = Field(
        OcclusionQuestion().grid,
        ge=MIN_GRID,
        le=MAX_GRID,
        description="Places along one side of the map; the cost is its square in faces.",
    )

    def to_question(self) -> OcclusionQuestion:
        """The same, free of the protocol."""
        return OcclusionQuestion(face=self.face, grid=self.grid)


class AnalyzeMessage(_Request):
    """One picture as JSON."""

    image: bytes = Field(description="The encoded picture in base64.")
    options: OptionsMessage = OptionsMessage()

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The one picture."""
        return (self.image,)


class BatchAnalyzeMessage(_Request):
    """Many pictures as JSON."""

    images: list[bytes] = Field(description="Encoded pictures, each in base64.")
    options: OptionsMessage = OptionsMessage()

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The pictures in the order sent."""
        return tuple(self.images)


class ClassifyFacesMessage(_Request):
    """Ready-made crops as JSON."""

    faces: list[bytes] = Field(description="Encoded pictures of one face each, in base64.")
    options: OptionsMessage = OptionsMessage()

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The crops in the order sent."""
        return tuple(self.faces)


PicturesMessage = AnalyzeMessage | BatchAnalyzeMessage | ClassifyFacesMessage
