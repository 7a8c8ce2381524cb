"""How a bidirectional call ends, against a real gRPC server that ends calls while messages still come."""

import asyncio
import contextlib
from itertools import count

import grpc
import pytest

from ferserve.serving.client.frame_call import FrameCall

CALLS = 100
METHOD = "/test/Ends"


async def after_one(context):
    await context.read()
    await context.abort(grpc.StatusCode.NOT_FOUND, "its own word", (("a", "trailer"),))


async def at_once(context):
    await context.abort(grpc.StatusCode.NOT_FOUND, "its own word", (("a", "trailer"),))


async def echo(context):
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


@contextlib.asynccontextmanager
async def calls_of(handler):
    """A function that begins calls which this handler answers."""

    async def handle(_messages, context):
        await handler(context)

    class Services(grpc.GenericRpcHandler):
        def service(self, _details):
            return grpc.stream_stream_rpc_method_handler(handle)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Services(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.stream_stream(METHOD)
    await server.stop(0)


async def words(numbers):
    for number in numbers:
        await asyncio.sleep(0)
        yield b"%d" % number


async def ending_of(call, numbers):
    sending = asyncio.create_task(call.send(words(numbers)))
    try:
        return [reply async for reply in call.replies()]
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details(), dict(error.trailing_metadata())
    finally:
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("handler", [at_once, after_one])
@pytest.mark.parametrize("numbers", [count, lambda: range(1)], ids=["still_sending", "closing"])
async def test_a_call_that_the_server_ends_meanwhile_ends_with_the_servers_word(handler, numbers):
    async with calls_of(handler) as begin:
        endings = [await ending_of(FrameCall(begin()), numbers()) for _ in range(CALLS)]
    assert endings == [(grpc.StatusCode.NOT_FOUND, "its own word", {"a": "trailer"})] * CALLS


async def test_every_reply_comes_before_the_end():
    async with calls_of(echo) as begin:
        assert await ending_of(FrameCall(begin()), range(50)) == [b"%d" % number for number in range(50)]


class Ended:
    """What gRPC's call says of itself, status by status; where its writes fail, one of them is its own stand-in."""

    def __init__(self, *statuses):
        self._statuses = statuses
        self._said = None

    def add_done_callback(self, callback):
        for status in self._statuses:
            self._said = status
            callback(self)

    async def __aiter__(self):
        for reply in ():
            yield reply
        raise grpc.aio.AioRpcError(*self._said_as_arguments())

    def _said_as_arguments(self):
        return self._said[0], grpc.aio.Metadata(), grpc.aio.Metadata(), self._said[1]

    async def code(self):
        return self._said[0]

    async def details(self):
        return self._said[1]

    async def trailing_metadata(self):
        return grpc.aio.Metadata()

    async def debug_error_string(self):
        return ""


STAND_IN = (grpc.StatusCode.INTERNAL, "Internal error from Core")
WORD = (grpc.StatusCode.UNAVAILABLE, "gone")


@pytest.mark.parametrize("statuses", [(WORD, STAND_IN), (STAND_IN, WORD), (STAND_IN, WORD, STAND_IN)])
async def test_a_stand_in_counts_neither_before_the_servers_word_nor_after_it(statuses):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        [_ async for _ in FrameCall(Ended(*statuses)).replies()]
    assert (raised.value.code(), raised.value.details()) == WORD


async def test_a_stand_in_stands_where_the_servers_word_never_comes(monkeypatch):
    monkeypatch.setattr("ferserve.serving.client.frame_call.STATUS_TIMEOUT_S", 0.01)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        [_ async for _ in FrameCall(Ended(STAND_IN)).replies()]
    assert (raised.value.code(), raised.value.details()) == STAND_IN
