"""One stream of frames, free of any protocol: which frames are analysed, in what order they are answered, and tracks.

Recorded: every frame, and no further one is read while as many as allowed are unanswered; that slows the sender down.
Live: frames are read as they come, and of those that wait only the newest is kept. A frame's place is free again once
its reply is out, so a receiver who does not read gets fewer frames analysed and never a queue of old replies.

All frames of a stream share one request id: whatever it sends, a stream is one party to the queues' fairness.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Protocol

from ferserve.faces.errors import InvalidRequestError, RequestError
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.errors import CallCancelledError, NotReadyError, OverloadedError
from ferserve.serving.health import Health
from ferserve.serving.observing import StreamObserver
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelInfo, RequestContext
from ferserve.serving.status import public_error
from ferserve.serving.tracking import MAX_SMOOTHING, Tracker


class StreamMode(StrEnum):
    """Which frames are analysed when they come faster than they can be."""

    RECORDED = "recorded"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream is run as a whole.

    Attributes:
        mode: every frame, or the newest.
        tracks: follow faces from frame to frame.
        smoothing: weight that a face's earlier scores and box keep, 0 to 0.95; above 0 it turns tracks on.
    """

    mode: StreamMode = StreamMode.RECORDED
    tracks: bool = False
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing <= MAX_SMOOTHING:
            raise InvalidRequestError(f"smoothing: expected 0 to {MAX_SMOOTHING}, got {self.smoothing:g}")

    @property
    def follows(self) -> bool:
        """Whether faces get tracks."""
        return self.tracks or self.smoothing > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How many frames are in the works, and how WebSocket streams are bounded.

    Attributes:
        live_frames: of one live stream that are analysed side by side, 1 or more.
        recorded_frames: unanswered frames of one recorded WebSocket stream past which no further one is read, 1 or
            more; of a gRPC stream it is `grpc.max_stream_frames_in_flight`.
        max_websockets: streams open at one time over WebSocket, 1 or more. Each may hold one frame that is arriving.
        max_frame_bytes: of one encoded frame over WebSocket, 1 or more.
        first_message_timeout_s: longest that a WebSocket may be open before its first message, above 0.
        allowed_origins: pages of other hosts that may open a WebSocket, such as `https://example.org`; the gateway's
            own page and programs that send no Origin always may.
    """

    live_frames: int = 2
    recorded_frames: int = 8
    max_websockets: int = 64
    max_frame_bytes: int = 4 * 2**20
    first_message_timeout_s: float = 10.0
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("live_frames", "recorded_frames", "max_websockets", "max_frame_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.first_message_timeout_s > 0:
            raise ValueError(f"first_message_timeout_s must be above 0, got {self.first_message_timeout_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame as an adapter read it.

    Attributes:
        id: the caller's, 0 to 2**64 - 1; nothing is read from it.
        image: an encoded picture.
        options: what to do with it, or what is wrong with the frame or with what was asked.
        timeout_s: from its arrival; None leaves it to the call.
    """

    id: int
    image: bytes
    options: AnalyzeOptions | RequestError
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReply:
    """What is said of one frame.

    Attributes:
        dropped: frames that came between this one and the one answered before it, and were dropped.
    """

    id: int
    outcome: ImageAnalysis | Exception
    dropped: int = 0


class FrameAnalyzer(Protocol):
    """The part of the analyzer that streams need."""

    async def analyze(self, data: bytes, options: AnalyzeOptions, context: RequestContext) -> ImageAnalysis:
        """Find and score the faces of one picture."""


@dataclass(slots=True, eq=False)
class _Taken:
    """A frame that came and has no reply yet.

    Attributes:
        refusal: why it is not even held.
        deadline_s: reading of the loop's clock, or None.
        answered: set once its reply is out, for the one after it.
    """

    frame: Frame
    deadline_s: float | None
    refusal: OverloadedError | None = None
    dropped: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class FrameStream:
    """Answers the frames of one stream.

    Args:
        call: the stream's id, and a deadline for all of it or None.
        places: frames analysed side by side.
        reply: sends one reply; returns when the way is free for the next one. Never called twice at a time.
        log: told of errors that nobody foresaw.
    """

    def __init__(
        self,
        analyzer: FrameAnalyzer,
        health: Health,
        options: StreamOptions,
        *,
        call: RequestContext,
        places: int,
        bodies: BodyBudget,
        observer: StreamObserver,
        reply: Callable[[FrameReply], Awaitable[None]],
        log: Callable[[Exception], None],
    ) -> None:
        self._analyzer = analyzer
        self._health = health
        self._options = options
        self._call = call
        self._places = asyncio.Semaphore(places)
        self._bodies = bodies
        self._observer = observer
        self._send = reply
        self._log = log
        self._writing = asyncio.Lock()
        self._tracker = Tracker(options.smoothing) if options.follows else None
        self._in_order = self._tracker is not None or options.mode is StreamMode.LIVE
        self._last_answered: asyncio.Event | None = None
        self._newest = _Newest()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, incoming: AsyncIterator[Frame]) -> None:
        """Answer frames until no more come and the last one is answered.

        Raises:
            InvalidRequestError: raised by `incoming` for what is no frame; the frames before it are answered.
            CallCancelledError: raised by `incoming` because the caller left; what is not answered is cancelled.
        """
        ending: InvalidRequestError | CallCancelledError | None = None
        self._observer.stream_opened()
        read = self._read_live if self._options.mode is StreamMode.LIVE else self._read_recorded
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await read(incoming, group)
                except InvalidRequestError as error:
                    ending = error
                except CallCancelledError as error:
                    ending = error
                    for task in self._tasks:
                        task.cancel()
        finally:
            self._give_up(self._newest.clear())
            self._observer.stream_closed()
        if ending is not None:
            try:
                raise ending
            finally:
                del ending  # the error holds this frame from now on

    async def _read_recorded(self, incoming: AsyncIterator[Frame], group: asyncio.TaskGroup) -> None:
        while await self._begin_next(incoming, group):
            pass

    # Here and below each frame has a call of its own: what waits for the next one must not hold the last.
    async def _begin_next(self, incoming: AsyncIterator[Frame], group: asyncio.TaskGroup) -> bool:
        await self._places.acquire()
        frame = await anext(incoming, None)
        if frame is not None:
            self._begin(self._taken(frame), group)
        return frame is not None

    async def _read_live(self, incoming: AsyncIterator[Frame], group: asyncio.TaskGroup) -> None:
        self._add(group, self._take_newest(group))
        try:
            while await self._put_next(incoming):
                pass
        finally:
            self._newest.end()

    async def _put_next(self, incoming: AsyncIterator[Frame]) -> bool:
        frame = await anext(incoming, None)
        if frame is not None:
            self._give_up(self._newest.put(self._taken(frame)))
        return frame is not None

    async def _take_newest(self, group: asyncio.TaskGroup) -> None:
        while await self._begin_newest(group):
            pass

    async def _begin_newest(self, group: asyncio.TaskGroup) -> bool:
        await self._places.acquire()  # first: which one is the newest shows when there is room for it
        taken = await self._newest.take()
        if taken is not None:
            self._begin(taken, group)
        return taken is not None

    def _give_up(self, taken: "_Taken | None") -> None:
        if taken is not None:
            self._let_go(taken)
            self._observer.frames_dropped(1)

    def _taken(self, frame: Frame) -> _Taken:
        """Count a frame as held from its arrival; one that there is no room for is answered, not ignored."""
        taken = _Taken(frame, self._deadline_s(frame))
        try:
            self._bodies.add(len(frame.image))
        except OverloadedError as error:
            taken.refusal = error.with_traceback(None)  # which would hold this frame, and it the picture
        return taken

    def _let_go(self, taken: _Taken) -> None:
        if taken.refusal is None:
            self._bodies.free(len(taken.frame.image))

    def _begin(self, taken: _Taken, group: asyncio.TaskGroup) -> None:
        previous, self._last_answered = self._last_answered, taken.answered
        task = self._add(group, self._answer(taken, previous if self._in_order else None))
        task.add_done_callback(partial(self._done, taken))  # also called for a task that was cancelled unstarted

    def _add(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _done(self, taken: _Taken, _: "asyncio.Task[None]") -> None:
        self._let_go(taken)
        taken.answered.set()
        self._places.release()

    async def _answer(self, taken: _Taken, previous: asyncio.Event | None) -> None:
        try:
            with self._health.accept():
                await self._reply(taken, await self._outcome(taken), previous)
        except NotReadyError as error:
            await self._reply(taken, error, previous)

    async def _outcome(self, taken: _Taken) -> ImageAnalysis | Exception:
        if taken.refusal is not None:
            return taken.refusal
        options = taken.frame.options
        if isinstance(options, RequestError):
            return options
        context = RequestContext(request_id=self._call.request_id, deadline_s=taken.deadline_s)
        try:
            return await self._analyzer.analyze(taken.frame.image, options, context)
        except Exception as error:  # noqa: BLE001 - a frame's error is its reply, and the stream lives on
            self._log(error)
            return error

    async def _reply(self, taken: _Taken, outcome: ImageAnalysis | Exception, previous: asyncio.Event | None) -> None:
        if previous is not None:
            await previous.wait()
        if not isinstance(outcome, Exception):
            outcome = self._followed(outcome)
        reason = public_error(outcome).reason if isinstance(outcome, Exception) else None
        async with self._writing:
            await self._send(FrameReply(id=taken.frame.id, outcome=outcome, dropped=taken.dropped))
        self._observer.frame_done(reason)

    def _followed(self, analysis: ImageAnalysis) -> ImageAnalysis:
        """The same with tracks, if the stream has them. Frames pass here one by one in their order."""
        if self._tracker is None:
            return analysis
        model = analysis.model
        assert isinstance(model, ModelInfo)  # as the analyzer's own answers have it
        faces = self._tracker.update(analysis.faces, model=model.archive_sha256, uncertain_below=model.uncertain_below)
        return replace(analysis, faces=faces)

    def _deadline_s(self, frame: Frame) -> float | None:
        """The earlier of the frame's deadline and the call's."""
        if frame.timeout_s is None:
            return self._call.deadline_s
        deadline_s = asyncio.get_running_loop().time() + frame.timeout_s
        return deadline_s if self._call.deadline_s is None else min(deadline_s, self._call.deadline_s)


class _Newest:
    """Room for one frame; a newer one takes its place and remembers how many it stands for."""

    def __init__(self) -> None:
        self._taken: _Taken | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, taken: _Taken) -> _Taken | None:
        """Put a frame in; returns the one that it takes the place of."""
        superseded, self._taken = self._taken, taken
        if superseded is not None:
            taken.dropped = superseded.dropped + 1
        self._changed.set()
        return superseded

    def end(self) -> None:
        """No more will come; the one that waits is still handed out."""
        self._ended = True
        self._changed.set()

    async def take(self) -> _Taken | None:
        """The newest frame as soon as there is one; None after the last."""
        while self._taken is None:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self.clear()

    def clear(self) -> _Taken | None:
        """The frame that waits, if any, waits no more."""
        taken, self._taken = self._taken, None
        return taken
