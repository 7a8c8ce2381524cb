"""What operators see in Prometheus: every metric of the gateway, with fixed names and few labels.

The engine knows the small observer protocols beside its parts and not Prometheus; `Metrics` implements them. Each has a
registry of its own, so that two gateways in one process (or test) do not share counters. Labels take values from closed
sets (stages, reasons, loaded archives), never from what a caller sends.
"""

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Final

import onnxruntime
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ferserve.faces.errors import Reason
from ferserve.faces.labels import EXPRESSIONS, Expression
from ferserve.serving.admission import Bound
from ferserve.serving.dispatch import Drop
from ferserve.serving.requests import ModelInfo, Priority
from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.replica import FailureCause

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OK: Final = "OK"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_FACES: Final = (1, 2, 4, 6, 8, 12, 16, 32, 64, 128)
_ERROR_RATIOS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_IMAGE_FACES: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_RATIOS: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.33, 2.0, 4.0, 10.0)
"""Around 1, where a forecast was right."""
REFERENCE_SHARE: Final = "reference_share_"
"""Prefix of an archive's figures that say how often each expression came first where the archive was measured."""


class Metrics:
    """All metrics of one gateway. The `AdmissionObserver` and `AnalysisObserver` of its engine.

    Attributes:
        registry: what `/metrics` exposes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = _Requests(self.registry)
        self._streams = _Streams(self.registry)
        self._faces = _Faces(self.registry)
        self._load = _Load(self.registry)
        self._workers = _Workers(self.registry)
        self._info = _Info(self.registry)
        ProcessCollector(namespace="ferserve", registry=self.registry)

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

    def batches(self, model: str) -> "BatchMetrics":
        """The observer of one archive's batcher."""
        return BatchMetrics(self._load, self._requests, model)

    def workers(self, model: str) -> "WorkerMetrics":
        """The observer of one archive's workers."""
        return WorkerMetrics(self._workers, model)

    def preparation(self) -> "PreparationMetrics":
        """The observer of the stage that turns photos into crops."""
        return PreparationMetrics(self._load, self._requests)

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
        self._faces.per_image.observe(len(tops))
        if not tops:
            self._faces.images_without.inc()
        self.faces_scored(model, tops=tops, uncertain=uncertain)

    def faces_scored(self, model: str, *, tops: Sequence[Expression], uncertain: int) -> None:
        """Faces were scored; `tops` has the first expression of each."""
        self._faces.scored.labels(model).inc(len(tops))
        self._faces.uncertain.labels(model).inc(uncertain)
        for top in tops:
            self._faces.tops.labels(model, top.label).inc()

    def faces_skipped(self, faces: int) -> None:
        """So many detections gave no crop."""
        self._faces.skipped.inc(faces)


class BatchMetrics:
    """The `BatchObserver` of one archive's batcher."""

    def __init__(self, load: "_Load", requests: "_Requests", model: str) -> None:
        self._queued = load.queued.labels(model)
        self._batch_faces = load.batch_faces.labels(model)
        self._failed = load.worker_failed.labels(model)
        self._dropped = {drop: load.dropped.labels("infer", drop.value) for drop in Drop}
        self._error_ratio = load.latency_error.labels(model)
        self._queue_s = requests.stage.labels("queue")
        self._infer_s = requests.stage.labels("infer")

    def queued(self, jobs: int) -> None:
        """So many faces wait."""
        self._queued.set(jobs)

    def started(self, waits_s: Sequence[float]) -> None:
        """A batch begins."""
        self._batch_faces.observe(len(waits_s))
        for wait_s in waits_s:
            self._queue_s.observe(wait_s)

    def finished(self, jobs: int, run_s: float, expected_s: float) -> None:
        """A batch ended; its faces were counted as it began."""
        del jobs
        self._infer_s.observe(run_s)
        if expected_s > 0:
            self._error_ratio.observe(abs(run_s - expected_s) / expected_s)

    def dropped(self, cause: Drop, jobs: int) -> None:
        """Faces left before any computation."""
        self._dropped[cause].inc(jobs)

    def worker_failed(self, faces: int) -> None:
        """Faces got no scores because of the worker."""
        self._failed.inc(faces)


class WorkerMetrics:
    """The `WorkerObserver` of one archive's workers."""

    def __init__(self, workers: "_Workers", model: str) -> None:
        self._workers = workers
        self._model = model
        self._retried = workers.retried.labels(model)

    def circuit_changed(self, worker: str, state: CircuitState) -> None:
        """A worker's circuit has this state from now on."""
        self._workers.up.labels(self._model, worker).set(state is CircuitState.CLOSED)
        for each in CircuitState:
            self._workers.circuit.labels(self._model, worker, each.value).set(each is state)
        for cause in FailureCause:
            self._workers.failures.labels(self._model, worker, cause.value)  # shown as 0 before the first

    def worker_failed(self, worker: str, cause: FailureCause, message: str) -> None:
        """A worker failed once; the words are for the log and for `/status`."""
        del message
        self._workers.failures.labels(self._model, worker, cause.value).inc()

    def batch_retried(self) -> None:
        """A batch is tried on a second worker."""
        self._retried.inc()


class PreparationMetrics:
    """The `DispatchObserver` of the stage that turns photos into crops."""

    def __init__(self, load: "_Load", requests: "_Requests") -> None:
        self._waiting = load.waiting
        self._dropped = {drop: load.dropped.labels("prepare", drop.value) for drop in Drop}
        self._turn_s = requests.stage.labels("turn")

    def queued(self, jobs: int) -> None:
        """So many photos wait."""
        self._waiting.set(jobs)

    def started(self, waits_s: Sequence[float]) -> None:
        """A photo has its turn."""
        for wait_s in waits_s:
            self._turn_s.observe(wait_s)

    def finished(self, jobs: int, run_s: float, expected_s: float) -> None:
        """A photo is done; what took how long is observed by stage."""

    def dropped(self, cause: Drop, jobs: int) -> None:
        """Photos left before any computation."""
        self._dropped[cause].inc(jobs)


class _Requests:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.total = Counter(
            "ferserve_requests", "Requests answered, by method and code.", ["method", "code"], registry=registry
        )
        self.duration = Histogram(
            "ferserve_request_duration_seconds",
            "From a request's arrival to its answer.",
            ["method", "code"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage = Histogram(
            "ferserve_stage_duration_seconds",
            "Where time goes: turn, decode, detect, preprocess (a picture), queue (a face), infer (a batch), encode.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )

        self._of: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def of(self, method: str, code: str) -> tuple[Counter, Histogram]:
        """The two of one method and code; prometheus_client takes far longer to find them."""
        found = self._of.get((method, code))
        if found is None:
            found = self._of[method, code] = (self.total.labels(method, code), self.duration.labels(method, code))
        return found


class _Streams:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge("ferserve_open_streams", "Streams of frames that are open now.", registry=registry)
        self.frames = Counter(
            "ferserve_stream_frames", "Frames of streams that were answered, by code.", ["code"], registry=registry
        )
        self.dropped = Counter(
            "ferserve_dropped_stream_frames", "Frames of live streams given up for newer ones.", registry=registry
        )


class _Faces:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.per_image = Histogram(
            "ferserve_image_faces", "Faces scored in one picture.", buckets=_IMAGE_FACES, registry=registry
        )
        self.images_without = Counter(
            "ferserve_images_without_face", "Pictures in which no face was found.", registry=registry
        )
        self.scored = Counter("ferserve_faces", "Faces scored.", ["model"], registry=registry)
        self.uncertain = Counter(
            "ferserve_uncertain_faces",
            "Faces whose top score lies below the archive's threshold.",
            ["model"],
            registry=registry,
        )
        self.tops = Counter(
            "ferserve_top_expression_faces",
            "Faces by the expression that scored highest.",
            ["model", "expression"],
            registry=registry,
        )
        self._reference = Gauge(
            "ferserve_reference_share",
            "Share of faces whose highest score was this where the archive was measured; absent if it does not say.",
            ["model", "expression"],
            registry=registry,
        )
        self.skipped = Counter(
            "ferserve_skipped_faces", "Detections from which no crop could be cut.", registry=registry
        )

    def model_loaded(self, model: ModelInfo) -> None:
        """Count from zero, so that a first face is an increase; show what the archive was measured on."""
        self.scored.labels(model.name)
        self.uncertain.labels(model.name)
        for expression in EXPRESSIONS:
            self.tops.labels(model.name, expression.label)
            share = model.figures.get(REFERENCE_SHARE + expression.label)
            if share is not None:
                self._reference.labels(model.name, expression.label).set(share)

    def reference_gone(self, model: str) -> None:
        self._reference.remove_by_labels({"model": model})


class _Load:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge("ferserve_in_flight_images", "Pictures being worked on now.", registry=registry)
        self.waiting = Gauge("ferserve_waiting_images", "Pictures that wait for a thread now.", registry=registry)
        self.queued = Gauge("ferserve_queued_faces", "Faces that wait for a batch now.", ["model"], registry=registry)
        self.batch_faces = Histogram(
            "ferserve_batch_faces", "Faces in one batch.", ["model"], buckets=_BATCH_FACES, registry=registry
        )
        self.latency_error = Histogram(
            "ferserve_latency_model_error_ratio",
            "How far off the expected latency of a batch was, as a part of it.",
            ["model"],
            buckets=_ERROR_RATIOS,
            registry=registry,
        )
        self.refused = Counter(
            "ferserve_refused",
            "Requests refused before any computation, by what ran out.",
            ["reason", "priority"],
            registry=registry,
        )
        self.refusals = {  # from zero on, so that a first one is an increase
            (bound, priority): self.refused.labels(bound.value, priority.name.lower())
            for bound in Bound
            for priority in Priority
        }
        self.dropped = Counter(
            "ferserve_dropped_before_compute",
            "Pictures (prepare) and faces (infer) whose caller's time ran out, or who left, before computation.",
            ["stage", "cause"],
            registry=registry,
        )
        self.worker_failed = Counter(
            "ferserve_worker_failed_faces", "Faces without scores because of the worker.", ["model"], registry=registry
        )
        self.in_flight_limit = Gauge(
            "ferserve_in_flight_images_limit", "Pictures that may be worked on at once.", registry=registry
        )
        self.forecast = Histogram(
            "ferserve_forecast_ratio",
            "Time that a request took over the time foreseen at admission, where it had to wait; 1 is right.",
            buckets=_RATIOS,
            registry=registry,
        )


class _Workers:
    def __init__(self, registry: CollectorRegistry) -> None:
        worker = ["model", "worker"]
        self.up = Gauge("ferserve_worker_up", "Whether a worker is given batches.", worker, registry=registry)
        self.circuit = Gauge(
            "ferserve_worker_circuit",
            "1 for the state that a worker's circuit has: closed, open, half_open; 0 for the others.",
            [*worker, "state"],
            registry=registry,
        )
        self.failures = Counter(
            "ferserve_worker_failures",
            "Failed batches and probes, by cause: error, timeout, late (the batch's own deadline), answer, probe.",
            [*worker, "cause"],
            registry=registry,
        )
        self.retried = Counter(
            "ferserve_retried_batches", "Batches that were tried on a second worker.", ["model"], registry=registry
        )


class _Info:
    def __init__(self, registry: CollectorRegistry) -> None:
        build = Gauge(
            "ferserve_build_info",
            "The installed versions; always 1.",
            ["version", "python", "onnxruntime"],
            registry=registry,
        )
        build.labels(metadata.version("ferserve"), platform.python_version(), onnxruntime.__version__).set(1)
        self._archive = Gauge(
            "ferserve_archive_info",
            "A loaded archive and what it computes in; always 1.",
            ["model", "version", "archive_sha256", "precision"],
            registry=registry,
        )
        self._loaded: dict[str, tuple[str, str, str, str]] = {}

    def archive_loaded(self, name: str, version: str, sha256: str, precision: str) -> None:
        self._loaded[name] = (name, version, sha256, precision)
        self._archive.labels(*self._loaded[name]).set(1)

    def archive_unloaded(self, name: str) -> None:
        if name in self._loaded:
            self._archive.remove(*self._loaded.pop(name))
