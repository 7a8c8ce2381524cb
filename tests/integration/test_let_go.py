"""A picture that was answered, or refused, is held by nobody: no collection of garbage has to find it."""

import gc
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import grpc
import httpx
import pytest
from tests.integration.test_app import JPEG, config_for, gateway
from websockets.asyncio.client import connect

from ferserve.faces.decode import DecodeLimits
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.v1.expression_service_pb2 import (
    AnalyzeOptions,
    AnalyzeRequest,
    BatchAnalyzeRequest,
    StreamAnalyzeRequest,
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


async def over_grpc(channel: grpc.aio.Channel, picture: bytes) -> None:
    with suppress(grpc.aio.AioRpcError):
        await ExpressionServiceStub(channel).Analyze(AnalyzeRequest(image=picture))


async def in_a_batch(channel: grpc.aio.Channel, picture: bytes) -> None:
    await ExpressionServiceStub(channel).BatchAnalyze(BatchAnalyzeRequest(images=[picture]))


async def in_a_stream(channel: grpc.aio.Channel, picture: bytes) -> None:
    messages = [StreamAnalyzeRequest(options=AnalyzeOptions()), StreamAnalyzeRequest(id=1, image=picture)]
    async for _ in ExpressionServiceStub(channel).StreamAnalyze(iter(messages)):
        pass


async def over_rest(client: httpx.AsyncClient, picture: bytes) -> None:
    await client.post("/v1/images:analyze", content=picture, headers=JPEG)


async def in_a_batch_over_rest(client: httpx.AsyncClient, picture: bytes) -> None:
    await client.post("/v1/images:batchAnalyze", files=[("images", ("a.jpg", picture, "image/jpeg"))])


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

        assert await held_after(ask) < MIB // 2
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
        assert await held_after(ask) < 1.5 * MIB


async def held_after(ask: Callable[[int], Awaitable[None]]) -> int:
    """Bytes, after some frames more than one."""
    await ask(1)
    with no_collection():
        for number in range(2, 2 + TIMES):
            await ask(number)
        held_bytes, _ = tracemalloc.get_traced_memory()
    return held_bytes


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
            await ask()
            with no_collection():
                for _ in range(TIMES):
                    await ask()
                held_bytes, _ = tracemalloc.get_traced_memory()
            assert held_bytes < MIB // 2, ask.func.__name__
