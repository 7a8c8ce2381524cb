"""The frames of one stream over all the calls that carry it, so that each gets one reply although calls break.

A gateway keeps nothing of a stream that was neither live nor followed faces: a frame that is sent again costs its
computation again and no more. So a frame is held here until its reply, and goes into the next call if there was none.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count

from ferserve.faces.errors import FerserveError
from ferserve.serving.client.calls import StreamReply
from ferserve.serving.client.retry import Attempts, ClientConfig
from ferserve.serving.errors import NotReadyError
from ferserve.v1 import expression_service_pb2 as pb


@dataclass(slots=True, eq=False)
class _Held:
    """A frame without its reply.

    Attributes:
        number: its id on the wire; callers may use an id twice.
        attempts: at it, counted against its deadline; begun when it is first sent.
        not_before_s: when the gateway will have it again.
    """

    message: pb.StreamAnalyzeRequest
    id: int
    number: int
    attempts: Attempts
    not_before_s: float = 0.0


class ResentFrames:
    """Hands out messages call by call, and takes the replies.

    Args:
        frames: ids and encoded pictures; read by one task, for all calls, as they are asked for.
        to_message: the message of a frame, whole but for what is the call's own.
        config: times that a frame is sent at most.
        frame_timeout_s: of each frame from when it was first sent; None leaves it to the server.
        sleep: waits the given seconds.
    """

    def __init__(
        self,
        frames: AsyncIterable[tuple[int, bytes]],
        to_message: Callable[[tuple[int, bytes]], pb.StreamAnalyzeRequest],
        config: ClientConfig,
        *,
        frame_timeout_s: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._frames = aiter(frames)
        self._to_message = to_message
        self._config = replace(config, timeout_s=frame_timeout_s)
        self._clock = clock
        self._sleep = sleep
        self._numbers = count()
        self._again: deque[_Held] = deque()
        self._sent: dict[int, _Held] = {}
        self._next: asyncio.Task[tuple[int, bytes] | None] | None = None
        self._changed = asyncio.Event()
        self._leaving = False
        self._has_more = True
        self.broken: Exception | None = None
        """What the caller's frames raised; they end there."""

    @property
    def done(self) -> bool:
        """Whether all frames are replied to."""
        return not (self._has_more or self._again or self._sent)

    @property
    def may_go_on(self) -> bool:
        """Whether a call that ended well did all it had to, so that another one may follow at once."""
        return not self._sent and (self._leaving or bool(self._again) or not self._has_more)

    async def messages(self) -> AsyncIterator[pb.StreamAnalyzeRequest]:
        """What one call is to send: what has no reply first, then new frames, until it is to be left."""
        self._again.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        self._leaving = False
        while (held := await self._following()) is not None:
            self._sent[held.number] = held  # before the wait, which may be cut short
            wait_s = held.not_before_s - self._clock()
            if wait_s > 0:
                await self._sleep(wait_s)
            remaining_s = held.attempts.remaining_s()
            if remaining_s is not None:
                held.message.timeout_ms = max(1, round(remaining_s * 1000))
            yield held.message

    def replied(self, reply: StreamReply) -> StreamReply | None:
        """The caller's reply; None where the frame is sent again, or has its reply already."""
        held = self._sent.pop(reply.id, None)
        if held is None:
            return None
        error = reply.outcome
        if isinstance(error, FerserveError) and error.retry_after_s is not None:
            wait_s = held.attempts.wait_s(error)
            if wait_s is not None:
                held.not_before_s = self._clock() + wait_s
                self._again.append(held)
                self._leaving = self._leaving or isinstance(error, NotReadyError)  # another gateway may take it
                self._changed.set()
                return None
        return replace(reply, id=held.id)

    def lost(self, error: FerserveError) -> list[StreamReply]:
        """A call ended with `error`; the frames on it that have no more attempts, or no more time, and so get that."""
        given_up = [held for held in self._sent.values() if held.attempts.wait_s(error) is None]
        for held in given_up:
            del self._sent[held.number]
        return [StreamReply(id=held.id, outcome=error) for held in given_up]

    async def aclose(self) -> None:
        """Let go of the caller's frames."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)

    async def _following(self) -> _Held | None:
        while not self._leaving:
            if self._again:
                return self._again.popleft()
            if not self._has_more:
                return None
            self._next = self._next or asyncio.create_task(self._read())
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait((self._next, changed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if self._next.done():
                self._take(self._next)
                self._next = None
        return None

    async def _read(self) -> tuple[int, bytes] | None:
        return await anext(self._frames, None)

    def _take(self, read: "asyncio.Task[tuple[int, bytes] | None]") -> None:
        try:
            frame = read.result()
            if frame is None:
                self._has_more = False
                return
            message = self._to_message(frame)
        except Exception as error:  # noqa: BLE001 - the caller is to have it, after the replies to the frames before
            self._has_more, self.broken = False, error
            return
        number = next(self._numbers)
        message.id = number
        attempts = Attempts(self._config, None, self._clock)
        self._again.append(_Held(message, id=frame[0], number=number, attempts=attempts))
