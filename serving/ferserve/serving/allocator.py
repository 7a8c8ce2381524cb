"""The memory of large pictures goes back to the system when they are done with.

glibc raises the size from which it asks the system for memory with each large buffer that is freed, up to 32 MiB, and
keeps what is freed below that size for later. A gateway's buffers are pictures of every size on many threads, so it
would keep a multiple of what it ever needs at one time. Sizes that are set stay as they are.
"""

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Final

OWN_MAPPING_BYTES: Final = 2**20
"""Buffers from this size on come from the system and go back to it; each of its pages costs a page fault."""
KEPT_BYTES: Final = 2 * 2**20
"""What a thread's heap may keep unused at its end. glibc's own 128 KiB would give back and ask again all the time."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def return_unused_pages() -> None:
    """Give back the free pages in the middle of every heap, which no threshold reaches; takes milliseconds.

    What small buffers leave between them adds up to tens of megabytes while large pictures come and go.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def return_large_buffers() -> bool:
    """Set both sizes for this process; whether its C library knows them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    sizes = ((_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    return all(mallopt(name, size_bytes) == 1 for name, size_bytes in sizes)


class PagesLater:
    """Gives unused pages back on a thread, for it takes milliseconds; once at a time, however often it is called.

    What is freed while that goes on is given back by another time after it. Belongs to one event loop.

    Args:
        give_back: called on a thread.
    """

    def __init__(self, give_back: Callable[[], None] = return_unused_pages) -> None:
        self._give_back = give_back
        self._is_under_way = False
        self._is_wanted_again = False

    def __call__(self) -> None:
        """Begin, or remember to."""
        self._is_wanted_again = self._is_under_way
        if self._is_under_way:
            return
        with suppress(RuntimeError):  # the loop ends, and soon the process
            given_back = asyncio.get_running_loop().run_in_executor(None, self._give_back)
            self._is_under_way = True
            given_back.add_done_callback(self._done)

    def _done(self, _: "asyncio.Future[None]") -> None:
        self._is_under_way = False
        if self._is_wanted_again:
            self()
