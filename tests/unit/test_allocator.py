import asyncio
import platform
import subprocess
import sys
import threading

import pytest

from ferserve.serving.allocator import PagesLater, return_large_buffers, return_unused_pages

IS_GLIBC = platform.libc_ver()[0] == "glibc"

# Frees a large buffer, which raises glibc's own threshold, then ten that lie under a small one that stays.
SCRIPT = """
import sys
from pathlib import Path
from ferserve.serving.allocator import return_large_buffers

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "set":
    return_large_buffers()
large = bytearray(b"x") * 2**24
del large
before = resident_mib()
buffers = [bytearray(b"x") * (6 * 2**20) for _ in range(10)]
stays = bytearray(b"x") * 100_000
del buffers
print(resident_mib() - before)
"""


# Small buffers, of which every hundredth stays: free pages in the middle of the heap.
HOLES = """
from pathlib import Path
from ferserve.serving.allocator import return_unused_pages

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

before = resident_mib()
buffers = [bytearray(b"x") * 10_000 for _ in range(5_000)]
buffers = buffers[::100]
kept = resident_mib() - before
return_unused_pages()
print(kept, resident_mib() - before)
"""


def kept_mib(mode: str) -> float:
    return float(subprocess.run([sys.executable, "-c", SCRIPT, mode], check=True, capture_output=True).stdout)


@pytest.mark.skipif(not IS_GLIBC, reason="what it is about is glibc's")
def test_buffers_of_pictures_are_not_kept():
    assert kept_mib("leave") > 50  # what would happen
    assert kept_mib("set") < 8


def test_it_says_whether_it_could():
    assert return_large_buffers() is IS_GLIBC


@pytest.mark.skipif(not IS_GLIBC, reason="what it is about is glibc's")
def test_free_pages_between_small_buffers_can_be_given_back():
    printed = subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, text=True).stdout
    before, after = map(float, printed.split())
    assert before > 30  # what would stay
    assert after < 15
    return_unused_pages()


async def test_pages_are_given_back_once_at_a_time_and_once_more_for_all_that_came_meanwhile():
    began, times = asyncio.Queue[threading.Event](), 0
    loop = asyncio.get_running_loop()

    def give_back() -> None:
        nonlocal times
        times += 1
        go_on = threading.Event()
        loop.call_soon_threadsafe(began.put_nowait, go_on)
        go_on.wait()

    later = PagesLater(give_back)
    for _ in range(3):
        later()
    first = await began.get()
    later()
    assert times == 1
    first.set()
    second = await began.get()
    second.set()
    await loop.shutdown_default_executor()
    assert times == 2
    later()  # nobody is there to do it, and nobody is told
    assert times == 2
