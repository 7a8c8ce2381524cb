"""gRPC in front of the analyzer: translates, reports errors as `google.rpc.Status`, and decides nothing else."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.access import OPEN, Gate
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.convert import (
    analysis_to_pb,
    batch_item_to_pb,
    classification_to_pb,
    model_to_pb,
    options_from_pb,
    stream_reply_to_pb,
)
from ferserve.serving.errors import NotReadyError, OverloadedError
from ferserve.serving.grpc_calls import GrpcCalls, log_internal
from ferserve.serving.grpc_requests import Context, IncomingRequests
from ferserve.serving.health import Health, HealthState
from ferserve.serving.observing import RequestObserver, encoding
from ferserve.serving.oip import InferenceProtocol
from ferserve.serving.oip_api import OIP_SERVICE_NAME, add_inference_service
from ferserve.serving.requests import ImageAnalysis, RequestContext
from ferserve.v1 import expression_service_pb2 as service_pb
from ferserve.v1 import expression_service_pb2_grpc as service_grpc

SERVICE_NAME: Final = service_pb.DESCRIPTOR.services_by_name["ExpressionService"].full_name
SERVICES: Final = (SERVICE_NAME, OIP_SERVICE_NAME)
MAX_PORT: Final = 65535
MESSAGE_HEADROOM_BYTES: Final = 64 * 1024
"""What a message holds beside its one picture, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcConfig:
    """How the gRPC server listens.

    Attributes:
        host: address to listen on; loopback unless told otherwise.
        port: 0 takes any free one.
        max_message_bytes: of one request; gRPC itself refuses a larger one before any of our code runs, so it stands
            above the largest picture and bounds a whole batch.
        max_arriving_calls: calls whose message is still on its way; past it a call is refused before any of its message
            is read. Each may hold up to `max_message_bytes`.
        message_timeout_s: longest that a message may take to arrive; streams may be silent for as long as they like.
        max_stream_frames_in_flight: unanswered frames of one stream past which no further frame is read.
        keepalive_time_s: silence after which the server pings a client.
        keepalive_timeout_s: wait for that ping's answer before the connection is closed.
        min_client_ping_interval_s: a client that pings more often without data is disconnected.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    max_message_bytes: int = 64 * 1024 * 1024
    max_arriving_calls: int = 64
    message_timeout_s: float = 30.0
    max_stream_frames_in_flight: int = 16
    keepalive_time_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    min_client_ping_interval_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MAX_PORT:
            raise ValueError(f"port must be 0 to {MAX_PORT}, got {self.port}")
        if self.max_message_bytes < MESSAGE_HEADROOM_BYTES:
            raise ValueError(
                f"max_message_bytes must be {MESSAGE_HEADROOM_BYTES} or more, got {self.max_message_bytes}"
            )
        for name in ("max_arriving_calls", "max_stream_frames_in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("message_timeout_s", "keepalive_time_s", "keepalive_timeout_s", "min_client_ping_interval_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def channel_options(self) -> list[tuple[str, int]]:
        """The same in gRPC's own words."""
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", round(self.keepalive_time_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.min_client_ping_interval_s * 1000)),
            # Two servers on one port would share its connections silently; an error at start is better.
            ("grpc.so_reuseport", 0),
        ]


class ExpressionServicer(service_grpc.ExpressionServiceServicer):
    """`ferserve.v1.ExpressionService` over an analyzer."""

    def __init__(
        self,
        analyzer: Analyzer,
        health: Health,
        calls: GrpcCalls,
        *,
        max_stream_frames_in_flight: int,
        bodies: BodyBudget,
    ) -> None:
        self._analyzer = analyzer
        self._health = health
        self._calls = calls
        self._bodies = bodies
        self._max_stream_frames_in_flight = max_stream_frames_in_flight

    async def Analyze(  # noqa: N802 - the service's own name
        self, request: service_pb.AnalyzeRequest, context: Context
    ) -> service_pb.AnalyzeResponse:
        """Analyse one picture."""
        async with self._calls.answering(context, "Analyze", request.ByteSize()) as call:
            image, options = request.image, options_from_pb(request.options)
            del request  # it holds the picture once more
            analysis = await self._analyzer.analyze(image, options, call)
            with encoding(self._calls.observer):
                return service_pb.AnalyzeResponse(analysis=analysis_to_pb(analysis))

    async def BatchAnalyze(  # noqa: N802 - the service's own name
        self, request: service_pb.BatchAnalyzeRequest, context: Context
    ) -> service_pb.BatchAnalyzeResponse:
        """Analyse many pictures; each has its own outcome."""
        async with self._calls.answering(context, "BatchAnalyze", request.ByteSize()) as call:
            images, options = list(request.images), options_from_pb(request.options)
            del request  # it holds the pictures once more
            outcomes = await self._analyzer.analyze_many(images, options, call)
            log_internal(outcomes, call)
            with encoding(self._calls.observer):
                return service_pb.BatchAnalyzeResponse(items=[batch_item_to_pb(outcome) for outcome in outcomes])

    # The stub asks for an async generator; grpc.aio also takes a coroutine that writes to the context. Only that is
    # sure to be cancelled when the caller leaves: a generator may stay suspended in its `yield`, its frames running.
    async def StreamAnalyze(  # type: ignore[override]  # noqa: N802 - the service's own name
        self, request_iterator: AsyncIterable[service_pb.StreamAnalyzeRequest], context: Context
    ) -> None:
        """Analyse frames as they come; each gets exactly one reply."""
        async with self._calls.reporting(context, "StreamAnalyze") as call:
            self._calls.identify("StreamAnalyze", context)
            with self._health.accept():
                places = asyncio.Semaphore(self._max_stream_frames_in_flight)
                stream = _FrameStream(
                    self._analyzer, self._health, context, call, places, self._bodies, self._calls.observer
                )
            await stream.run(aiter(request_iterator))

    async def ClassifyFaces(  # noqa: N802 - the service's own name
        self, request: service_pb.ClassifyFacesRequest, context: Context
    ) -> service_pb.ClassifyFacesResponse:
        """Score crops that the caller cut out."""
        async with self._calls.answering(context, "ClassifyFaces", request.ByteSize()) as call:
            faces, options = list(request.faces), options_from_pb(request.options)
            del request  # it holds the pictures once more
            classification = await self._analyzer.classify(faces, options, call)
            log_internal(classification.items, call)
            with encoding(self._calls.observer):
                return classification_to_pb(classification)

    async def ListModels(  # noqa: N802 - the service's own name
        self, request: service_pb.ListModelsRequest, context: Context
    ) -> service_pb.ListModelsResponse:
        """List the loaded models."""
        async with self._calls.answering(context, "ListModels", request.ByteSize()):
            return service_pb.ListModelsResponse(models=[model_to_pb(model) for model in self._analyzer.models()])

    async def GetModel(  # noqa: N802 - the service's own name
        self, request: service_pb.GetModelRequest, context: Context
    ) -> service_pb.GetModelResponse:
        """Describe one loaded model."""
        async with self._calls.answering(context, "GetModel", request.ByteSize()):
            return service_pb.GetModelResponse(model=model_to_pb(self._analyzer.model(request.name)))


class _FrameStream:
    """One StreamAnalyze call: reads a frame for each free place and answers frames side by side.

    All frames share the call's request id, so that a stream is one party to the queue's fairness whatever it sends.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        health: Health,
        context: Context,
        call: RequestContext,
        places: asyncio.Semaphore,
        bodies: BodyBudget,
        observer: RequestObserver,
    ) -> None:
        self._analyzer = analyzer
        self._health = health
        self._context = context
        self._call = call
        self._places = places
        self._bodies = bodies
        self._observer = observer
        self._writing = asyncio.Lock()  # gRPC takes one message at a time

    async def run(self, incoming: AsyncIterator[service_pb.StreamAnalyzeRequest | InvalidRequestError]) -> None:
        """Answer frames until the client sends no more; a caller who leaves cancels every frame with the call.

        Raises:
            InvalidRequestError: what came is no frame, so it has no id to answer to; the frames before it are answered.
        """
        async with asyncio.TaskGroup() as frames:
            while True:
                await self._places.acquire()
                frame = await anext(incoming, None)
                if frame is None or isinstance(frame, InvalidRequestError):
                    break
                frames.create_task(self._answer(frame))
        if frame is not None:
            raise frame

    async def _answer(self, frame: service_pb.StreamAnalyzeRequest) -> None:
        try:
            with self._health.accept(), self._bodies.hold(frame.ByteSize()):
                await self._reply(frame.id, await self._outcome(frame))
        except (NotReadyError, OverloadedError) as error:
            await self._reply(frame.id, error)
        finally:
            self._places.release()

    async def _outcome(self, frame: service_pb.StreamAnalyzeRequest) -> ImageAnalysis | Exception:
        try:
            return await self._analyzer.analyze(frame.image, options_from_pb(frame.options), self._frame_context(frame))
        except Exception as error:  # noqa: BLE001 - a frame's error is its reply, and the stream lives on
            log_internal([error], self._call)
            return error

    def _frame_context(self, frame: service_pb.StreamAnalyzeRequest) -> RequestContext:
        """The stream's id, and the earlier of the frame's deadline and the call's."""
        if not frame.HasField("timeout_ms"):
            return self._call
        if frame.timeout_ms == 0:
            raise InvalidRequestError("timeout_ms: expected 1 or more milliseconds, got 0")
        deadline_s = asyncio.get_running_loop().time() + frame.timeout_ms / 1000
        if self._call.deadline_s is not None:
            deadline_s = min(deadline_s, self._call.deadline_s)
        return RequestContext(request_id=self._call.request_id, deadline_s=deadline_s)

    async def _reply(self, frame_id: int, outcome: ImageAnalysis | Exception) -> None:
        with encoding(self._observer):
            reply = stream_reply_to_pb(frame_id, outcome)
        # A write fails once the caller has left; gRPC then cancels the whole call by itself.
        with suppress(grpc.aio.BaseError):
            async with self._writing:
                await self._context.write(reply)


def build_grpc_server(
    analyzer: Analyzer,
    health: Health,
    config: GrpcConfig,
    *,
    max_image_bytes: int,
    bodies: BodyBudget,
    observer: RequestObserver,
    version: str,
    gate: Gate = OPEN,
) -> tuple[grpc.aio.Server, int]:
    """Build the server with its health and reflection services and bind its port; `await server.start()` runs it.

    To be called on the event loop that will run it. `health` decides what is taken: while it is starting or draining,
    new calls and new frames of open streams get NOT_READY, and grpc.health.v1 says NOT_SERVING.

    Args:
        analyzer: what every call is answered with.
        health: the gateway's state, shared with its other protocols.
        config: how to listen.
        max_image_bytes: the largest picture that the analyzer takes.
        bodies: for all that is held of requests, over every protocol.
        observer: told about every call.
        version: of the package, for those who ask the server's.
        gate: asked about every call before its message is read.
    Returns:
        The server and the port it is bound to.
    Raises:
        ValueError: a picture of `max_image_bytes` would not fit into a message.
        RuntimeError: the address cannot be bound.
    """
    if config.max_message_bytes < max_image_bytes + MESSAGE_HEADROOM_BYTES:
        least = max_image_bytes + MESSAGE_HEADROOM_BYTES
        raise ValueError(
            f"max_message_bytes must be {least} or more for pictures of {max_image_bytes} bytes, "
            f"got {config.max_message_bytes}"
        )
    calls = GrpcCalls(health, bodies, observer, gate)
    servicer = ExpressionServicer(
        analyzer,
        health,
        calls,
        max_stream_frames_in_flight=config.max_stream_frames_in_flight,
        bodies=bodies,
    )
    incoming = IncomingRequests(
        SERVICES,
        calls.refuse,
        identify=calls.identify,
        max_arriving=config.max_arriving_calls,
        timeout_s=config.message_timeout_s,
    )
    server = grpc.aio.server(interceptors=(incoming,), options=config.channel_options)
    service_grpc.add_ExpressionServiceServicer_to_server(servicer, server)
    add_inference_service(InferenceProtocol(analyzer, health, version=version), calls, server)
    health_pb2_grpc.add_HealthServicer_to_server(_mirror(health), server)
    reflection.enable_server_reflection((*SERVICES, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, server.add_insecure_port(f"{config.host}:{config.port}")


def _mirror(health: Health) -> health_pb2_grpc.HealthServicer:
    """A grpc.health.v1 servicer that says, now and from now on, what `health` says."""
    servicer = grpc_health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs leave it out
    running: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    def publish(state: HealthState) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if state is HealthState.READY else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *SERVICES):
            task = asyncio.get_running_loop().create_task(servicer.set(name, status))
            running.add(task)
            task.add_done_callback(running.discard)

    health.subscribe(publish)
    return servicer
