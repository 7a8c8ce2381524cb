"""Pictures to lanes: chunks that fit what waits, memory for large pictures, and what becomes of a dead lane's pictures.

When a lane dies none of its chunk was answered. Each of those pictures is then asked again with no other beside it, so
that one that kills its lane shows itself: it kills a second one alone, and its row is an error. The others lose time.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from ferserve.faces.errors import FerserveError
from ferserve.serving.bulk.chunks import Answer, Ask, NeedsMemory
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.lane import Lane, LaneDiedError
from ferserve.serving.bulk.rows import Row, rows_of
from ferserve.serving.memory_budget import MemoryBudget
from ferserve.serving.requests import Priority

PICTURES_A_LANE: Final = 12
"""Pictures in the works for each lane: a chunk is being scored, the next one is read, and some wait meanwhile."""
CHUNK_PICTURES: Final = 8
CHUNK_BYTES: Final = 8 * 2**20
"""Encoded pictures of one chunk, but for one that is larger by itself."""
DEATHS: Final = 2
"""So many lanes a picture may end, and it has had its chances."""
STARTS: Final = 3
"""Tries to start a lane before the run ends: a system that is short of memory kills what is new."""
MEMORY_TIMEOUT_S: Final = 600.0
"""Nobody waits for a folder's picture, so this only bounds what never ends."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Asked:
    """A picture that has no answer yet."""

    ask: Ask
    answer: "asyncio.Future[Answer]"
    deaths: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.ask.content.data)


@dataclass(slots=True)
class _Queue:
    """Pictures that no lane has taken: those that were there when a lane died, and all others."""

    suspects: deque[_Asked] = field(default_factory=deque)
    others: deque[_Asked] = field(default_factory=deque)

    def take(self, lanes: int) -> list[_Asked]:
        """The next chunk: less of it the less there is left, so that all lanes end together."""
        if self.suspects:
            return [self.suspects.popleft()]
        size = min(CHUNK_PICTURES, -(-len(self.others) // (2 * lanes)))
        chunk: list[_Asked] = []
        held_bytes = 0
        while len(chunk) < size and (not chunk or held_bytes + self.others[0].size_bytes <= CHUNK_BYTES):
            chunk.append(self.others.popleft())
            held_bytes += chunk[-1].size_bytes
        return chunk


class LanePool:
    """A scorer over lanes; `running` has to be entered. All calls belong to one event loop.

    Args:
        memory: for pictures whose decoding takes more than every lane has for small ones; nobody else's.
    """

    def __init__(self, lanes: Sequence[Lane], memory: MemoryBudget, *, clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._memory = memory
        self._clock = clock
        self._numbers = count()
        self._queue = _Queue()
        self._open: set[_Asked] = set()
        self._news = asyncio.Event()
        self._end: FerserveError | None = None

    @property
    def concurrency(self) -> int:
        """Pictures that it takes at once."""
        return len(self._lanes) * PICTURES_A_LANE

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start every lane, and keep them busy until the block ends.

        Raises:
            FerserveError: one does not work.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            for failed in await asyncio.gather(*map(_begin, self._lanes), return_exceptions=True):
                if failed is not None:
                    raise failed
            tasks += (asyncio.create_task(self._serve(lane)) for lane in self._lanes)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def rows(self, content: Content) -> list[Row]:
        """The rows of a picture, without a path.

        Raises:
            FerserveError: no picture can be scored any more.
        """
        ask = Ask(content=content)
        answer = await self._ask(ask)
        while isinstance(answer, NeedsMemory):
            grant = await self._memory.take(
                answer.needed_bytes,
                flow=str(next(self._numbers)),
                priority=Priority.BULK,
                deadline_s=self._clock() + MEMORY_TIMEOUT_S,
            )
            try:
                answer = await self._ask(replace(ask, granted_bytes=grant.size_bytes))
            finally:
                grant.let_go()
        return answer

    async def _ask(self, ask: Ask) -> Answer:
        if self._end is not None:
            raise self._end
        asked = _Asked(ask=ask, answer=asyncio.get_running_loop().create_future())
        self._open.add(asked)
        self._queue.others.append(asked)
        self._news.set()
        try:
            return await asked.answer
        finally:
            self._open.discard(asked)

    async def _serve(self, lane: Lane) -> None:
        try:
            while True:
                chunk = await self._chunk()
                try:
                    answers = await lane.score([asked.ask for asked in chunk])
                except LaneDiedError as death:
                    self._died(chunk, death)
                    await _begin(lane)
                else:
                    for asked, answer in zip(chunk, answers, strict=True):
                        _resolve(asked, answer)
        except FerserveError as error:
            self._give_up(error)

    async def _chunk(self) -> list[_Asked]:
        while not (chunk := self._queue.take(len(self._lanes))):
            self._news.clear()
            await self._news.wait()
        return [asked for asked in chunk if not asked.answer.done()] or await self._chunk()

    def _died(self, chunk: Sequence[_Asked], death: LaneDiedError) -> None:
        for asked in chunk:
            asked.deaths += 1
            if len(chunk) == 1 and asked.deaths >= DEATHS:
                _resolve(asked, rows_of(None, death.error, content=asked.ask.content.sha256))
            else:
                self._queue.suspects.append(asked)
        self._news.set()

    def _give_up(self, error: FerserveError) -> None:
        self._end = self._end or error
        for asked in self._open:
            if not asked.answer.done():
                asked.answer.set_exception(self._end)

    async def _close(self) -> None:
        self._memory.close()
        await asyncio.gather(*(lane.close() for lane in self._lanes))


async def _begin(lane: Lane) -> None:
    """Start a lane.

    Raises:
        FerserveError: it does not work, or died each time.
    """
    for _ in range(STARTS):
        try:
            await lane.start()
        except LaneDiedError as death:
            error = death.error
        else:
            return
    raise error


def _resolve(asked: _Asked, answer: Answer) -> None:
    if not asked.answer.done():
        asked.answer.set_result(answer)
