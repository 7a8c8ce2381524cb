"""What has been answered is let go of by name: here without a collection of garbage, piece by piece."""

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.made_up.dispatchers import one_by_one

from ferserve.serving.errors import OverloadedError, WorkerFailedError, without_frames
from ferserve.serving.grpc_stream import IncomingFrames
from ferserve.serving.requests import Priority
from ferserve.v1.expression_service_pb2 import StreamAnalyzeRequest


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Picture:
    """Can be watched."""


def failed(message: str) -> OverloadedError:
    """An error that has been raised, and so has a traceback."""
    with pytest.raises(OverloadedError) as caught:
        raise OverloadedError(message, retry_after_s=1.0)
    return caught.value


def test_an_error_lets_go_of_its_frames_and_all_behind_it_do():
    first, cause, context, member = map(failed, ("first", "cause", "context", "member"))
    first.__cause__, first.__context__ = cause, context
    context.__context__ = first  # a circle
    cause.__context__ = ExceptionGroup("some", [member])
    without_frames(first)
    assert [error.__traceback__ for error in (first, cause, context, member)] == [None] * 4


class Bench:
    """A dispatcher whose one run fails when told."""

    def __init__(self) -> None:
        self.fail = asyncio.Event()
        self.began = asyncio.Event()
        self.dispatcher = one_by_one(self._run, slots=1, clock=asyncio.get_running_loop().time)

    async def _run(self, _pictures: list[Picture], _left_s: float) -> list[Exception | None]:
        self.began.set()
        await self.fail.wait()
        raise WorkerFailedError("as told")

    def submit(self) -> "tuple[asyncio.Future[object], weakref.ref[Picture]]":
        picture = Picture()
        (future,) = self.dispatcher.submit([picture], flow="a", priority=Priority.INTERACTIVE, deadline_s=1e9)
        return future, weakref.ref(picture)


async def test_a_picture_whose_caller_left_goes_when_its_run_has_failed():
    bench = Bench()
    future, picture = bench.submit()
    await bench.began.wait()
    future.cancel()
    del future
    assert picture() is not None
    bench.fail.set()
    async with asyncio.timeout(5):
        while picture() is not None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    await bench.dispatcher.close()


async def test_a_message_goes_when_the_next_one_is_waited_for():
    sent = [StreamAnalyzeRequest(id=number, image=b"picture") for number in (1, 2)]
    unheld = [sys.getrefcount(sent[index]) for index in (0, 1)]
    more = asyncio.Event()

    async def messages() -> AsyncIterator[StreamAnalyzeRequest]:
        yield sent[0]
        yield sent[1]
        await more.wait()

    incoming = IncomingFrames(messages())
    await incoming.options()
    frames = aiter(incoming)
    assert [(await anext(frames)).id, (await anext(frames)).id] == [1, 2]
    last = asyncio.create_task(anext(frames, None))
    await asyncio.sleep(0)
    assert [sys.getrefcount(sent[index]) for index in (0, 1)] == unheld
    more.set()
    assert await last is None
