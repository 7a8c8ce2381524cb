"""A program that keeps one core from halting: `spinning.py CORE PARENT`.

It computes nothing, at a priority below every other one's, until its parent is gone.
"""

import os
import sys
from typing import Final

TURNS_A_LOOK: Final = 1_000_000


def spin(core: int, parent: int) -> None:
    """Until this process has another parent; it may have one before it looks for the first time."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while os.getppid() == parent:
        for _ in range(TURNS_A_LOOK):
            pass


if __name__ == "__main__":
    spin(int(sys.argv[1]), int(sys.argv[2]))
