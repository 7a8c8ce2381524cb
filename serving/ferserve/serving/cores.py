"""How many CPU cores this process may really use, and which of its threads go first."""

import math
import os
import sys
from pathlib import Path
from typing import Final

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")
"""Where a container's CPU quota stands (cgroup v2): quota or `max`, and period, both in microseconds."""


STAND_BACK: Final = 10
"""Steps of niceness; ten are a tenth of another thread's share where both want the same core. With less, selfies wait
for crowds (docs/adr/0071-threads-and-the-lock.md)."""
SWITCH_INTERVAL_S: Final = 0.001
"""How long a thread keeps the interpreter's lock when another wants it; Python's own are 5 ms."""


def stand_back() -> None:
    """Let the process's other threads go before the calling one wherever both want a core; for threads that compute.

    Taking requests in, and refusing them, costs little but must not wait behind detections. Work that nobody competes
    with is as fast as ever. Niceness is the thread's own on Linux alone; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        os.nice(STAND_BACK)


def switch_often() -> None:
    """Let threads of this process wait less for the interpreter's lock.

    A photo's thread takes it some twenty times, after every call into a library that computes without it. While the
    event loop is busy, each time may last a whole interval.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def available_cores(cpu_max: Path = CPU_MAX) -> int:
    """Cores that the scheduler lets this process run on, at most its CPU quota rounded up; at least 1.

    More threads than that would be throttled in the middle of their work.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        return min(allowed, max(math.ceil(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no cgroup v2, or `max`: no quota
        return allowed
