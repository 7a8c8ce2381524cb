import asyncio
import json

import pytest
from google.protobuf.json_format import MessageToDict
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ferserve.faces.errors import InvalidImageError, Reason
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.convert import stream_reply_to_pb
from ferserve.serving.errors import UnauthenticatedError
from ferserve.serving.health import Health
from ferserve.serving.http_server import HttpServer, bind
from ferserve.serving.requests import AnalyzeOptions, Priority
from ferserve.serving.rest_api import HttpConfig, create_rest_app
from ferserve.serving.rest_stream import HEADROOM_BYTES, max_message_bytes
from ferserve.serving.streams import FrameReply, StreamConfig


@pytest.fixture
def health():
    health = Health()
    health.ready()
    return health


@pytest.fixture
async def start(fake_analyzer, health, fake_observer):
    """Start a server with settings of streams; gives what `connect` takes for a path."""
    servers = []

    async def run(**settings):
        streams = StreamConfig(**settings)
        app = create_rest_app(
            fake_analyzer,
            health,
            HttpConfig(port=0),
            max_image_bytes=1000,
            streams=streams,
            bodies=BodyBudget(2**20),
            observer=fake_observer,
            version="1",
        )
        server = HttpServer(
            app,
            bind("127.0.0.1", 0),
            header_timeout_s=10.0,
            keep_alive_s=5,
            max_message_bytes=max_message_bytes(streams),
        )
        server.start()
        servers.append(server)
        return f"ws://{server.address}/v1/stream"

    yield run
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def url(start):
    return await start()


def frame(frame_id, picture=b"picture"):
    return frame_id.to_bytes(8, "big") + picture


async def reply_of(socket):
    return json.loads(await socket.recv())


async def test_a_frame_gets_the_reply_that_protobuf_would_write(url, sample_analysis, fake_observer):
    async with connect(url) as socket:
        await socket.send(frame(2**64 - 1))
        reply = await reply_of(socket)
    written = MessageToDict(
        stream_reply_to_pb(FrameReply(id=2**64 - 1, outcome=sample_analysis)),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    assert reply["id"] == written["id"] == "18446744073709551615"
    assert reply["dropped_frames"] == written["dropped_frames"] == 0
    assert reply["analysis"] == written["analysis"]
    assert await fake_observer.done.get() == ("/v1/stream", None)
    assert fake_observer.frames == [None]


async def test_options_come_by_the_query(url, fake_analyzer):
    query = "model=mobilenet&detection_size=320&max_faces=3&priority=bulk&tracks=true&timeout_ms=2000"
    async with connect(f"{url}?{query}") as socket:
        await socket.send(frame(1))
        (face,) = (await reply_of(socket))["analysis"]["faces"]
    [(data, options, context)] = fake_analyzer.asked
    assert data == b"picture"
    assert options == AnalyzeOptions(model="mobilenet", detection_size_px=320, max_faces=3, priority=Priority.BULK)
    assert context.deadline_s is not None
    assert face["track_id"] == 1


async def test_options_come_by_a_first_message_which_wins_over_the_query(url, fake_analyzer):
    async with connect(f"{url}?max_faces=3&detection_size=320") as socket:
        await socket.send(json.dumps({"max_faces": 5, "smoothing": 0.5}))
        await socket.send(frame(1))
        (face,) = (await reply_of(socket))["analysis"]["faces"]
    [(_, options, _)] = fake_analyzer.asked
    assert options == AnalyzeOptions(detection_size_px=320, max_faces=5)
    assert face["track_id"] == 1


@pytest.mark.parametrize(
    ("query", "first", "message"),
    [
        ("?mode=fast", frame(1), "mode: Input should be 'recorded' or 'live', got 'fast'"),
        ("?smoothing=1", frame(1), "smoothing: Input should be less than or equal to 0.95, got '1'"),
        ("?speed=9", frame(1), "speed: unknown"),
        ("", "[1]", "options: expected a JSON object, got list"),
        ("", "{", "options: expected a JSON object, got no JSON"),
        ("", " " * 5000, "options: expected at most 4096 characters, got 5000"),
        ("", b"1234567", "frame: expected 8 bytes of id, got 7 bytes in all"),
    ],
)
async def test_what_is_no_stream_is_told_why_and_ended(url, fake_observer, query, first, message):
    async with connect(f"{url}{query}") as socket:
        await socket.send(first)
        error = (await reply_of(socket))["error"]
        assert (error["reason"], error["message"]) == ("INVALID_REQUEST", message)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "INVALID_REQUEST")
    assert await fake_observer.done.get() == ("/v1/stream", Reason.INVALID_REQUEST)


async def test_a_model_that_is_not_there_is_told_at_once(url):
    async with connect(f"{url}?model=absent") as socket:
        await socket.send(frame(1))
        assert (await reply_of(socket))["error"]["reason"] == "MODEL_NOT_FOUND"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 1008


async def test_a_text_after_the_first_frame_ends_the_stream(url):
    async with connect(url) as socket:
        await socket.send(frame(1))
        assert (await reply_of(socket))["id"] == "1"
        await socket.send("{}")
        assert "before the first frame" in (await reply_of(socket))["error"]["message"]


async def test_a_bad_frame_is_answered_and_the_stream_lives_on(url, fake_analyzer):
    fake_analyzer.errors[b"bad"] = InvalidImageError("not a picture")
    async with connect(url, additional_headers={"X-Request-Id": "r-1"}) as socket:
        await socket.send(frame(1, b"bad"))
        reply = await reply_of(socket)
        assert reply["error"] == {
            "code": 400,
            "reason": "INVALID_IMAGE",
            "message": "not a picture",
            "request_id": "r-1",
        }
        await socket.send(frame(2))
        assert "analysis" in await reply_of(socket)


async def test_a_frame_that_is_too_large_is_told_so_and_a_huge_one_ends_the_stream(start):
    url = await start(max_frame_bytes=100)
    async with connect(url) as socket:
        await socket.send(frame(1, bytes(101)))
        assert (await reply_of(socket))["error"]["reason"] == "IMAGE_TOO_LARGE"
        await socket.send(frame(2, bytes(101 + HEADROOM_BYTES)))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 1009


async def test_live_drops_all_but_the_newest_and_counts_them(start, fake_analyzer, fake_observer):
    url = await start(live_frames=1)
    async with connect(f"{url}?mode=live") as socket:
        await socket.send(frame(1, b"hold"))
        assert await fake_analyzer.started.get() == b"hold"
        for frame_id in range(2, 10):
            await socket.send(frame(frame_id))
        assert [await fake_observer.dropped.get() for _ in range(7)] == [1] * 7
        fake_analyzer.release.set()
        first, second = await reply_of(socket), await reply_of(socket)
    assert [(reply["id"], reply["dropped_frames"]) for reply in (first, second)] == [("1", 0), ("9", 7)]


async def test_recorded_answers_every_frame_however_fast_they_come(start):
    url = await start(recorded_frames=2)
    async with connect(url) as socket:

        async def send():
            for frame_id in range(50):
                await socket.send(frame(frame_id))

        sending = asyncio.create_task(send())
        replies = [await reply_of(socket) for _ in range(50)]
        await sending
    assert sorted(int(reply["id"]) for reply in replies) == list(range(50))
    assert all("analysis" in reply for reply in replies)


async def test_a_caller_who_leaves_a_live_stream_cancels_its_frames(url, fake_analyzer, health):
    async with connect(f"{url}?mode=live") as socket:
        await socket.send(frame(1, b"hold"))
        await fake_analyzer.started.get()
    assert await fake_analyzer.left.get() == b"hold"
    assert await health.drained(5)


async def test_more_streams_than_allowed_are_told_to_try_later(start):
    url = await start(max_websockets=1)
    async with connect(url), connect(url) as second:
        error = (await reply_of(second))["error"]
        assert (error["reason"], error["retry_after_ms"]) == ("OVERLOADED", 5000)
        with pytest.raises(ConnectionClosed) as closed:
            await second.recv()
    assert closed.value.rcvd.code == 1013


async def test_a_stream_without_a_first_message_is_ended(start):
    url = await start(first_message_timeout_s=0.05)
    async with connect(url) as socket:
        error = (await reply_of(socket))["error"]
        assert (error["reason"], error["message"]) == ("DEADLINE", "no message came within 0.05 s")


async def test_a_draining_gateway_opens_no_stream_and_answers_frames_of_open_ones(url, health):
    async with connect(url) as opened:
        await opened.send(frame(1))
        await reply_of(opened)
        health.drain()
        await opened.send(frame(2))
        assert (await reply_of(opened))["error"]["reason"] == "NOT_READY"
        async with connect(url) as late:
            assert (await reply_of(late))["error"]["reason"] == "NOT_READY"
            with pytest.raises(ConnectionClosed) as closed:
                await late.recv()
    assert closed.value.rcvd.code == 1012


async def test_pages_of_other_hosts_open_no_stream_unless_they_are_named(start):
    url = await start(allowed_origins=("https://named.example",))
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, origin="https://other.example")
    assert refused.value.response.status_code == 403
    for origin in ("https://named.example", url.replace("ws:", "http:").removesuffix("/v1/stream")):
        async with connect(url, origin=origin) as socket:
            await socket.send(frame(1))
            assert "analysis" in await reply_of(socket)


async def test_a_gateway_with_keys_asks_for_one_before_the_first_frame(fake_analyzer, health, fake_observer):
    class Shut:
        """A gate that nobody passes."""

        def identify(self, authorization, scope):
            raise UnauthenticatedError(f"expected a key for {scope}, got {len(authorization)}")

    streams = StreamConfig()
    app = create_rest_app(
        fake_analyzer,
        health,
        HttpConfig(port=0),
        max_image_bytes=1000,
        streams=streams,
        bodies=BodyBudget(2**20),
        observer=fake_observer,
        version="1",
        gate=Shut(),
    )
    server = HttpServer(
        app, bind("127.0.0.1", 0), header_timeout_s=10.0, keep_alive_s=5, max_message_bytes=max_message_bytes(streams)
    )
    server.start()
    async with connect(f"ws://{server.address}/v1/stream") as socket:
        assert (await reply_of(socket))["error"]["reason"] == "UNAUTHENTICATED"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    await server.stop(0)
    assert closed.value.rcvd.code == 1008
    assert fake_analyzer.asked == []


async def test_what_else_is_a_websocket_is_refused(url):
    with pytest.raises(InvalidStatus) as refused:
        await connect(url.replace("/v1/stream", "/v1/other"))
    assert refused.value.response.status_code == 403
