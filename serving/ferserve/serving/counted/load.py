"""Load: what is under way and waits, what was refused or dropped, and how well the queues were foreseen."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ferserve.serving.admission import Bound
from ferserve.serving.counted.requests import Requests
from ferserve.serving.outcomes import Drop
from ferserve.serving.requests import Priority

_BATCH_FACES: Final = (1, 2, 4, 6, 8, 12, 16, 32, 64, 128)
_ERROR_RATIOS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_RATIOS: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.33, 2.0, 4.0, 10.0)
"""Around 1, where a forecast was right."""


class Load:
    """Queues, refusals and drops."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge("ferserve_in_flight_images", "Pictures being worked on now.", registry=registry)
        self.waiting = Gauge("ferserve_waiting_images", "Pictures that wait for their turn now.", registry=registry)
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
        self.preparers = Gauge(
            "ferserve_preparers", "Processes that decode and search pictures now.", registry=registry
        )
        self.preparers_lost = Counter(
            "ferserve_preparers_lost", "Processes that decode and search pictures and died.", registry=registry
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


class BatchMetrics:
    """The `BatchObserver` of one archive's batcher."""

    def __init__(self, load: Load, requests: Requests, model: str) -> None:
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


class PreparationMetrics:
    """The `DispatchObserver` of the stage that turns photos into crops."""

    def __init__(self, load: Load, requests: Requests) -> None:
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
