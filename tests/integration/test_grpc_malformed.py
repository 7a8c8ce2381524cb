"""Bytes that are no message of the method they are sent to."""

import asyncio
import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from ferserve.faces.errors import Reason
from ferserve.serving.grpc_api import SERVICE_NAME
from ferserve.v1 import expression_service_pb2 as service_pb

CORRUPT = b"\xff" * 20
NOT_UTF8 = b"\x12\x04\x0a\x02\xff\xfe"  # options.model of AnalyzeRequest


@pytest.fixture
async def channel(grpc_gateway):
    async with grpc.aio.insecure_channel(grpc_gateway.target) as channel:
        yield channel


def refusal_of(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, str]:
    info = ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    return error.code(), info.reason, error.details()


def retry_of(error: grpc.aio.AioRpcError) -> float:
    retry = RetryInfo()
    assert rpc_status.from_call(error).details[1].Unpack(retry)
    return retry.retry_delay.ToTimedelta().total_seconds()


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("Analyze", CORRUPT),
        ("Analyze", NOT_UTF8),
        ("BatchAnalyze", CORRUPT),
        ("ClassifyFaces", CORRUPT),
        ("ListModels", CORRUPT),
        ("GetModel", CORRUPT),
    ],
)
async def test_it_is_an_invalid_request_and_nothing_more(channel, grpc_gateway, caplog, method, data):
    call = channel.unary_unary(f"/{SERVICE_NAME}/{method}")
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(data, metadata=(("x-request-id", "mine"),))
        message = f"expected a message of {method}, got {len(data)} bytes that are none"
        assert refusal_of(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", message)
        assert ("x-request-id", "mine") in list(caught.value.trailing_metadata())
        assert await grpc_gateway.observer.done.get() == (method, Reason.INVALID_REQUEST)
    assert grpc_gateway.analyzer.asked == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_it_ends_a_stream_after_the_answers_to_what_came_before(channel, grpc_gateway, caplog):
    good = service_pb.StreamAnalyzeRequest(id=7, image=b"hold").SerializeToString()
    call = channel.stream_stream(f"/{SERVICE_NAME}/StreamAnalyze")()
    await call.write(good)
    await call.write(CORRUPT)
    await grpc_gateway.analyzer.started.get()
    grpc_gateway.analyzer.release.set()
    assert service_pb.StreamAnalyzeResponse.FromString(await call.read()).id == 7
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert refusal_of(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert await grpc_gateway.observer.done.get() == ("StreamAnalyze", Reason.INVALID_REQUEST)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_methods_that_do_not_exist_stay_unimplemented(channel):
    for method in (f"/{SERVICE_NAME}/Nothing", "/some.Service/Analyze"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_unary_call_without_a_message_is_refused(channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.stream_unary(f"/{SERVICE_NAME}/Analyze")(iter(()))
    assert refusal_of(caught.value)[1:] == ("INVALID_REQUEST", "expected one message, got none")


async def test_a_call_too_many_is_refused_before_its_message_is_read(start_grpc):
    gateway = await start_grpc(max_arriving_calls=1)
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        silent = channel.stream_unary(f"/{SERVICE_NAME}/Analyze")()
        await silent.wait_for_connection()
        while True:  # until the silent one is there
            call = channel.stream_unary(f"/{SERVICE_NAME}/GetModel")()
            await asyncio.wait((asyncio.ensure_future(call.code()),), timeout=0.05)
            if call.done():
                break
            call.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert refusal_of(caught.value) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "1 calls are sending their messages already"
        )  # fmt: skip
        assert retry_of(caught.value) == 1.0
        await silent.write(service_pb.AnalyzeRequest(image=b"one").SerializeToString())
        await silent.done_writing()
        await silent
        assert await channel.unary_unary(f"/{SERVICE_NAME}/GetModel")(b"")


async def test_a_message_that_does_not_come_is_given_up(start_grpc):
    gateway = await start_grpc(message_timeout_s=0.05)
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(f"/{SERVICE_NAME}/Analyze")()
    assert refusal_of(caught.value)[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")


async def test_messages_together_are_bounded_and_room_comes_back(start_grpc):
    gateway = await start_grpc(max_held_bytes=1500)
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        analyze = channel.unary_unary(f"/{SERVICE_NAME}/Analyze")
        large = service_pb.AnalyzeRequest(image=b"hold" * 250).SerializeToString()
        other = service_pb.AnalyzeRequest(image=b"x" * 600).SerializeToString()
        held = analyze(large)
        await gateway.analyzer.started.get()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await analyze(other)
        assert refusal_of(caught.value)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert retry_of(caught.value) > 0
        stream = channel.stream_stream(f"/{SERVICE_NAME}/StreamAnalyze")()
        await stream.write(service_pb.StreamAnalyzeRequest(id=3, image=b"x" * 600).SerializeToString())
        reply = service_pb.StreamAnalyzeResponse.FromString(await stream.read())
        assert (reply.id, reply.error.code) == (3, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        gateway.analyzer.release.set()
        await held
        await stream.write(service_pb.StreamAnalyzeRequest(id=4, image=b"x" * 600).SerializeToString())
        assert service_pb.StreamAnalyzeResponse.FromString(await stream.read()).HasField("analysis")
        await stream.done_writing()
        await analyze(other)
