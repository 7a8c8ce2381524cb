import asyncio
import contextlib

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from ferserve.faces.errors import FerserveError, ImageTooLargeError, InvalidImageError
from ferserve.serving.client import AsyncClient, Client, ClientConfig, NoAnswerError
from ferserve.serving.convert import analysis_to_pb, model_to_pb
from ferserve.serving.errors import (
    CallCancelledError,
    DeadlineError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
)
from ferserve.serving.requests import AnalyzeOptions, Priority
from ferserve.serving.streams import StreamMode, StreamOptions
from ferserve.v1 import expression_service_pb2 as service_pb
from ferserve.v1 import expression_service_pb2_grpc as service_grpc

BULK = AnalyzeOptions(priority=Priority.BULK, max_faces=2)


class Blocking:
    """The blocking client behind the asyncio client's face, each call in a thread, so that one test serves both."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            return await asyncio.to_thread(getattr(self._client, name), *args, **kwargs)

        return call

    async def stream(self, frames, *args, **kwargs):
        frames = [frame async for frame in frames]
        for reply in await asyncio.to_thread(lambda: list(self._client.stream(frames, *args, **kwargs))):
            yield reply


class Waits:
    """A clock that moves only when someone waits, what was waited, and what happens after the n-th wait."""

    def __init__(self):
        self.now_s = 100.0
        self.waited_s = []
        self.after = {}

    def clock(self):
        return self.now_s

    def sleep(self, seconds):
        self.waited_s.append(seconds)
        self.now_s += seconds
        self.after.get(len(self.waited_s), lambda: None)()

    async def sleep_async(self, seconds):
        self.sleep(seconds)


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request, waits):
    """Make a client of either kind for a target."""

    @contextlib.asynccontextmanager
    async def connect(target, **settings):
        config = ClientConfig(**settings)
        if request.param == "asyncio":
            async with AsyncClient(target, config, clock=waits.clock, sleep=waits.sleep_async) as client:
                yield client
        else:
            with Client(target, config, clock=waits.clock, sleep=waits.sleep) as client:
                yield Blocking(client)

    return connect


@pytest.fixture
async def client(connect, grpc_gateway):
    async with connect(grpc_gateway.target) as client:
        yield client


@contextlib.asynccontextmanager
async def serving(servicer):
    """A real server of another make; its target."""
    server = grpc.aio.server()
    service_grpc.add_ExpressionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def frames_of(*images):
    for frame_id, image in enumerate(images):
        yield frame_id, image


async def test_analyze_gives_the_analysis(client, grpc_gateway, sample_analysis):
    analysis = await client.analyze(b"picture", BULK)
    assert analysis_to_pb(analysis) == analysis_to_pb(sample_analysis)
    assert grpc_gateway.analyzer.asked[0][:2] == (b"picture", BULK)


async def test_a_batch_gives_one_outcome_a_picture(client, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("image: expected a whole picture")
    good, bad = await client.analyze_batch([b"picture", b"bad"], BULK)
    assert len(good.faces) == 1
    assert isinstance(bad, InvalidImageError)
    assert bad.message == "image: expected a whole picture"
    assert grpc_gateway.analyzer.asked[0][1] == BULK


async def test_classify_gives_one_outcome_a_face(client, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("image: expected a whole picture")
    good, bad = (await client.classify([b"face", b"bad"])).items
    assert good.expression.label == "happy"
    assert isinstance(bad, InvalidImageError)


async def test_models_are_whole(client, sample_model):
    assert await client.models() == [sample_model]
    assert await client.model() == await client.model(sample_model.name) == sample_model


async def test_an_error_comes_back_as_the_class_it_left_as(client):
    with pytest.raises(ModelNotFoundError, match=r"^model: expected one of mobilenet, got none$"):
        await client.model("none")


async def test_the_timeout_reaches_the_server(client, grpc_gateway):
    await client.analyze(b"picture", timeout_s=5.0)
    remaining_s = grpc_gateway.analyzer.asked[0][2].deadline_s - asyncio.get_running_loop().time()
    assert 0 < remaining_s <= 5.1


async def test_a_deadline_that_passes_is_a_deadline_error(client):
    with pytest.raises(DeadlineError, match=r"^no answer from 127\.0\.0\.1:\d+ in time"):
        await client.analyze(b"hold", timeout_s=0.1)


async def test_overload_is_retried_after_the_servers_delay(client, grpc_gateway, waits):
    grpc_gateway.analyzer.errors[b"picture"] = OverloadedError("queue: full", retry_after_s=1.5)
    waits.after[2] = grpc_gateway.analyzer.errors.clear
    assert (await client.analyze(b"picture")).detector == "haar"
    assert waits.waited_s == [1.5, 1.5]


async def test_retries_are_bounded(connect, grpc_gateway, waits):
    grpc_gateway.analyzer.errors[b"picture"] = OverloadedError("queue: full", retry_after_s=1.5)
    async with connect(grpc_gateway.target, max_attempts=2) as client:
        with pytest.raises(OverloadedError, match=r"^queue: full$") as caught:
            await client.analyze(b"picture")
    assert caught.value.retry_after_s == 1.5
    assert waits.waited_s == [1.5]
    assert len(grpc_gateway.analyzer.asked) == 2


async def test_a_delay_beyond_the_deadline_is_not_waited_for(client, grpc_gateway, waits):
    grpc_gateway.analyzer.errors[b"picture"] = OverloadedError("queue: full", retry_after_s=6.0)
    with pytest.raises(OverloadedError):
        await client.analyze(b"picture", timeout_s=10.0)
    assert waits.waited_s == [6.0]


async def test_a_call_without_deadline_waits_as_long_as_it_is_told(connect, grpc_gateway, waits):
    grpc_gateway.analyzer.errors[b"picture"] = OverloadedError("queue: full", retry_after_s=3600.0)
    waits.after[1] = grpc_gateway.analyzer.errors.clear
    async with connect(grpc_gateway.target, timeout_s=None) as client:
        await client.analyze(b"picture")
    assert grpc_gateway.analyzer.asked[0][2].deadline_s is None
    assert waits.waited_s == [3600.0]


@pytest.mark.parametrize(
    "error", [InvalidImageError("no picture"), NotReadyError("starting")], ids=lambda error: error.reason
)
async def test_an_error_without_a_delay_is_not_retried(client, grpc_gateway, waits, error):
    grpc_gateway.analyzer.errors[b"picture"] = error
    with pytest.raises(type(error), match=error.message):
        await client.analyze(b"picture")
    assert waits.waited_s == []
    assert len(grpc_gateway.analyzer.asked) == 1


async def test_no_server_is_tried_again_after_pauses_that_grow(connect, grpc_gateway, waits):
    await grpc_gateway.server.stop(None)
    async with connect(grpc_gateway.target, max_attempts=7) as client:
        with pytest.raises(NoAnswerError, match=f"^no answer from {grpc_gateway.target}: "):
            await client.models()
    longest_s = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
    assert len(waits.waited_s) == len(longest_s)
    assert all(most / 2 <= waited <= most for waited, most in zip(waits.waited_s, longest_s, strict=True))


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.CANCELLED, "CANCELLED"),  # the server stopped before it saw the call
        (grpc.StatusCode.INTERNAL, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"),  # by a proxy
    ],
    ids=["closed", "stopped", "reset"],
)
async def test_a_call_that_broke_is_sent_again_under_the_same_id(connect, sample_model, code, details):
    class Breaks(service_grpc.ExpressionServiceServicer):
        async def GetModel(self, _request, context):  # noqa: N802 - the service's own name
            ids.append(dict(context.invocation_metadata())["x-request-id"])
            if len(ids) < 3:
                await context.abort(code, details)
            return service_pb.GetModelResponse(model=model_to_pb(sample_model))

    ids = []
    async with serving(Breaks()) as target, connect(target) as client:
        assert await client.model() == await client.model() == sample_model
    first, second, third, other = ids
    assert first == second == third != other


async def test_a_request_above_the_servers_message_limit_is_too_large(connect, start_grpc):
    gateway = await start_grpc(max_message_bytes=128 * 1024)
    async with connect(gateway.target) as client:
        with pytest.raises(ImageTooLargeError, match=f"^the request is above the message limit of {gateway.target}"):
            await client.analyze(bytes(128 * 1024 + 1))


async def test_another_service_is_named_as_what_it_answers(connect):
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(f"127.0.0.1:{port}") as client:
        with pytest.raises(FerserveError, match=f"^127.0.0.1:{port} answered UNIMPLEMENTED: ") as caught:
            await client.models()
    assert type(caught.value) is FerserveError
    await server.stop(None)


async def test_details_of_another_make_are_not_taken_for_ferserves(connect):
    class Proxy(service_grpc.ExpressionServiceServicer):
        async def ListModels(self, _request, context):  # noqa: N802 - the service's own name
            status = rpc_status.to_status(Status(code=14, message="no upstream"))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not what the details say", status.trailing_metadata)

    async with serving(Proxy()) as target, connect(target) as client:
        with pytest.raises(NotReadyError, match=r": not what the details say$"):
            await client.models()


async def test_a_stream_gives_each_frame_its_reply(client, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("no picture")
    replies = {reply.id: reply.outcome async for reply in client.stream(frames_of(b"one", b"bad", b"two"), BULK)}
    assert sorted(replies) == [0, 1, 2]
    assert isinstance(replies[1], InvalidImageError)
    assert len(replies[0].faces) == len(replies[2].faces) == 1
    assert grpc_gateway.analyzer.asked[0][1] == BULK


async def test_a_frame_timeout_reaches_the_server(client, grpc_gateway):
    [_] = [reply async for reply in client.stream(frames_of(b"one"), frame_timeout_s=5.0)]
    remaining_s = grpc_gateway.analyzer.asked[0][2].deadline_s - asyncio.get_running_loop().time()
    assert 0 < remaining_s <= 5.0


async def test_a_stream_may_be_live_and_follow_faces(client):
    options = StreamOptions(mode=StreamMode.LIVE, tracks=True)
    replies = [reply async for reply in client.stream(frames_of(b"one"), stream=options)]
    assert [reply.outcome.faces[0].track_id for reply in replies] == [1]
    assert [reply.dropped_frames for reply in replies] == [0]


async def test_a_stream_that_fails_as_a_whole_raises(client, grpc_gateway):
    grpc_gateway.health.drain()
    with pytest.raises(NotReadyError, match="draining"):
        [_ async for _ in client.stream(frames_of(b"one"))]


async def test_a_stream_may_have_a_deadline(client):
    with pytest.raises(DeadlineError):
        [_ async for _ in client.stream(frames_of(b"hold"), timeout_s=0.1)]


async def test_what_the_frames_raise_is_raised_after_the_replies_to_those_before(grpc_gateway):
    async def camera():
        yield 1, b"picture"
        raise OSError("unplugged")

    async with AsyncClient(grpc_gateway.target) as client:
        replies = client.stream(camera())
        assert (await anext(replies)).id == 1
        with pytest.raises(OSError, match=r"^unplugged$"):
            await anext(replies)


async def test_what_the_frames_raise_is_raised_by_the_blocking_client_too(grpc_gateway):
    def consume():
        with Client(grpc_gateway.target) as client:
            replies = client.stream([(1, b"picture"), (-1, b"an id that is no uint64")])
            assert next(replies).id == 1
            with pytest.raises(ValueError, match="-1"):
                next(replies)

    await asyncio.to_thread(consume)


async def test_leaving_a_stream_early_ends_it(grpc_gateway):
    async with AsyncClient(grpc_gateway.target) as client:
        async with contextlib.aclosing(client.stream(frames_of(b"one", b"hold"))) as replies:
            assert (await anext(replies)).id == 0
            while await grpc_gateway.analyzer.started.get() != b"hold":
                pass
        assert await grpc_gateway.analyzer.left.get() == b"hold"


async def test_leaving_a_blocking_stream_early_ends_it(grpc_gateway):
    def consume_one():
        with Client(grpc_gateway.target) as client:
            stream = client.stream([(0, b"one"), (1, b"hold")])
            assert next(stream).id == 0
            asyncio.run_coroutine_threadsafe(held(), loop).result()
            stream.close()

    async def held():
        while await grpc_gateway.analyzer.started.get() != b"hold":
            pass

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(consume_one)
    assert await grpc_gateway.analyzer.left.get() == b"hold"


async def test_closing_cancels_the_calls_that_run(grpc_gateway):
    client = Client(grpc_gateway.target)
    call = asyncio.create_task(asyncio.to_thread(client.analyze, b"hold"))
    await grpc_gateway.analyzer.started.get()
    client.close()
    with pytest.raises(CallCancelledError, match=f"^the call to {grpc_gateway.target} was cancelled"):
        await call
    assert await grpc_gateway.analyzer.left.get() == b"hold"


async def test_closing_the_asyncio_client_cancels_as_asyncio_does(grpc_gateway):
    client = AsyncClient(grpc_gateway.target)
    call = asyncio.create_task(client.analyze(b"hold"))
    await grpc_gateway.analyzer.started.get()
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize(("field", "value"), [("timeout_s", 0.0), ("timeout_s", float("nan")), ("max_attempts", 0)])
def test_a_setting_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be .* got {value}$"):
        ClientConfig(**{field: value})
