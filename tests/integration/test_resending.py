"""Streams of the asyncio client over calls that break: every frame gets one reply."""

import asyncio
import contextlib

import grpc
import pytest

from ferserve.faces.errors import InvalidImageError
from ferserve.serving.client import AsyncClient, ClientConfig, NoAnswerError
from ferserve.serving.convert import stream_reply_to_pb
from ferserve.serving.errors import NotReadyError, OverloadedError, UnauthenticatedError
from ferserve.serving.requests import ImageAnalysis
from ferserve.serving.status import RICH_STATUS_KEY, grpc_status
from ferserve.serving.streams import FrameReply, StreamMode, StreamOptions
from ferserve.v1 import expression_service_pb2_grpc as service_grpc

ANSWER, SILENT, BREAK, END = "answer", "silent", "break", "end"
"""What is done as a frame comes. The last two end the whole call: with no status of ours, or as if all were well."""
FRAMES = [(7, b"one"), (7, b"two"), (2**64 - 1, b"three")]
"""Callers may use an id twice."""


class Refuse:
    """The whole call ends with an error of ferserve's."""

    def __init__(self, error):
        self.status = grpc_status(error)


class Gateway(service_grpc.ExpressionServiceServicer):
    """Does for each frame of each call what the call's script says; an error in it is the frame's reply.

    After a script's end frames are answered.
    """

    def __init__(self, analysis, *scripts):
        self._analysis = analysis
        self._scripts = list(scripts)
        self.calls = []
        """Image, and milliseconds until its deadline or None, of each frame of each call."""
        self.ids = []

    @property
    def images(self):
        return [[image for image, _ in frames] for frames in self.calls]

    async def StreamAnalyze(self, _frames, context):  # noqa: N802 - the service's own name
        self.ids.append(dict(context.invocation_metadata())["x-request-id"])
        script, frames = list(self._scripts.pop(0)) if self._scripts else [], []
        self.calls.append(frames)
        while (frame := await context.read()) is not grpc.aio.EOF:
            frames.append((frame.image, frame.timeout_ms if frame.HasField("timeout_ms") else None))
            step = script.pop(0) if script else ANSWER
            if step is BREAK:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            elif step is END:
                return
            elif isinstance(step, Refuse):
                trailing = ((RICH_STATUS_KEY, step.status.rich),)
                await context.abort(step.status.code, step.status.message, trailing)
            elif step is not SILENT:
                outcome = self._analysis if step is ANSWER else step
                await context.write(stream_reply_to_pb(FrameReply(id=frame.id, outcome=outcome)))


@contextlib.asynccontextmanager
async def client_of(gateway, waited_s=None, **settings):
    """A client that waits no time at all, and of a clock that goes on by as much."""
    waited_s = [] if waited_s is None else waited_s

    async def sleep(seconds):
        waited_s.append(seconds)

    server = grpc.aio.server()
    service_grpc.add_ExpressionServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    config = ClientConfig(**settings)
    async with AsyncClient(f"127.0.0.1:{port}", config, clock=lambda: sum(waited_s), sleep=sleep) as client:
        yield client
    await server.stop(None)


async def each_of(frames):
    for frame in frames:
        yield frame


async def replies_of(client, frames=FRAMES, **settings):
    return [reply async for reply in client.stream(each_of(frames), **settings)]


def outcomes(replies):
    return sorted(
        (reply.id, "ok" if isinstance(reply.outcome, ImageAnalysis) else type(reply.outcome).__name__)
        for reply in replies
    )


ALL_OK = sorted((frame_id, "ok") for frame_id, _ in FRAMES)


@pytest.mark.parametrize(
    "end", [BREAK, END, Refuse(NotReadyError("draining", retry_after_s=0.5))], ids=["break", "end", "refused"]
)
async def test_what_has_no_reply_as_a_call_ends_is_sent_again_on_another(sample_analysis, end):
    gateway = Gateway(sample_analysis, [SILENT, ANSWER, end])
    async with client_of(gateway) as client:
        assert outcomes(await replies_of(client)) == ALL_OK
    assert gateway.images == [[b"one", b"two", b"three"], [b"one", b"three"]]
    assert len(set(gateway.ids)) == 1


async def test_new_frames_follow_those_that_are_sent_again(sample_analysis):
    gateway = Gateway(sample_analysis, [SILENT, BREAK])
    async with client_of(gateway) as client:
        assert outcomes(await replies_of(client)) == ALL_OK
    assert [image for image in gateway.images[1] if image != b"three"] == [b"one", b"two"]


async def test_a_frame_that_is_refused_for_the_moment_is_sent_again_after_it(sample_analysis):
    full = OverloadedError("full", retry_after_s=1.5)
    gateway, waited_s = Gateway(sample_analysis, [full], [full]), []
    async with client_of(gateway, waited_s) as client:
        assert outcomes(await replies_of(client, FRAMES[:1])) == [(7, "ok")]
    assert sum(waited_s) == pytest.approx(3.0)
    assert gateway.images == [[b"one"]] * 3


async def test_a_gateway_that_leaves_is_left_and_what_it_took_is_waited_for(sample_analysis):
    leaves = NotReadyError("draining", retry_after_s=1.0)
    gateway = Gateway(sample_analysis, [ANSWER, leaves])
    async with client_of(gateway) as client:
        assert outcomes(await replies_of(client)) == ALL_OK
    assert b"two" in gateway.images[1]


async def test_an_error_of_the_frame_itself_is_its_reply(sample_analysis):
    gateway = Gateway(sample_analysis, [InvalidImageError("no picture")])
    async with client_of(gateway) as client:
        assert outcomes(await replies_of(client, FRAMES[1:])) == [(7, "InvalidImageError"), (2**64 - 1, "ok")]
    assert len(gateway.calls) == 1


async def test_a_frame_that_is_lost_with_every_call_gets_the_error_and_others_their_answers(sample_analysis):
    answered = asyncio.Event()

    async def camera():
        for frame in FRAMES:
            yield frame
        await answered.wait()
        yield 8, b"four"

    gateway = Gateway(sample_analysis, [SILENT, ANSWER, BREAK], [SILENT, ANSWER, BREAK])
    replies = []
    async with client_of(gateway, max_attempts=2) as client:
        async for reply in client.stream(camera()):
            replies.append(reply)
            if len(replies) == 2:
                answered.set()
    assert outcomes(replies) == [(7, "NoAnswerError"), (7, "ok"), (8, "ok"), (2**64 - 1, "ok")]


async def test_a_stream_of_which_no_frame_is_answered_any_more_raises(sample_analysis):
    gateway, waited_s = Gateway(sample_analysis, [ANSWER, BREAK], *[[BREAK]] * 9), []
    async with client_of(gateway, waited_s, max_attempts=3) as client:
        with pytest.raises(NoAnswerError, match="Socket closed"):
            await replies_of(client)
    assert len(waited_s) == 2


@pytest.mark.parametrize("stream", [StreamOptions(mode=StreamMode.LIVE), StreamOptions(tracks=True)], ids=str)
async def test_live_frames_and_followed_faces_are_not_sent_again(sample_analysis, stream):
    gateway = Gateway(sample_analysis, [SILENT, BREAK])
    async with client_of(gateway) as client:
        with pytest.raises(NoAnswerError, match="Socket closed"):
            await replies_of(client, stream=stream)
    assert len(gateway.calls) == 1


async def test_nothing_is_sent_again_where_the_caller_says_so(sample_analysis):
    gateway = Gateway(sample_analysis, [SILENT, BREAK])
    async with client_of(gateway) as client:
        with pytest.raises(NoAnswerError, match="Socket closed"):
            await replies_of(client, resend=False)
    assert len(gateway.calls) == 1


async def test_a_refusal_that_no_retry_helps_is_raised(sample_analysis):
    gateway = Gateway(sample_analysis, [ANSWER, Refuse(UnauthenticatedError("no key"))])
    async with client_of(gateway) as client:
        with pytest.raises(UnauthenticatedError, match="no key"):
            await replies_of(client)


async def test_a_frames_deadline_counts_from_when_it_was_first_sent(sample_analysis):
    gateway = Gateway(sample_analysis, [Refuse(NotReadyError("draining", retry_after_s=2.0))])
    async with client_of(gateway) as client:
        await replies_of(client, FRAMES[:1], frame_timeout_s=5.0)
    assert gateway.calls == [[(b"one", 5000)], [(b"one", 3000)]]


async def test_frames_that_come_slowly_are_waited_for_over_a_break_and_their_source_is_let_go(sample_analysis):
    gateway, replied, left = Gateway(sample_analysis, [BREAK]), asyncio.Event(), asyncio.Event()

    async def camera():
        try:
            yield 1, b"one"
            await replied.wait()
            yield 2, b"two"
            await asyncio.Event().wait()
        finally:
            left.set()

    async with client_of(gateway) as client:
        async with contextlib.aclosing(client.stream(camera())) as replies:
            assert (await anext(replies)).id == 1
            replied.set()
            assert (await anext(replies)).id == 2
            assert not left.is_set()
        assert left.is_set()
    assert gateway.images == [[b"one"], [b"one", b"two"]]


async def test_what_the_frames_raise_comes_after_the_replies_although_the_call_broke(sample_analysis):
    async def camera():
        yield 1, b"one"
        raise OSError("unplugged")

    gateway = Gateway(sample_analysis, [BREAK])
    async with client_of(gateway) as client:
        replies = client.stream(camera())
        assert outcomes([await anext(replies)]) == [(1, "ok")]
        with pytest.raises(OSError, match=r"^unplugged$"):
            await anext(replies)
