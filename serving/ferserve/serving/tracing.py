"""Traces of requests, as the parts of the gateway see them; OpenTelemetry itself is in `tracing_otel`, and optional.

A door begins a trace for each call and puts it into `TRACE`, where whatever works for that call finds it, as it finds
the request's id. Without tracing nobody does, and a look into a variable is all that it costs. A batch holds faces of
many calls, so the queue that puts it together tells the worker through `BATCH` whose they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from ferserve.faces.errors import Reason
from ferserve.serving.errors import ConfigError
from ferserve.serving.observing import ForwardedRequests
from ferserve.serving.requests import StageTimings

CARRIED: Final = ("traceparent", "tracestate")
"""Headers and metadata that say which trace a call belongs to. Source: W3C Trace Context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """Whether calls are traced, and where to.

    Attributes:
        endpoint: a collector that takes OTLP over gRPC, as http://host:4317, or https:// for TLS; None for no traces.
        sample_ratio: of the calls that come without a trace, 0 to 1; where a caller has decided, its decision holds.
    """

    endpoint: str | None = None
    sample_ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
                raise ValueError(f"endpoint must be http://host:port or https://host:port, got {self.endpoint!r}")
        if not 0 <= self.sample_ratio <= 1:
            raise ValueError(f"sample_ratio must be 0 to 1, got {self.sample_ratio}")


class CallTrace(Protocol):
    """The trace of one call; its methods must not raise and must not block."""

    @property
    def is_kept(self) -> bool:
        """Whether anything of it will be seen."""

    def answered(self, timings: StageTimings) -> None:
        """A picture of the call, or its crops, were answered just now; where the time went."""

    def encoded(self, duration_s: float) -> None:
        """An answer was put into its protocol's form just now, in so long."""

    def done(self, method: str, reason: Reason | None) -> None:
        """The call is over; nothing is told after that."""

    def asking_worker(
        self, kind: str, faces: int, others: "Sequence[CallTrace]"
    ) -> AbstractContextManager[Mapping[str, str]]:
        """Around one request to a worker, for faces of this call and of others; gives what to send along."""


class Tracing(Protocol):
    """Begins traces and delivers them."""

    def begin(self, carried: Mapping[str, str]) -> CallTrace:
        """The trace of a call that came with these of `CARRIED`."""

    def close(self) -> None:
        """Deliver what is left; may block for seconds."""


TRACE: Final[ContextVar[CallTrace | None]] = ContextVar("trace", default=None)
BATCH: Final[ContextVar[tuple[CallTrace, ...]]] = ContextVar("batch_traces", default=())


def open_tracing(config: TracingConfig, *, version: str) -> Tracing | None:
    """What the settings ask for; None for no traces.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    if config.endpoint is None:
        return None
    try:
        from ferserve.serving.tracing_otel import open_otel  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        raise ConfigError(
            f"tracing.endpoint: OpenTelemetry cannot be loaded: {error}. pip install 'ferserve[otel]'"
        ) from error
    return open_otel(config.endpoint, sample_ratio=config.sample_ratio, version=version)


def trace_answer(timings: StageTimings) -> None:
    """Tell the trace of this call, if there is one, where the time of an answer went."""
    trace = TRACE.get()
    if trace is not None:
        trace.answered(timings)


@contextmanager
def asking_worker(kind: str, faces: int) -> Iterator[Mapping[str, str]]:
    """Around one request to a worker for the batch of this context; gives what to send along with it."""
    kept = [trace for trace in BATCH.get() if trace.is_kept]
    if not kept:
        yield {}
        return
    with kept[0].asking_worker(kind, faces, kept[1:]) as carried:
        yield carried


class TracedRequests(ForwardedRequests):
    """Ends each call's trace when the call is over; a stream's frames have told their own by their analyses."""

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered."""
        super().request_done(method, reason, duration_s)
        trace = TRACE.get()
        if trace is not None:
            trace.done(method, reason)

    def encoded(self, duration_s: float) -> None:
        """Writing one answer in its protocol's form took so long."""
        super().encoded(duration_s)
        trace = TRACE.get()
        if trace is not None:
            trace.encoded(duration_s)
