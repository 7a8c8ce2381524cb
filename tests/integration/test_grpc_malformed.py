"""Bytes that are no message of the method they are sent to."""

import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
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
