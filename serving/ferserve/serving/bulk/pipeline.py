"""Items to rows: so many pictures in the works at once, in the items' order, each content scored once.

A picture that takes long does not keep the cores waiting: those behind it go on, and their rows wait for it, up to a
window. What is held of pictures is bounded in number and in bytes; rows are small.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, ParamSpec, Protocol, TypeVar

from ferserve.serving.bulk.feed import Content, Feed, Task, read_content
from ferserve.serving.bulk.rows import Row, is_final, rows_elsewhere, rows_of
from ferserve.serving.bulk.scoring import Scoring
from ferserve.serving.bulk.sources import SourceError

WINDOW: Final = 32
"""Pictures whose rows may wait for the one before them, for each one in the works."""
MAX_HELD_BYTES: Final = 128 * 2**20
"""Encoded pictures in memory, but for one that is larger by itself."""
READERS: Final = 4


P = ParamSpec("P")
ResultT = TypeVar("ResultT")


class Contents(Protocol):
    """Rows of contents that were scored before."""

    def rows_of_content(self, sha256: bytes) -> list[Row] | None:
        """The rows of a content; None if there are none."""
        ...


class NothingScored:
    """For runs of one piece: no content was scored before."""

    def rows_of_content(self, sha256: bytes) -> list[Row] | None:  # noqa: ARG002 - as every `Contents`
        """None."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The rows of one item.

    Attributes:
        content: SHA-256, where it was read.
        is_repeated: another item with the same content was scored in its place.
    """

    item_id: bytes
    rows: list[Row]
    content: bytes | None
    is_repeated: bool


Ahead = asyncio.Queue["asyncio.Future[Scored] | None"]


class Pipeline:
    """Runs once.

    Args:
        contents: what earlier runs scored.
        with_paths: whether rows name their picture.
    """

    def __init__(self, scoring: Scoring, contents: Contents, *, with_paths: bool = True) -> None:
        self._scoring = scoring
        self._contents = contents
        self._with_paths = with_paths
        self._places = asyncio.Semaphore(scoring.concurrency)
        self._room = _Room(MAX_HELD_BYTES)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        # Contents whose rows `contents` does not have yet.
        self._scored: dict[bytes, asyncio.Future[list[Row]]] = {}
        self._forgotten = 0

    async def rows(self, feed: Feed) -> AsyncGenerator[Scored, None]:
        """The rows of every task of `feed`, in its order.

        Raises:
            FerserveError: scoring came to an end.
        """
        ahead: Ahead = asyncio.Queue(WINDOW * self._scoring.concurrency)
        begun: set[asyncio.Future[Scored]] = set()
        producer = asyncio.create_task(self._begin_all(feed, ahead, begun))
        try:
            while (work := await ahead.get()) is not None:
                yield await work
                begun.discard(work)
        finally:
            producer.cancel()
            await asyncio.gather(producer, return_exceptions=True)
            for work in begun:
                work.cancel()
            await asyncio.gather(*begun, return_exceptions=True)
            self._threads.shutdown(wait=True, cancel_futures=True)

    def forget(self, contents: Iterable[bytes | None]) -> None:
        """These contents are known to `contents` from now on."""
        self._forgotten += 1
        for sha256 in contents:
            if sha256 is not None:
                self._scored.pop(sha256, None)

    async def _begin_all(self, feed: Feed, ahead: Ahead, begun: "set[asyncio.Future[Scored]]") -> None:
        try:
            async with aclosing(feed.tasks()) as tasks:
                async for task in tasks:
                    await self._places.acquire()
                    await self._room.take(task.size_bytes)
                    work = asyncio.create_task(self._work(task))
                    begun.add(work)
                    await ahead.put(work)
        except Exception as error:  # noqa: BLE001 - whoever takes the rows is to have it, after those before it
            failed: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            begun.add(failed)
            await ahead.put(failed)
        else:
            await ahead.put(None)

    async def _work(self, task: Task) -> Scored:
        try:
            content, found = await self._read_and_found(task)
            if isinstance(content, SourceError):
                rows = rows_of(self._path(task), content, time_s=task.item.time_s)
                return Scored(item_id=task.item_id, rows=rows, content=None, is_repeated=False)
            rows, is_repeated = await self._rows_of_content(content, found)
            rows = rows_elsewhere(rows, self._path(task), task.item.time_s)
            return Scored(item_id=task.item_id, rows=rows, content=content.sha256, is_repeated=is_repeated)
        finally:
            self._places.release()
            self._room.give_back(task.size_bytes)

    async def _read_and_found(self, task: Task) -> tuple[Content | SourceError, list[Row] | None]:
        """An item's content and the rows that this content has; None is as good as if it were looked for now."""
        content, seen = task.content, -1
        while seen != self._forgotten:  # on the way here rows of it may have moved from `_scored` to `contents`
            seen = self._forgotten
            content, found = await self._on_thread(self._look, task, content)
            if found is not None:
                break
        assert content is not None
        return content, found

    def _look(
        self, task: Task, content: Content | SourceError | None
    ) -> tuple[Content | SourceError, list[Row] | None]:
        """Both in one go on a thread: every hop between threads costs."""
        content = content or read_content(task.item, self._scoring.max_image_bytes)
        return content, None if isinstance(content, SourceError) else self._contents.rows_of_content(content.sha256)

    async def _rows_of_content(self, content: Content, found: list[Row] | None) -> tuple[list[Row], bool]:
        """Rows without a path, and whether they were there already, as `found` in `contents` or by another item."""
        before = self._scored.get(content.sha256)
        if before is not None:
            rows = await asyncio.shield(before)
            if is_final(rows[0]):
                return rows, True
        # Noted before anything is awaited: of two with one content the second has to find the first.
        future = self._scored[content.sha256] = asyncio.get_running_loop().create_future()
        try:
            rows = found or await self._scoring.scorer.rows(content)
        except BaseException:
            self._scored.pop(content.sha256, None)
            future.cancel()  # those who wait for it end with the run
            raise
        future.set_result(rows)
        return rows, found is not None

    def _path(self, task: Task) -> str | None:
        return task.item.path if self._with_paths else None

    async def _on_thread(self, work: Callable[P, ResultT], *arguments: P.args, **named: P.kwargs) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments, **named))


class _Room:
    """Bytes that may be held; first come, first served, for one taker at a time."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._freed = asyncio.Event()

    async def take(self, size_bytes: int) -> None:
        """Wait for room; what is larger than all of it waits until there is nothing else."""
        while self._used_bytes and self._used_bytes + size_bytes > self._limit_bytes:
            self._freed.clear()
            await self._freed.wait()
        self._used_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Make room."""
        self._used_bytes -= size_bytes
        self._freed.set()
