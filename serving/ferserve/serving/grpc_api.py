"""gRPC in front of the analyzer: translates, reports errors as `google.rpc.Status`, and decides nothing else."""

import asyncio
from collections.abc import AsyncIterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

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
from ferserve.serving.grpc_calls import GrpcCalls, current_call, report_errors
from ferserve.serving.grpc_requests import Arrivals, CallTable, Context, OnCall
from ferserve.serving.grpc_stream import IncomingFrames
from ferserve.serving.health import Health, HealthState
from ferserve.serving.observing import RequestObserver, encoding
from ferserve.serving.oip import InferenceProtocol
from ferserve.serving.oip_api import OIP_SERVICE_NAME, add_inference_service
from ferserve.serving.streams import FrameReply, FrameStream, StreamMode
from ferserve.serving.tls import ServerTls
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
        max_stream_frames_in_flight: unanswered frames of one recorded stream past which no further frame is read.
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
        places: Mapping[StreamMode, int],
        bodies: BodyBudget,
        observer: RequestObserver,
    ) -> None:
        self._analyzer = analyzer
        self._health = health
        self._calls = calls
        self._bodies = bodies
        self._places = places
        self._observer = observer

    async def Analyze(  # noqa: N802 - the service's own name
        self, request: service_pb.AnalyzeRequest, context: Context
    ) -> service_pb.AnalyzeResponse:
        """Analyse one picture."""
        del context
        call = current_call()
        image, options = request.image, options_from_pb(request.options)
        del request  # it holds the picture once more
        analysis = await self._analyzer.analyze(image, options, call)
        with encoding(self._calls.observer):
            return service_pb.AnalyzeResponse(analysis=analysis_to_pb(analysis))

    async def BatchAnalyze(  # noqa: N802 - the service's own name
        self, request: service_pb.BatchAnalyzeRequest, context: Context
    ) -> service_pb.BatchAnalyzeResponse:
        """Analyse many pictures; each has its own outcome."""
        del context
        call = current_call()
        images, options = list(request.images), options_from_pb(request.options)
        del request  # it holds the pictures once more
        outcomes = await self._analyzer.analyze_many(images, options, call)
        report_errors(outcomes, call)
        with encoding(self._calls.observer):
            return service_pb.BatchAnalyzeResponse(items=[batch_item_to_pb(outcome) for outcome in outcomes])

    # The stub asks for an async generator; grpc.aio also takes a coroutine that writes to the context. Only that is
    # sure to be cancelled when the caller leaves: a generator may stay suspended in its `yield`, its frames running.
    async def StreamAnalyze(  # type: ignore[override]  # noqa: N802 - the service's own name
        self, request_iterator: AsyncIterable[service_pb.StreamAnalyzeRequest], context: Context
    ) -> None:
        """Analyse frames as they come."""

        async def reply(answered: FrameReply) -> None:
            with encoding(self._observer):
                message = stream_reply_to_pb(answered)
            # A write fails once the caller has left; gRPC then cancels the whole call by itself.
            with suppress(grpc.aio.BaseError):
                await context.write(message)

        async with self._calls.reporting(context, "StreamAnalyze") as call:
            self._calls.identify("StreamAnalyze", context)
            with self._health.accept():
                frames = IncomingFrames(aiter(request_iterator))
            options = await frames.options()
            stream = FrameStream(
                self._analyzer,
                self._health,
                options,
                call=call,
                places=self._places[options.mode],
                bodies=self._bodies,
                observer=self._observer,
                reply=reply,
                log=lambda error: report_errors([error], call),
            )
            await stream.run(aiter(frames))

    async def ClassifyFaces(  # noqa: N802 - the service's own name
        self, request: service_pb.ClassifyFacesRequest, context: Context
    ) -> service_pb.ClassifyFacesResponse:
        """Score crops that the caller cut out."""
        del context
        call = current_call()
        faces, options = list(request.faces), options_from_pb(request.options)
        del request  # it holds the pictures once more
        classification = await self._analyzer.classify(faces, options, call)
        report_errors(classification.items, call)
        with encoding(self._calls.observer):
            return classification_to_pb(classification)

    async def ListModels(  # noqa: N802 - the service's own name
        self, request: service_pb.ListModelsRequest, context: Context
    ) -> service_pb.ListModelsResponse:
        """List the loaded models."""
        del request, context
        return service_pb.ListModelsResponse(models=[model_to_pb(model) for model in self._analyzer.models()])

    async def GetModel(  # noqa: N802 - the service's own name
        self, request: service_pb.GetModelRequest, context: Context
    ) -> service_pb.GetModelResponse:
        """Describe one loaded model."""
        del context
        return service_pb.GetModelResponse(model=model_to_pb(self._analyzer.model(request.name)))


def build_grpc_server(
    analyzer: Analyzer,
    health: Health,
    config: GrpcConfig,
    *,
    max_image_bytes: int,
    live_frames: int,
    bodies: BodyBudget,
    observer: RequestObserver,
    version: str,
    gate: Gate = OPEN,
    tls: ServerTls | None = None,
    on_call: OnCall | None = None,
) -> tuple[grpc.aio.Server, int]:
    """Build the server with its health and reflection services and bind its port; `await server.start()` runs it.

    To be called on the event loop that will run it. `health` decides what is taken: while it is starting or draining,
    new calls and new frames of open streams get NOT_READY, and grpc.health.v1 says NOT_SERVING.

    Args:
        analyzer: what every call is answered with.
        health: the gateway's state, shared with its other protocols.
        config: how to listen.
        max_image_bytes: the largest picture that the analyzer takes.
        live_frames: of one live stream that are analysed side by side.
        bodies: for all that is held of requests, over every protocol.
        observer: told about every call.
        version: of the package, for those who ask the server's.
        gate: asked about every call before its message is read.
        tls: what connections are secured with; None for none.
        on_call: told of each call before anything else is.
    Returns:
        The server and the port it is bound to.
    Raises:
        ValueError: a picture of `max_image_bytes` would not fit into a message.
        RuntimeError: the address cannot be bound.
    """
    _check_message_size(config, max_image_bytes)
    arrivals = Arrivals(most=config.max_arriving_calls, timeout_s=config.message_timeout_s)
    calls = GrpcCalls(
        health, arrivals=arrivals, bodies=bodies, check_room=analyzer.check_room, observer=observer, gate=gate
    )
    places = {StreamMode.RECORDED: config.max_stream_frames_in_flight, StreamMode.LIVE: live_frames}
    servicer = ExpressionServicer(analyzer, health, calls, places=places, bodies=bodies, observer=observer)
    table = _method_table(calls, servicer, InferenceProtocol(analyzer, health, version=version), health, on_call)
    server = grpc.aio.server(options=config.channel_options)
    server.add_generic_rpc_handlers((table,))
    address = f"{config.host}:{config.port}"
    if tls is None:
        return server, server.add_insecure_port(address)
    return server, server.add_secure_port(address, tls.grpc_credentials())


def _check_message_size(config: GrpcConfig, max_image_bytes: int) -> None:
    least = max_image_bytes + MESSAGE_HEADROOM_BYTES
    if config.max_message_bytes < least:
        raise ValueError(
            f"max_message_bytes must be {least} or more for pictures of {max_image_bytes} bytes, "
            f"got {config.max_message_bytes}"
        )


def _method_table(
    calls: GrpcCalls,
    servicer: ExpressionServicer,
    protocol: InferenceProtocol,
    health: Health,
    on_call: OnCall | None,
) -> CallTable:
    """All that the server answers to: our service, the Open Inference Protocol, health and reflection."""
    table = CallTable(calls.surrounded, SERVICES, on_call)
    server: Any = table  # what adds methods expects a server
    service_grpc.add_ExpressionServiceServicer_to_server(servicer, server)
    add_inference_service(protocol, server)
    health_pb2_grpc.add_HealthServicer_to_server(_mirror(health), server)
    named = (*SERVICES, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflected = reflection.aio.ReflectionServicer(named)  # type: ignore[attr-defined]  # it is in `__all__` as a name
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, server)
    return table


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
