"""A picture that was answered, or refused, is held by nobody: no collection of garbage has to find it."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import grpc
import httpx
import pytest
from tests.integration.test_app import JPEG, config_for, gateway
from websockets.asyncio.client import connect

from ferserve.faces.decode import DecodeLimits
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.client.failures import error_of_rpc
from ferserve.serving.status import error_of
from ferserve.v1.expression_service_pb2 import (
    AnalyzeOptions,
    AnalyzeRequest,
    BatchAnalyzeItem,
    BatchAnalyzeRequest,
    StreamAnalyzeRequest,
    StreamAnalyzeResponse,
    StreamMode,
    StreamOptions,
)
from ferserve.v1.expression_service_pb2_grpc import ExpressionServiceStub

MIB = 2**20
TIMES = 4


@contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


def pictures(face_photo: bytes) -> dict[str, bytes]:
    """Of a MiB, or two where that is too large."""
    return {
        "scored": face_photo + bytes(MIB - len(face_photo)),
        "damaged": face_photo[: len(face_photo) // 2] + bytes(MIB),
        "too large": face_photo + bytes(2 * MIB),
    }


ENDINGS = {"scored": "", "damaged": "INVALID_IMAGE", "too large": "IMAGE_TOO_LARGE"}


def reason_of(answer: BatchAnalyzeItem | StreamAnalyzeResponse) -> str:
    error = error_of(answer.error) if answer.HasField("error") else None
    return "" if error is None else error.reason


async def over_grpc(channel: grpc.aio.Channel, picture: bytes) -> str:
    try:
        reply = await ExpressionServiceStub(channel).Analyze(AnalyzeRequest(image=picture))
    except grpc.aio.AioRpcError as error:
        return error_of_rpc(error, "here").reason
    assert reply.analysis.faces
    return ""


async def in_a_batch(channel: grpc.aio.Channel, picture: bytes) -> str:
    reply = await ExpressionServiceStub(channel).BatchAnalyze(BatchAnalyzeRequest(images=[picture]))
    return reason_of(reply.items[0])


async def in_a_stream(channel: grpc.aio.Channel, picture: bytes) -> str:
    messages = [StreamAnalyzeRequest(options=AnalyzeOptions()), StreamAnalyzeRequest(id=1, image=picture)]
    replies = [reply async for reply in ExpressionServiceStub(channel).StreamAnalyze(iter(messages))]
    return reason_of(next(reply for reply in replies if reply.id == 1))


async def over_rest(client: httpx.AsyncClient, picture: bytes) -> str:
    answer = (await client.post("/v1/images:analyze", content=picture, headers=JPEG)).json()
    return answer["error"]["reason"] if "error" in answer else ""


async def in_a_batch_over_rest(client: httpx.AsyncClient, picture: bytes) -> str:
    files = [("images", ("a.jpg", picture, "image/jpeg"))]
    answer = (await client.post("/v1/images:batchAnalyze", files=files)).json()
    item = answer["items"][0] if "items" in answer else answer
    return (item.get("error") or {"reason": ""})["reason"]


async def little_is_left(most_bytes: int = MIB // 2) -> None:
    """An answer may be there some turns of the loop before its server's last words."""
    async with asyncio.timeout(5):
        while tracemalloc.get_traced_memory()[0] >= most_bytes:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


@pytest.mark.parametrize("mode", [StreamMode.STREAM_MODE_RECORDED, StreamMode.STREAM_MODE_LIVE])
async def test_a_stream_that_waits_for_its_next_frame_does_not_hold_the_last(tiny_archive, face_photo, mode):
    picture = pictures(face_photo)["scored"]
    async with (
        gateway(config_for(tiny_archive)) as (addresses, _),
        grpc.aio.insecure_channel(addresses["gRPC"]) as channel,
    ):
        call = ExpressionServiceStub(channel).StreamAnalyze()
        await call.write(StreamAnalyzeRequest(stream=StreamOptions(mode=mode)))
        await call.read()  # of no picture

        async def ask(number: int) -> None:
            await call.write(StreamAnalyzeRequest(id=number, image=picture))
            assert (await call.read()).id == number

        await ask_some_times(ask, MIB // 2)
        await call.done_writing()


@pytest.mark.parametrize("mode", ["recorded", "live"])
async def test_a_websocket_that_waits_holds_the_one_picture_that_its_parser_does(tiny_archive, face_photo, mode):
    picture = pictures(face_photo)["scored"]
    async with (
        gateway(config_for(tiny_archive)) as (addresses, _),
        connect(f"ws://{addresses['REST'].removeprefix('http://')}/v1/stream?mode={mode}") as socket,
    ):

        async def ask(number: int) -> None:
            await socket.send(number.to_bytes(8, "big") + picture)
            assert int(json.loads(await socket.recv())["id"]) == number

        # websockets' own parser has a name for the last frame while it waits (`websockets.protocol`, 17.4).
        await ask_some_times(ask, MIB + MIB // 2)


async def ask_some_times(ask: Callable[[int], Awaitable[None]], most_bytes: int) -> None:
    await ask(1)
    with no_collection():
        for number in range(2, 2 + TIMES):
            await ask(number)
        await little_is_left(most_bytes)


@pytest.mark.parametrize("which", ["scored", "damaged", "too large"])
@pytest.mark.parametrize("preparation", ["processes", "threads"])
async def test_no_picture_outlives_its_answer(tiny_archive, face_photo, which, preparation):
    picture = pictures(face_photo)[which]
    config = config_for(
        tiny_archive,
        decode=DecodeLimits(max_image_bytes=2 * MIB),
        analyzer=AnalyzerConfig(threads=1, preparation=preparation),
    )
    async with (
        gateway(config) as (addresses, _),
        grpc.aio.insecure_channel(addresses["gRPC"]) as channel,
        httpx.AsyncClient(base_url=addresses["REST"]) as client,
    ):
        ways = [partial(ask, channel, picture) for ask in (over_grpc, in_a_batch, in_a_stream)]
        ways += [partial(ask, client, picture) for ask in (over_rest, in_a_batch_over_rest)]
        for ask in ways:
            assert await ask() == ENDINGS[which]
            with no_collection():
                for _ in range(TIMES):
                    await ask()
                await little_is_left()
