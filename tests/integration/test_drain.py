"""Told to stop with requests in flight: what was accepted is answered over every way in, what is new is refused."""

import asyncio

import grpc
import httpx
import pytest

from ferserve.serving.client import AsyncClient
from ferserve.serving.client.failures import error_of_rpc
from ferserve.serving.errors import NotReadyError
from ferserve.serving.requests import FacesClassification, ImageAnalysis
from ferserve.v1 import expression_service_pb2 as service_pb
from ferserve.v1.expression_service_pb2_grpc import ExpressionServiceStub

LONG_S = 30.0
PNG = {"Content-Type": "image/png"}


@pytest.fixture
async def held(start_held):
    return await start_held()


@pytest.fixture
async def client(held):
    async with AsyncClient(held.grpc) as client:
        yield client


@pytest.fixture
async def web(held):
    async with httpx.AsyncClient(base_url=held.rest, timeout=LONG_S) as web:
        yield web


async def drain_begun(held) -> "asyncio.Task[None]":
    stopping = asyncio.create_task(held.gateway.stop(LONG_S))
    await asyncio.sleep(0)  # its first step refuses from now on
    return stopping


async def test_everything_accepted_is_answered(held, client, web, photo):
    calls = [
        asyncio.create_task(call)
        for call in (
            client.analyze(photo, timeout_s=LONG_S),
            client.analyze_batch([photo, photo], timeout_s=LONG_S),
            client.classify([photo, photo], timeout_s=LONG_S),
            web.post("/v1/images:analyze", content=photo, headers=PNG),
        )
    ]
    await held.accepted(5)
    stopping = await drain_begun(held)
    assert not any(call.done() for call in calls)
    held.detector.let_go.set()
    analysis, batch, crops, answer = await asyncio.gather(*calls)
    await stopping
    assert isinstance(analysis, ImageAnalysis)
    assert all(isinstance(item, ImageAnalysis) for item in batch)
    assert isinstance(crops, FacesClassification)
    assert len(crops.items) == 2
    assert len(answer.json()["faces"]) == 1
    assert held.admission.images_in_flight == 0


async def test_what_is_new_is_refused_in_so_many_words(held, client, web, photo):
    accepted = asyncio.create_task(client.analyze(photo, timeout_s=LONG_S))
    await held.accepted(1)
    stopping = await drain_begun(held)
    async with grpc.aio.insecure_channel(held.grpc) as channel:
        stub = ExpressionServiceStub(channel)
        for call in (
            stub.Analyze(service_pb.AnalyzeRequest(image=photo)),
            stub.BatchAnalyze(service_pb.BatchAnalyzeRequest(images=[photo])),
            stub.ClassifyFaces(service_pb.ClassifyFacesRequest(faces=[photo])),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
            error = error_of_rpc(failure.value, held.grpc)
            assert (type(error), error.retry_after_s) == (NotReadyError, 1.0), "with RetryInfo"
    refused = await web.post("/v1/images:analyze", content=photo, headers=PNG)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert not accepted.done(), "a refusal does not wait for those accepted"
    held.detector.let_go.set()
    assert isinstance(await accepted, ImageAnalysis)
    await stopping


async def test_of_an_open_stream_the_frames_accepted_are_answered_and_new_ones_refused(held, client, photo):
    more = asyncio.Event()

    async def frames():
        yield 1, photo
        await more.wait()
        yield 2, photo

    replies = {}

    async def read() -> None:
        async for reply in client.stream(frames(), resend=False):
            replies[reply.id] = reply.outcome
            if reply.id == 2:
                held.detector.let_go.set()

    reading = asyncio.create_task(read())
    await held.accepted(1)
    stopping = await drain_begun(held)
    more.set()
    await reading
    await stopping
    assert isinstance(replies[2], NotReadyError)
    assert list(replies) == [2, 1], "the refusal came at once"
    assert isinstance(replies[1], ImageAnalysis)


async def test_who_comes_after_the_end_finds_nobody(held, photo):
    held.detector.let_go.set()
    await held.gateway.stop(LONG_S)
    async with grpc.aio.insecure_channel(held.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await ExpressionServiceStub(channel).Analyze(service_pb.AnalyzeRequest(image=photo))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_takes_longer_than_the_drain_may_is_told_so(held, client, photo):
    accepted = asyncio.create_task(client.analyze(photo, timeout_s=LONG_S))
    await held.accepted(1)
    await held.gateway.stop(0)
    with pytest.raises(NotReadyError):
        await accepted
