"""What operators see in Prometheus: every metric of the gateway, with fixed names and few labels.

The engine knows the small observer protocols beside its parts and not Prometheus; `Metrics` implements them. Each has a
registry of its own, so that two gateways in one process (or test) do not share counters. Labels take values from closed
sets (stages, reasons, loaded archives), never from what a caller sends.
"""

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from ferserve.faces.errors import Reason
from ferserve.faces.labels import Expression
from ferserve.serving.admission import Bound
from ferserve.serving.counted.faces import Faces
from ferserve.serving.counted.info import Info
from ferserve.serving.counted.load import BatchMetrics, Load, PreparationMetrics
from ferserve.serving.counted.process import FamilyCollector
from ferserve.serving.counted.requests import Requests, Streams
from ferserve.serving.counted.workers import WorkerMetrics, Workers
from ferserve.serving.requests import ModelInfo, Priority

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OK: Final = "OK"


class Metrics:
    """All metrics of one gateway. The `AdmissionObserver` and `AnalysisObserver` of its engine.

    Attributes:
        registry: what `/metrics` exposes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Requests(self.registry)
        self._streams = Streams(self.registry)
        self._faces = Faces(self.registry)
        self._load = Load(self.registry)
        self._workers = Workers(self.registry)
        self._info = Info(self.registry)
        FamilyCollector(self.registry)

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format; send it as `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered.

        Args:
            method: name of the RPC or the route's template, never a path as it came.
            reason: why it failed; None for success.
        """
        total, duration = self._requests.of(method, OK if reason is None else reason.value)
        total.inc()
        duration.observe(duration_s)

    def stream_opened(self) -> None:
        """A stream began."""
        self._streams.open.inc()

    def stream_closed(self) -> None:
        """A stream ended."""
        self._streams.open.dec()

    def frame_done(self, reason: Reason | None) -> None:
        """One frame of a stream was answered."""
        self._streams.frames.labels(OK if reason is None else reason.value).inc()

    def frames_dropped(self, frames: int) -> None:
        """So many frames of a live stream were given up for newer ones."""
        self._streams.dropped.inc(frames)

    def encoded(self, duration_s: float) -> None:
        """Writing one answer in its protocol's form took so long."""
        self._requests.stage.labels("encode").observe(duration_s)

    def archive_loaded(self, model: ModelInfo) -> None:
        """An archive serves from now on; another one of the same name no longer does."""
        self.archive_unloaded(model.name)
        self._info.archive_loaded(model.name, model.version, model.archive_sha256, model.precision)
        self._faces.model_loaded(model)

    def archive_unloaded(self, name: str) -> None:
        """The archive of this name serves no longer."""
        self._info.archive_unloaded(name)
        self._faces.reference_gone(name)

    def certificate(self, which: str, end_s: Callable[[], float]) -> None:
        """From now on show when this certificate ends; asked at each scrape, seconds since 1970."""
        self._info.certificate_end.labels(which).set_function(end_s)

    def batches(self, model: str) -> BatchMetrics:
        """The observer of one archive's batcher."""
        return BatchMetrics(self._load, self._requests, model)

    def workers(self, model: str) -> WorkerMetrics:
        """The observer of one archive's workers."""
        return WorkerMetrics(self._workers, model)

    def preparation(self) -> PreparationMetrics:
        """The observer of the stage that turns photos into crops."""
        return PreparationMetrics(self._load, self._requests)

    def preparers(self, ready: int) -> None:
        """So many processes take photos now."""
        self._load.preparers.set(ready)

    def preparer_lost(self) -> None:
        """A process that prepares photos ended that was not told to."""
        self._load.preparers_lost.inc()

    def refused(self, bound: Bound, priority: Priority) -> None:
        """Admission refused a request."""
        self._load.refusals[bound, priority].inc()

    def in_flight(self, images: int) -> None:
        """So many pictures are being worked on."""
        self._load.in_flight.set(images)

    def stage(self, stage: str, duration_s: float) -> None:
        """A stage of one picture took so long."""
        self._requests.stage.labels(stage).observe(duration_s)

    def forecast(self, foreseen_s: float, took_s: float) -> None:
        """A request that found the queues busy took so long, of which admission foresaw so much."""
        self._load.forecast.observe(took_s / foreseen_s)

    def in_flight_limit(self, images: int) -> None:
        """So many pictures may be worked on at once."""
        self._load.in_flight_limit.set(images)

    def image_scored(self, model: str, *, tops: Sequence[Expression], uncertain: int) -> None:
        """One picture was answered; `tops` has the first expression of each of its faces."""
        self._faces.image(len(tops))
        self._faces.count(model, tops=tops, uncertain=uncertain)

    def faces_scored(self, model: str, *, tops: Sequence[Expression], uncertain: int) -> None:
        """Faces were scored; `tops` has the first expression of each."""
        self._faces.count(model, tops=tops, uncertain=uncertain)

    def faces_skipped(self, faces: int) -> None:
        """So many detections gave no crop."""
        self._faces.skipped.inc(faces)
