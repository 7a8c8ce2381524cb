"""How many CPU cores this process may really use."""

import math
import os
from pathlib import Path
from typing import Final

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")
"""Where a container's CPU quota stands (cgroup v2): quota or `max`, and period, both in microseconds."""


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
