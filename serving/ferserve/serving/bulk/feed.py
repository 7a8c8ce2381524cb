"""Finds items on a thread of its own, ahead of whoever scores them, and passes over those that have rows already."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from ferserve.serving.bulk.sources import Item, SourceError

PIECE_ITEMS: Final = 32
PIECE_BYTES: Final = 16 * 2**20
"""What may be read of archives and videos before the scorers have asked for it: this, and one picture more."""
PIECE_SEEN: Final = 4096
"""Items passed over after which the thread looks whether it is still wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An encoded picture and its SHA-256, 32 bytes."""

    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One item that has no rows yet.

    Attributes:
        content: what was read of a sequential item, or why it could not be; None where it is still to be read.
    """

    item: Item
    item_id: bytes
    content: Content | SourceError | None

    @property
    def size_bytes(self) -> int:
        """What it takes to hold."""
        return len(self.content.data) if isinstance(self.content, Content) else self.item.size_bytes


def read_content(item: Item, max_image_bytes: int) -> Content | SourceError:
    """Read an item; of a picture that is too large, one byte too many."""
    try:
        data = item.read(max_image_bytes + 1)
    except SourceError as error:
        return error
    return Content(data=data, sha256=hashlib.sha256(data).digest())


class Feed:
    """Goes through items once.

    Args:
        items: found as they are asked for; only one thread ever does.
        claim: the id of an item by its identity, None if it has rows already.
    """

    def __init__(self, items: Iterator[Item], claim: Callable[[bytes], bytes | None], *, max_image_bytes: int) -> None:
        self._items = items
        self._claim = claim
        self._max_image_bytes = max_image_bytes
        self._is_wanted = True
        self.passed_over = 0

    async def tasks(self) -> AsyncGenerator[Task, None]:
        """The items that have no rows; the next piece of them is found while this one is being worked on."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="sources")
        try:
            coming = loop.run_in_executor(thread, self._piece)
            while (piece := await coming) is not None:
                coming = loop.run_in_executor(thread, self._piece)
                for task in piece:
                    yield task
        finally:
            self._is_wanted = False
            thread.shutdown(wait=True, cancel_futures=True)

    def _piece(self) -> list[Task] | None:
        """Some tasks, or none for now; None at the end."""
        piece: list[Task] = []
        held_bytes = 0
        for seen, item in enumerate(self._items, 1):
            item_id = self._claim(item.identity)
            if item_id is None:
                self.passed_over += 1
            else:
                content = read_content(item, self._max_image_bytes) if item.is_sequential else None
                task = Task(item=item, item_id=item_id, content=content)
                piece.append(task)
                held_bytes += task.size_bytes if item.is_sequential else 0
            if len(piece) == PIECE_ITEMS or held_bytes >= PIECE_BYTES or seen == PIECE_SEEN or not self._is_wanted:
                return piece
        return piece or None
