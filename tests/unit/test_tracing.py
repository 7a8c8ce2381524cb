import asyncio
import sys
import time

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id
from tests.unit.test_triton_worker import Place

from ferserve.faces.archive import read_archive
from ferserve.faces.errors import Reason
from ferserve.serving.batcher import Batcher
from ferserve.serving.errors import ConfigError, WorkerFailedError
from ferserve.serving.metrics import Metrics
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.requests import Priority, StageTimings
from ferserve.serving.tracing import BATCH, TRACE, TracingConfig, asking_worker, open_tracing, trace_answer
from ferserve.serving.tracing_otel import OtelTracing
from ferserve.serving.workers.protocol import WorkerInfo

CROP = np.zeros((24, 24, 1), np.uint8)


@pytest.fixture(autouse=True)
def _context():
    """What a test sets must not be there for the next one: plain functions share a context."""
    yield
    TRACE.set(None)
    BATCH.set(())


@pytest.fixture
def exported():
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exported):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    yield OtelTracing(provider)
    provider.shutdown()


def spans(exported) -> dict:
    return {span.name: span for span in exported.get_finished_spans()}


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "ftp://collector", "http://", "http://collector:4318/v1/traces"]
)
def test_an_endpoint_that_is_none_is_refused(endpoint):
    with pytest.raises(ValueError, match="endpoint must be http://host:port"):
        TracingConfig(endpoint=endpoint)


def test_a_ratio_beyond_one_is_refused():
    with pytest.raises(ValueError, match="sample_ratio must be 0 to 1, got 2"):
        TracingConfig(sample_ratio=2)


def test_off_by_default_and_a_clear_word_where_the_extra_is_missing(monkeypatch):
    assert open_tracing(TracingConfig(), version="1") is None
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "ferserve.serving.tracing_otel")
    with pytest.raises(ConfigError, match=r"pip install 'ferserve\[otel\]'"):
        open_tracing(TracingConfig(endpoint="http://collector:4317"), version="1")


def test_stages_are_laid_one_before_another_and_never_before_the_request(tracing, exported):
    trace = tracing.begin({})
    TRACE.set(trace)
    trace_answer(StageTimings(decode_ms=1.0, detect_ms=4.0, queue_ms=2.0, infer_ms=8.0, total_ms=14.0))
    trace.done("Analyze", None)
    found = spans(exported)
    lengths_ms = {name: (span.end_time - span.start_time) / 1e6 for name, span in found.items()}
    assert lengths_ms["infer"] == 8
    assert lengths_ms["detect"] == 4
    assert lengths_ms["decode"] == 0  # rounding has made the stages longer than the whole
    assert found["decode"].start_time == found["analyze"].start_time
    assert found["queue"].end_time == found["infer"].start_time
    assert "preprocess" not in found


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (None, StatusCode.UNSET),
        (Reason.INVALID_IMAGE, StatusCode.UNSET),
        (Reason.OVERLOADED, StatusCode.UNSET),
        (Reason.WORKER_FAILED, StatusCode.ERROR),
        (Reason.INTERNAL, StatusCode.ERROR),
    ],
)
def test_only_what_is_our_fault_is_an_error(tracing, exported, reason, status):
    tracing.begin({}).done("Analyze", reason)
    (span,) = exported.get_finished_spans()
    assert span.status.status_code is status
    assert span.attributes["ferserve.code"] == (reason or "OK")


def test_a_request_to_a_worker_belongs_to_the_first_call_and_points_to_the_others(tracing, exported):
    first, second = tracing.begin({}), tracing.begin({})
    BATCH.set((first, second))
    with asking_worker("triton", 3) as carried:
        pass
    worker = spans(exported)["worker"]
    context = worker.get_span_context()
    assert set(carried) == {"traceparent"}
    assert carried["traceparent"].split("-")[1:3] == [
        format_trace_id(context.trace_id),
        format_span_id(context.span_id),
    ]
    assert worker.parent.span_id == first.span.get_span_context().span_id
    assert [link.context for link in worker.links] == [second.span.get_span_context()]
    assert dict(worker.attributes) == {"ferserve.worker": "triton", "ferserve.faces": 3}


def test_a_failed_request_to_a_worker_says_so_and_not_why(tracing, exported):
    BATCH.set((tracing.begin({}),))
    with pytest.raises(WorkerFailedError), asking_worker("triton", 1):
        raise WorkerFailedError("secret")
    worker = spans(exported)["worker"]
    assert worker.attributes["error.type"] == "WorkerFailedError"
    assert (worker.status.description, worker.events) == (None, ())


def test_for_a_batch_that_nobody_traces_nothing_is_sent():
    with asking_worker("triton", 1) as carried:
        assert carried == {}


class Noting:
    """A worker that notes whose faces each batch holds."""

    concurrency = 1

    def __init__(self):
        self.batches = []

    def describe(self):
        return WorkerInfo(kind="fake", model="m", version="1", crop_shape=CROP.shape, precision="fp32", detail="")

    async def infer(self, batch, *, timeout_s):  # noqa: ARG002 - as every worker
        self.batches.append(BATCH.get())
        return np.zeros((len(batch), 7), np.float32)


async def test_a_batch_knows_the_calls_whose_faces_it_holds(tracing):
    worker = Noting()
    batcher = Batcher(worker, BatchPolicyConfig(), observer=Metrics().batches("tiny"), clock=time.monotonic)

    async def call(trace, faces):
        TRACE.set(trace)
        ask = {"flow": str(id(trace)), "priority": Priority.INTERACTIVE, "deadline_s": time.monotonic() + 60}
        await asyncio.gather(*batcher.submit([CROP] * faces, **ask))

    first, second = tracing.begin({}), tracing.begin({})
    await asyncio.gather(call(first, 2), call(second, 1), call(None, 1))
    assert {trace for batch in worker.batches for trace in batch} == {first, second}
    assert all(len(set(batch)) == len(batch) for batch in worker.batches)
    await batcher.close()


async def test_triton_is_told_the_trace(tracing, exported, tiny_archive):
    place = Place(read_archive(tiny_archive))
    await place.server.start()
    worker = await place.start()
    BATCH.set((tracing.begin({}),))
    await worker.infer(np.stack([CROP]), timeout_s=20)
    await worker.close()
    await place.server.stop(None)
    context = spans(exported)["worker"].get_span_context()
    proof, told = place.fake.traceparents  # that it scores was proven for nobody
    assert proof is None
    assert told.split("-")[1:3] == [format_trace_id(context.trace_id), format_span_id(context.span_id)]
