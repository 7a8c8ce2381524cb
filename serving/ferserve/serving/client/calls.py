"""What each call sends and how its answer is read, the same for the blocking and the asyncio client."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from ferserve.faces.errors import FerserveError
from ferserve.serving.convert import (
    analysis_from_pb,
    classification_from_pb,
    model_from_pb,
    options_to_pb,
    outcome_from_pb,
    priority_metadata,
    stream_options_to_pb,
)
from ferserve.serving.requests import AnalyzeOptions, FacesClassification, ImageAnalysis, ModelInfo
from ferserve.serving.streams import StreamOptions
from ferserve.v1 import expression_service_pb2 as pb

DEFAULT_TARGET: Final = "127.0.0.1:50051"
CHANNEL_OPTIONS: Final = (
    # The server bounds what it sends; an answer to a large batch must not fail on this side.
    ("grpc.max_receive_message_length", -1),
    # gRPC would wait up to two minutes before it looks again for a gateway that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
DEFAULT_OPTIONS: Final = AnalyzeOptions()
DEFAULT_STREAM: Final = StreamOptions()

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One unary call: the method's name, its request, how to read its response, and what goes ahead of the request."""

    method: str
    request: Message
    read: Callable[[Any], Result]
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReply:
    """The reply to one frame of a stream.

    Attributes:
        id: the frame's id.
        outcome: what was found, or why nothing can be said.
        dropped_frames: of a live stream, that came between this one and the one answered before it.
    """

    id: int
    outcome: ImageAnalysis | FerserveError
    dropped_frames: int = 0


def analyze_call(image: bytes, options: AnalyzeOptions) -> Call[ImageAnalysis]:
    """One picture."""
    request = pb.AnalyzeRequest(image=image, options=options_to_pb(options))
    metadata = priority_metadata(options.priority)
    return Call("Analyze", request, lambda response: analysis_from_pb(response.analysis), metadata)


def batch_call(images: Sequence[bytes], options: AnalyzeOptions) -> Call[list[ImageAnalysis | FerserveError]]:
    """Many pictures."""
    request = pb.BatchAnalyzeRequest(images=images, options=options_to_pb(options))
    return Call("BatchAnalyze", request, lambda response: [outcome_from_pb(item) for item in response.items])


def classify_call(faces: Sequence[bytes], options: AnalyzeOptions) -> Call[FacesClassification]:
    """Ready-made crops."""
    request = pb.ClassifyFacesRequest(faces=faces, options=options_to_pb(options))
    return Call("ClassifyFaces", request, classification_from_pb, priority_metadata(options.priority))


def models_call() -> Call[list[ModelInfo]]:
    """All loaded models."""
    return Call(
        "ListModels", pb.ListModelsRequest(), lambda response: [model_from_pb(model) for model in response.models]
    )


def model_call(name: str) -> Call[ModelInfo]:
    """One loaded model."""
    return Call("GetModel", pb.GetModelRequest(name=name), lambda response: model_from_pb(response.model))


def frame_to_pb(
    frame: tuple[int, bytes], options: AnalyzeOptions, stream: StreamOptions, frame_timeout_s: float | None
) -> pb.StreamAnalyzeRequest:
    """One frame of a stream; a timeout below a millisecond counts as one."""
    frame_id, image = frame
    timeout_ms = None if frame_timeout_s is None else max(1, round(frame_timeout_s * 1000))
    return pb.StreamAnalyzeRequest(
        id=frame_id,
        image=image,
        options=options_to_pb(options),
        timeout_ms=timeout_ms,
        stream=stream_options_to_pb(stream),
    )


def reply_from_pb(message: pb.StreamAnalyzeResponse) -> StreamReply:
    """The reply to one frame of a stream."""
    return StreamReply(id=message.id, outcome=outcome_from_pb(message), dropped_frames=message.dropped_frames)
