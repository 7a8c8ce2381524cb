"""Traces of a real gateway: what a collector gets of calls over each door, and what it never gets."""

import asyncio
import json

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from tests.integration.test_app import config_for, gateway
from websockets.asyncio.client import connect

from ferserve.serving.tracing import TracingConfig
from ferserve.v1 import expression_service_pb2 as service_pb
from ferserve.v1.expression_service_pb2_grpc import ExpressionServiceStub

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
STAGES = {"decode", "detect", "preprocess", "queue", "infer"}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes OTLP over gRPC and keeps every span."""

    def __init__(self):
        self.spans, self.resources = [], []

    async def Export(self, request, context):  # noqa: ARG002, N802 - OTLP's name
        for resource in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name):
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def collector():
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    collector.endpoint = f"http://127.0.0.1:{port}"
    yield collector
    await server.stop(None)


@pytest.fixture
async def after(collector, tiny_archive):
    """Run calls against a gateway that traces; what it had to tell is delivered when it has stopped."""

    async def run(calls, **tracing):
        config = config_for(tiny_archive, tracing=TracingConfig(endpoint=collector.endpoint, **tracing))
        async with gateway(config) as (addresses, _):
            await calls(addresses)
        return collector

    return run


def attributes_of(span) -> dict:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


async def post(addresses, content, headers):
    async with httpx.AsyncClient(base_url=addresses["REST"], timeout=30) as client:
        return await client.post("/v1/images:analyze", content=content, headers=headers)


async def test_a_call_over_rest_is_a_span_of_its_callers_trace_and_its_stages_lie_within(after, face_photo):
    headers = {"content-type": "image/jpeg", "traceparent": TRACEPARENT, "x-request-id": "mine"}
    collector = await after(lambda addresses: post(addresses, face_photo, headers))
    (call,) = collector.named("/v1/images:analyze")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert attributes_of(call) == {"ferserve.code": "OK", "ferserve.request_id": "mine"}
    (analysis,) = collector.named("analyze")
    assert analysis.parent_span_id == call.span_id
    stages = [span for span in collector.spans if span.parent_span_id == analysis.span_id]
    assert {span.name for span in stages} == STAGES
    assert analysis.start_time_unix_nano >= call.start_time_unix_nano
    assert analysis.end_time_unix_nano <= call.end_time_unix_nano
    for before, stage in zip(stages, sorted(stages, key=lambda span: span.start_time_unix_nano)[1:], strict=False):
        assert stage.start_time_unix_nano >= analysis.start_time_unix_nano
        assert before.end_time_unix_nano <= analysis.end_time_unix_nano
    ordered = sorted(stages, key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in ordered] == ["decode", "detect", "preprocess", "queue", "infer"]
    assert ordered[-1].end_time_unix_nano == analysis.end_time_unix_nano
    (encoded,) = collector.named("encode")
    assert encoded.parent_span_id == call.span_id
    assert collector.resources[0]["service.name"] == "ferserve"


async def test_calls_over_the_other_doors_are_spans_too(after, face_photo):
    async def calls(addresses):
        async with grpc.aio.insecure_channel(addresses["gRPC"]) as channel:
            stub = ExpressionServiceStub(channel)
            await stub.Analyze(service_pb.AnalyzeRequest(image=face_photo), metadata=(("traceparent", TRACEPARENT),))
            images = service_pb.BatchAnalyzeRequest(images=[face_photo, face_photo, b"no picture"])
            await stub.BatchAnalyze(images)
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        address = addresses["REST"].replace("http", "ws", 1)
        async with connect(f"{address}/v1/stream", proxy=None) as websocket:
            for number in (1, 2):
                await websocket.send(bytes(7) + bytes([number]) + face_photo)
                assert "analysis" in json.loads(await websocket.recv())
        async with httpx.AsyncClient(base_url=addresses["REST"]) as client:
            await client.get("/readyz")

    collector = await after(calls)
    (single,), (batch,), (stream,) = (collector.named(name) for name in ("Analyze", "BatchAnalyze", "/v1/stream"))
    assert (single.trace_id.hex(), single.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert len({single.trace_id, batch.trace_id, stream.trace_id}) == 3
    analyses = [span.parent_span_id for span in collector.named("analyze")]
    assert sorted(analyses) == sorted([single.span_id, *[batch.span_id] * 2, *[stream.span_id] * 2])
    assert {span.name for span in collector.spans} == {
        *STAGES, "Analyze", "BatchAnalyze", "/v1/stream", "analyze", "encode"
    }  # fmt: skip


async def test_no_pixel_path_or_score_is_told(after, face_photo):
    async def calls(addresses):
        await post(addresses, face_photo, {"content-type": "image/jpeg"})
        await post(addresses, b"no picture at /home/somebody/photo.jpg", {"content-type": "image/jpeg"})

    collector = await after(calls)
    keys = {pair.key for span in collector.spans for pair in span.attributes}
    assert keys == {"ferserve.code", "ferserve.request_id"}
    assert all(len(span.events) == 0 and span.status.message == "" for span in collector.spans)
    assert "somebody" not in str(collector.spans) + str(collector.resources)
    codes = {attributes_of(span).get("ferserve.code") for span in collector.named("/v1/images:analyze")}
    assert codes == {"OK", "UNSUPPORTED_MEDIA"}


@pytest.mark.parametrize("carried", ["00-zz-zz-01", "x" * 5000, f"00-{'0' * 32}-{PARENT_ID}-01", ""])
async def test_what_is_no_trace_begins_a_new_one(after, face_photo, carried):
    headers = {"content-type": "image/jpeg", "traceparent": carried}
    collector = await after(lambda addresses: post(addresses, face_photo, headers))
    (call,) = collector.named("/v1/images:analyze")
    assert call.parent_span_id == b""


async def test_of_calls_that_come_without_a_trace_a_share_is_kept_and_callers_decide_for_themselves(after, face_photo):
    async def calls(addresses):
        jpeg = {"content-type": "image/jpeg"}
        await post(addresses, face_photo, jpeg)
        await post(addresses, face_photo, jpeg | {"traceparent": TRACEPARENT.removesuffix("1") + "0"})
        await post(addresses, face_photo, jpeg | {"traceparent": TRACEPARENT})

    collector = await after(calls, sample_ratio=0.0)
    (call,) = collector.named("/v1/images:analyze")
    assert call.trace_id.hex() == TRACE_ID
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}


async def test_without_a_collector_everything_is_answered(tiny_archive, face_photo):
    config = config_for(tiny_archive, tracing=TracingConfig(endpoint="http://127.0.0.1:9"))
    async with gateway(config) as (addresses, _):
        answers = await asyncio.gather(*(post(addresses, face_photo, {"content-type": "image/jpeg"}) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
