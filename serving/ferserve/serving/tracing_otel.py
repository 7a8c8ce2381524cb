"""Traces by OpenTelemetry, delivered over OTLP. Attributes say what kind of work it was: no pixel, path or score.

A call's span is its child's parent in the usual way. Stages are told of when they are over, with how long they took;
their spans are laid one before another in the order in which a request goes through them, so that their lengths are
measured and their beginnings follow from them (docs/adr/0077-traces.md).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ferserve.faces.errors import Reason
from ferserve.serving.logs import REQUEST_ID
from ferserve.serving.requests import StageTimings
from ferserve.serving.tracing import CallTrace

STAGES: Final = ("decode", "detect", "preprocess", "queue", "infer")
"""In the order in which a request goes through them."""
OUR_FAULT: Final = frozenset({Reason.INTERNAL, Reason.WORKER_FAILED, Reason.NOT_READY, Reason.DEADLINE})
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_carrier: Final = TraceContextTextMapPropagator()


class OtelTracing:
    """Begins traces with a provider of OpenTelemetry's, which is closed with it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("ferserve")

    def begin(self, carried: Mapping[str, str]) -> CallTrace:
        """The trace of a call; one that nobody can read is begun anew."""
        parent = _carrier.extract(carried)
        return _OtelTrace(self._tracer, self._tracer.start_span("call", context=parent, kind=SpanKind.SERVER))

    def close(self) -> None:
        """Deliver what is left."""
        self._provider.shutdown()


def open_otel(endpoint: str, *, sample_ratio: float, version: str) -> OtelTracing:
    """Deliver to the collector at `endpoint`, in the background; what it does not take is lost and logged."""
    resource = Resource.create({"service.name": "ferserve", "service.version": version})
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sample_ratio)), resource=resource, shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracing(provider)


class _OtelTrace:
    """One call's span, and what is told of it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self.span = span

    @property
    def is_kept(self) -> bool:
        """Whether the call was sampled."""
        return self.span.is_recording()

    def answered(self, timings: StageTimings) -> None:
        """An analysis ends now; its stages end one after another up to now."""
        if not self.is_kept:
            return
        now_ns = time.time_ns()
        began_ns = now_ns - round(timings.total_ms * _NS_PER_MS)
        analysis = self._tracer.start_span("analyze", context=set_span_in_context(self.span), start_time=began_ns)
        within = set_span_in_context(analysis)
        ends_ns = now_ns
        for stage in reversed(STAGES):
            duration_ns = round(getattr(timings, f"{stage}_ms") * _NS_PER_MS)
            if duration_ns:
                span = self._tracer.start_span(stage, context=within, start_time=max(ends_ns - duration_ns, began_ns))
                span.end(ends_ns)
                ends_ns = max(ends_ns - duration_ns, began_ns)
        analysis.end(now_ns)

    def encoded(self, duration_s: float) -> None:
        """An encoding ends now."""
        if self.is_kept:
            now_ns = time.time_ns()
            began_ns = now_ns - round(duration_s * _NS_PER_S)
            context = set_span_in_context(self.span)
            self._tracer.start_span("encode", context=context, start_time=began_ns).end(now_ns)

    def done(self, method: str, reason: Reason | None) -> None:
        """The call ends now; its span has the name and the code that its metrics have."""
        self.span.update_name(method)
        self.span.set_attribute("ferserve.code", "OK" if reason is None else reason.value)
        self.span.set_attribute("ferserve.request_id", REQUEST_ID.get(""))
        if reason in OUR_FAULT:
            self.span.set_status(StatusCode.ERROR)
        self.span.end()

    @contextmanager
    def asking_worker(self, kind: str, faces: int, others: Sequence[CallTrace]) -> Iterator[Mapping[str, str]]:
        """A span of the first call's that points to the others: a batch has many parents, a span one."""
        links = [Link(other.span.get_span_context()) for other in others if isinstance(other, _OtelTrace)]
        span = self._tracer.start_span(
            "worker",
            context=set_span_in_context(self.span),
            kind=SpanKind.CLIENT,
            attributes={"ferserve.worker": kind, "ferserve.faces": faces},
            links=links,
        )
        carried: dict[str, str] = {}
        _carrier.inject(carried, context=set_span_in_context(span))
        try:
            yield carried
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()
