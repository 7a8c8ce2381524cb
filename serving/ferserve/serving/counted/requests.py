"""Requests and frames of streams: how many, how they ended, and where their time went."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Requests:
    """Requests of every protocol."""

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


class Streams:
    """Streams of frames."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge("ferserve_open_streams", "Streams of frames that are open now.", registry=registry)
        self.frames = Counter(
            "ferserve_stream_frames", "Frames of streams that were answered, by code.", ["code"], registry=registry
        )
        self.dropped = Counter(
            "ferserve_dropped_stream_frames", "Frames of live streams given up for newer ones.", registry=registry
        )
