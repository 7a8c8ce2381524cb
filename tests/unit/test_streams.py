import asyncio

import pytest

from ferserve.faces.errors import InvalidImageError, InvalidRequestError, Reason
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.health import Health
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelInfo, RequestContext, StageTimings
from ferserve.serving.streams import Frame, FrameStream, StreamConfig, StreamMode, StreamOptions

MODEL = ModelInfo(
    name="m",
    version="1",
    archive_sha256="a" * 64,
    preprocess_sha256="b" * 64,
    precision="fp32",
    architecture="",
    paper="",
    crop_size_px=16,
    crop_channels=1,
    temperature=1.0,
    uncertain_below=0.3,
    figures={},
    is_default=True,
)
ANALYSIS = ImageAnalysis(
    width_px=1, height_px=1, faces=(), detector="none", model=MODEL, timings=StageTimings(total_ms=1.0)
)


class Analyzer:
    """Answers a frame once its picture's gate is open; all gates are open at first."""

    def __init__(self):
        self.gates = {}
        self.began = asyncio.Queue()
        self.contexts = []
        self.cancelled = []

    def hold(self, picture):
        self.gates[picture] = asyncio.Event()
        return self.gates[picture]

    async def analyze(self, data, _options, context):
        self.contexts.append(context)
        self.began.put_nowait(data)
        try:
            if data in self.gates:
                await self.gates[data].wait()
        except asyncio.CancelledError:
            self.cancelled.append(data)
            raise
        if data == b"bad":
            raise InvalidImageError("no picture")
        return ANALYSIS


class Observer:
    def __init__(self):
        self.open, self.done, self.dropped = 0, [], 0

    def stream_opened(self):
        self.open += 1

    def stream_closed(self):
        self.open -= 1

    def frame_done(self, reason):
        self.done.append(reason)

    def frames_dropped(self, frames):
        self.dropped += frames


class Running:
    """A stream, what it is fed and what it answered."""

    def __init__(self, *, places=1, held_bytes=1000, **options):
        self.analyzer, self.observer, self.health = Analyzer(), Observer(), Health()
        self.health.ready()
        self.bodies = BodyBudget(held_bytes)
        self.incoming = asyncio.Queue()
        self.replies = asyncio.Queue()
        self.errors = []
        self.read = 0
        self.stream = FrameStream(
            self.analyzer,
            self.health,
            StreamOptions(**options),
            call=RequestContext(request_id="s"),
            places=places,
            bodies=self.bodies,
            observer=self.observer,
            reply=self.replies.put,
            log=self.errors.append,
        )
        self.task = asyncio.create_task(self.stream.run(self.frames()))

    async def frames(self):
        while (item := await self.incoming.get()) is not None:
            if isinstance(item, Exception):
                raise item
            self.read += 1
            yield item

    def send(self, frame_id, picture=b"picture", **fields):
        fields.setdefault("options", AnalyzeOptions())
        self.incoming.put_nowait(Frame(id=frame_id, image=picture, **fields))

    async def settled(self):
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def end(self):
        self.incoming.put_nowait(None)
        await self.task
        replies = []
        while not self.replies.empty():
            replies.append(self.replies.get_nowait())
        assert self.bodies.held_bytes == 0
        assert self.observer.open == 0
        return replies


async def test_recorded_answers_every_frame_once():
    stream = Running(places=3)
    for frame_id in range(10):
        stream.send(frame_id)
    replies = await stream.end()
    assert sorted(reply.id for reply in replies) == list(range(10))
    assert {reply.dropped for reply in replies} == {0}
    assert stream.observer.done == [None] * 10


async def test_recorded_reads_no_further_than_its_places():
    stream = Running(places=2)
    gates = [stream.analyzer.hold(picture) for picture in (b"a", b"b")]
    for picture in (b"a", b"b", b"c"):
        stream.send(0, picture)
    await stream.settled()
    assert stream.read == 2
    for gate in gates:
        gate.set()
    assert len(await stream.end()) == 3


async def test_live_keeps_the_newest_and_says_how_many_it_dropped():
    stream = Running(mode=StreamMode.LIVE)
    gate = stream.analyzer.hold(b"slow")
    stream.send(1, b"slow")
    await stream.settled()
    for frame_id in range(2, 7):
        stream.send(frame_id)
    await stream.settled()
    assert stream.read == 6
    assert stream.bodies.held_bytes == len(b"slow") + len(b"picture")
    gate.set()
    replies = await stream.end()
    assert [(reply.id, reply.dropped) for reply in replies] == [(1, 0), (6, 4)]
    assert stream.observer.dropped == 4


async def test_live_answers_the_last_frame_even_if_the_stream_has_ended():
    stream = Running(mode=StreamMode.LIVE)
    gate = stream.analyzer.hold(b"slow")
    stream.send(1, b"slow")
    await stream.settled()
    stream.send(2)
    stream.send(3)
    stream.incoming.put_nowait(None)
    await stream.settled()
    gate.set()
    assert [(reply.id, reply.dropped) for reply in await stream.end()] == [(1, 0), (3, 1)]


async def test_replies_of_live_streams_keep_the_order_of_their_frames():
    stream = Running(places=2, mode=StreamMode.LIVE)
    gate = stream.analyzer.hold(b"slow")
    stream.send(1, b"slow")
    await stream.settled()
    stream.send(2)
    await stream.settled()
    assert stream.replies.empty()
    gate.set()
    assert [reply.id for reply in await stream.end()] == [1, 2]


async def test_a_failed_frame_holds_nobody_up_and_keeps_its_place_in_the_order():
    stream = Running(places=3, tracks=True)
    stream.send(1, b"bad")
    stream.send(2)
    stream.send(3, options=InvalidRequestError("max_faces: expected 1, got 0"))
    replies = await stream.end()
    assert [reply.id for reply in replies] == [1, 2, 3]
    assert [getattr(reply.outcome, "reason", None) for reply in replies] == [
        Reason.INVALID_IMAGE,
        None,
        Reason.INVALID_REQUEST,
    ]
    assert stream.observer.done == [Reason.INVALID_IMAGE, None, Reason.INVALID_REQUEST]


async def test_a_receiver_who_does_not_read_gets_no_further_frames_analysed():
    stream = Running(mode=StreamMode.LIVE)
    stream.replies = asyncio.Queue(maxsize=1)
    stream.stream._send = stream.replies.put
    for frame_id in range(6):
        stream.send(frame_id)
        await stream.settled()
    assert stream.analyzer.began.qsize() == 2  # one reply is out, one waits to be
    assert (await stream.replies.get()).id == 0
    await stream.settled()
    assert (await stream.replies.get()).id == 1
    await stream.settled()
    last = await stream.replies.get()
    assert (last.id, last.dropped) == (5, 3)
    await stream.end()


async def test_a_frame_that_there_is_no_room_for_is_told_so():
    stream = Running(held_bytes=10)
    stream.send(1, bytes(11))
    stream.send(2, bytes(10))
    outcomes = {reply.id: reply.outcome for reply in await stream.end()}
    assert outcomes[1].reason is Reason.OVERLOADED
    assert outcomes[1].__traceback__ is None, "it would hold the frame"
    assert outcomes[2] is ANALYSIS


@pytest.mark.parametrize("mode", list(StreamMode))
async def test_a_draining_gateway_answers_what_it_accepted_and_refuses_the_rest(mode):
    stream = Running(places=2, mode=mode)
    gate = stream.analyzer.hold(b"slow")
    stream.send(1, b"slow")
    await stream.settled()
    stream.health.drain()
    stream.send(2)
    await stream.settled()
    gate.set()
    outcomes = {reply.id: reply.outcome for reply in await stream.end()}
    assert outcomes[1] is ANALYSIS
    assert outcomes[2].reason is Reason.NOT_READY


@pytest.mark.parametrize("mode", list(StreamMode))
async def test_a_caller_who_leaves_cancels_what_is_not_answered(mode):
    stream = Running(places=1, mode=mode)
    stream.analyzer.hold(b"slow")
    stream.send(1, b"slow")
    await stream.settled()
    if mode is StreamMode.LIVE:
        stream.send(2)  # waits for its place
    else:
        stream.stream._places.release()  # or the leaving would be read only after the first frame
    stream.incoming.put_nowait(CallCancelledError("the caller left"))
    with pytest.raises(CallCancelledError):
        await stream.task
    assert stream.analyzer.cancelled == [b"slow"]
    assert stream.bodies.held_bytes == 0
    assert stream.health.in_flight == 0
    assert stream.observer.open == 0


async def test_what_is_no_frame_ends_the_stream_after_the_frames_before_it():
    stream = Running(places=2)
    stream.send(1)
    stream.incoming.put_nowait(InvalidRequestError("no frame"))
    with pytest.raises(InvalidRequestError, match=r"^no frame$"):
        await stream.task
    assert (await stream.replies.get()).id == 1


async def test_an_unforeseen_error_is_a_reply_and_is_logged():
    class Broken(Analyzer):
        async def analyze(self, _data, _options, _context):
            raise RuntimeError("unforeseen")

    stream = Running()
    stream.stream._analyzer = Broken()
    stream.send(1)
    (reply,) = await stream.end()
    assert isinstance(reply.outcome, RuntimeError)
    assert stream.errors == [reply.outcome]
    assert stream.observer.done == [Reason.INTERNAL]


async def test_a_frames_deadline_counts_from_its_arrival():
    stream = Running()
    before_s = asyncio.get_running_loop().time()
    stream.send(1, timeout_s=2.0)
    stream.send(2)
    await stream.end()
    first, second = stream.analyzer.contexts
    assert before_s + 2 <= first.deadline_s <= asyncio.get_running_loop().time() + 2
    assert second.deadline_s is None
    assert first.request_id == second.request_id == "s"


def test_settings_out_of_range_are_named():
    for name in ("live_frames", "recorded_frames", "max_websockets", "max_frame_bytes"):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
            StreamConfig(**{name: 0})
    with pytest.raises(ValueError, match=r"^first_message_timeout_s must be above 0, got 0"):
        StreamConfig(first_message_timeout_s=0)
    with pytest.raises(InvalidRequestError, match=r"^smoothing: expected 0 to 0\.95, got 1$"):
        StreamOptions(smoothing=1.0)
