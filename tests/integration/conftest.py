"""Two kinds of gateway with real protocol servers.

One stands over a hand-written analyzer, for the tests of what is before the analyzer; the other over the real one with
a detector that holds whoever asks, for the tests of what happens while requests are in flight.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import cv2
import grpc
import numpy as np
import pytest

from ferserve.faces.align import Square
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError, Reason
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.types import Box, Detection, Image, Quality, QualityIssue, ScoredFace
from ferserve.serving.admin import AdminConfig
from ferserve.serving.admission import Admission, AdmissionConfig, Bound
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.app import Gateway
from ferserve.serving.batcher import Batcher
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import Engine
from ferserve.serving.errors import ModelNotFoundError
from ferserve.serving.grpc_api import GrpcConfig, build_grpc_server
from ferserve.serving.health import Health
from ferserve.serving.metrics import Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.preparers.threads import thread_site
from ferserve.serving.requests import (
    AnalyzeOptions,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    OcclusionAnalysis,
    OcclusionQuestion,
    Priority,
    RequestContext,
    StageTimings,
)
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.tls import ServerTls
from ferserve.serving.worker_board import ModelWorkers, WorkerBoard
from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

MODEL = ModelInfo(
    name="mobilenet",
    version="1.2.0",
    architecture="MobileNet",
    paper="A paper",
    archive_sha256="a" * 64,
    preprocess_sha256="b" * 64,
    precision="int8",
    crop_size_px=112,
    crop_channels=3,
    temperature=1.3,
    uncertain_below=0.35,
    figures={"fer2013.accuracy": 0.7},
    is_default=True,
)
SCORES = np.array([0.1, 0.0, 0.1, 0.5, 0.1, 0.1, 0.1], dtype=np.float32)
TIMINGS = StageTimings(decode_ms=1.0, detect_ms=2.0, preprocess_ms=0.5, queue_ms=0.25, infer_ms=4.0, total_ms=8.0)
ANALYSIS = ImageAnalysis(
    width_px=640,
    height_px=480,
    faces=(
        ScoredFace(
            detection=Detection(
                box=Box(x0=-2.5, y0=10.0, x1=50.25, y1=70.0),
                score=0.75,
                landmarks=np.arange(10, dtype=np.float32).reshape(5, 2),
            ),
            scores=SCORES,
            uncertain=False,
            quality=Quality(size_px=52.75, sharpness=21.5, yaw=-0.125, roll_deg=4.0, issues=(QualityIssue.CUT_OFF,)),
        ),
    ),
    detector="haar",
    model=MODEL,
    timings=TIMINGS,
)


@dataclass
class FakeAnalyzer:
    """Answers every picture with ANALYSIS, save those named here.

    `errors` holds what to raise for a picture; pictures that start with `hold` wait until `release` is set. `started`
    and `left` get every picture whose analysis began or was cancelled.
    """

    errors: dict[bytes, Exception] = field(default_factory=dict)
    asked: list[tuple[bytes, AnalyzeOptions, RequestContext]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    left: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    def check_room(self, priority: Priority, context: RequestContext) -> None:
        """There always is."""

    async def analyze(self, data: bytes, options: AnalyzeOptions, context: RequestContext) -> ImageAnalysis:
        self.asked.append((data, options, context))
        self.started.put_nowait(data)
        if data.startswith(b"hold"):
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.left.put_nowait(data)
                raise
        if data in self.errors:
            raise self.errors[data]
        return ANALYSIS

    async def analyze_many(
        self, images: Sequence[bytes], options: AnalyzeOptions, context: RequestContext
    ) -> list[ImageAnalysis | FerserveError]:
        outcomes: list[ImageAnalysis | FerserveError] = []
        for image in images:
            try:
                outcomes.append(await self.analyze(image, options, context))
            except FerserveError as error:
                outcomes.append(error)
        return outcomes

    async def occlusion(
        self, data: bytes, options: AnalyzeOptions, question: OcclusionQuestion, context: RequestContext
    ) -> OcclusionAnalysis:
        analysis = await self.analyze(data, options, context)
        return OcclusionAnalysis(
            width_px=analysis.width_px,
            height_px=analysis.height_px,
            face=analysis.faces[question.face],
            square=Square(30 + 40j, 20 + 10j),
            drops=np.linspace(-1, 1, question.grid**2, dtype=np.float32).reshape(question.grid, question.grid),
            model=MODEL,
            timings=TIMINGS,
        )

    async def classify(
        self, faces: Sequence[bytes], options: AnalyzeOptions, context: RequestContext
    ) -> FacesClassification:
        outcomes = await self.analyze_many(faces, options, context)
        items = tuple(
            outcome if isinstance(outcome, FerserveError) else FaceClassification(scores=SCORES, uncertain=True)
            for outcome in outcomes
        )
        return FacesClassification(items=items, model=MODEL, timings=TIMINGS)

    def models(self) -> list[ModelInfo]:
        return [MODEL]

    def check_model(self, name: str) -> None:
        self.model(name)

    def model(self, name: str) -> ModelInfo:
        if name not in ("", MODEL.name):
            raise ModelNotFoundError(f"model: expected one of {MODEL.name}, got {name}")
        return MODEL


@dataclass
class FakeObserver:
    """Keeps what was reported of each request (method or route, and reason), and of the frames of streams."""

    done: asyncio.Queue[tuple[str, Reason | None]] = field(default_factory=asyncio.Queue)
    frames: list[Reason | None] = field(default_factory=list)
    open_streams: int = 0
    dropped: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        assert duration_s >= 0
        self.done.put_nowait((method, reason))

    def stream_opened(self) -> None:
        self.open_streams += 1

    def stream_closed(self) -> None:
        self.open_streams -= 1

    def frame_done(self, reason: Reason | None) -> None:
        self.frames.append(reason)

    def frames_dropped(self, frames: int) -> None:
        self.dropped.put_nowait(frames)

    def encoded(self, duration_s: float) -> None:
        assert duration_s >= 0


@dataclass
class GrpcGateway:
    """A running gRPC server and what stands behind it."""

    analyzer: FakeAnalyzer
    health: Health
    observer: FakeObserver
    server: grpc.aio.Server
    target: str


@pytest.fixture
def sample_analysis() -> ImageAnalysis:
    return ANALYSIS


@pytest.fixture
def sample_model() -> ModelInfo:
    return MODEL


@pytest.fixture
def fake_analyzer() -> FakeAnalyzer:
    return FakeAnalyzer()


@pytest.fixture
def fake_observer() -> FakeObserver:
    return FakeObserver()


@pytest.fixture
async def start_grpc() -> AsyncIterator[Callable[..., GrpcGateway]]:
    """Start gRPC gateways on free loopback ports; they are stopped after the test."""
    servers: list[grpc.aio.Server] = []

    async def start(
        *,
        max_image_bytes: int = 1024,
        max_held_bytes: int = 2**30,
        ready: bool = True,
        tls: ServerTls | None = None,
        **settings: float,
    ) -> GrpcGateway:
        analyzer, health, observer = FakeAnalyzer(), Health(), FakeObserver()
        if ready:
            health.ready()
        config = GrpcConfig(port=0, **settings)
        server, port = build_grpc_server(
            analyzer,
            health,
            config,
            max_image_bytes=max_image_bytes,
            live_frames=1,
            bodies=BodyBudget(max_held_bytes),
            observer=observer,
            version="1.2.3",
            tls=tls,
        )
        servers.append(server)
        await server.start()
        return GrpcGateway(analyzer, health, observer, server, f"127.0.0.1:{port}")

    yield start
    for server in servers:
        await server.stop(None)


@pytest.fixture
async def grpc_gateway(start_grpc) -> GrpcGateway:
    return await start_grpc()


class HeldDetector(Detector):
    """Finds one face in everything, and holds every thread that asks until it is let go."""

    name = "held"

    def default_size_px(self, height_px: int, width_px: int) -> int:  # noqa: ARG002 - as every detector
        return 64

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:  # noqa: ARG002 - as every detector
        assert self.let_go.wait(30)
        return [Detection(box=Box(x0=0.0, y0=0.0, x1=16.0, y1=16.0), score=0.5)]


class SameScores:
    """A worker that gives every crop the same scores."""

    concurrency = 1

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:  # noqa: ARG002 - as every worker
        return np.tile(SCORES, (len(batch), 1))

    async def probe(self) -> None: ...

    def describe(self) -> WorkerInfo:
        return WorkerInfo(
            kind="fake", model=MODEL.name, version="1", crop_shape=(16, 16, 1), precision="fp32", detail=""
        )

    async def close(self) -> None: ...


class HeldGateway:
    """All servers over the real engine, whose detector holds every photo until `detector.let_go` is set."""

    def __init__(self, threads: ThreadPoolExecutor, **admission: int) -> None:
        self.metrics, self.detector = Metrics(), HeldDetector()
        self._came = asyncio.Event()
        self.admission = Admission(AdmissionConfig(**admission), bulk_share=0.05, observer=self, clock=time.monotonic)
        batcher = Batcher(
            SameScores(), BatchPolicyConfig(), observer=self.metrics.batches(MODEL.name), clock=time.monotonic
        )
        spec = PreprocessSpec(size_px=16, channels=1)
        models = {MODEL.name: LoadedModel(info=MODEL, spec=spec, worker=SameScores(), batcher=batcher)}
        self.analyzer = Analyzer(
            models,
            MODEL.name,
            site=thread_site(
                threads, self.detector, AnalyzerConfig(threads=1), limits=DecodeLimits(), clock=time.monotonic
            ),
            config=AnalyzerConfig(threads=1),
            admission=self.admission,
            bulk_share=0.05,
            observer=self.metrics,
            clock=time.monotonic,
        )
        workers, board = ModelWorkers(), WorkerBoard(self.metrics.workers)
        workers.circuit_changed("fake", CircuitState.CLOSED)
        board.show(MODEL.name, workers)
        engine = Engine(
            analyzer=self.analyzer,
            shelf=SimpleNamespace(models=models),
            admission=self.admission,
            workers=board,
            detector="held",
        )
        config = ServeConfig(grpc=GrpcConfig(port=0), http=HttpConfig(port=0), admin=AdminConfig(port=0))
        self.gateway = Gateway(config, engine, self.metrics)
        self.grpc, self.rest = self.gateway.addresses["gRPC"], self.gateway.addresses["REST"]

    def refused(self, bound: Bound, priority: Priority) -> None:
        self.metrics.refused(bound, priority)

    def in_flight(self, _images: int) -> None:
        self._came.set()

    async def accepted(self, images: int) -> None:
        """Wait until so many pictures are in flight."""
        while self.admission.images_in_flight < images:
            self._came.clear()
            await self._came.wait()


@pytest.fixture
def photo() -> bytes:
    """A grey PNG; every detector of these tests finds in it what it is told to."""
    done, encoded = cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))
    assert done
    return encoded.tobytes()


@pytest.fixture
async def start_held() -> AsyncIterator[Callable[..., HeldGateway]]:
    """Start held gateways on free loopback ports; they are let go and stopped after the test."""
    started: list[HeldGateway] = []
    with ThreadPoolExecutor(1) as threads:

        async def start(**admission: int) -> HeldGateway:
            held = HeldGateway(threads, **admission)
            started.append(held)
            await held.gateway.start()
            return held

        yield start
        for held in started:
            held.detector.let_go.set()
            await held.gateway.stop(0)
            await held.analyzer.close()
