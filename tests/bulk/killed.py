"""`ferserve`, which kills itself: so many seconds after it begins its n-th write to its output.

Usage: python killed.py N SECONDS ARGUMENT...
"""

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path

from ferserve.serving.bulk.disk import RealDisk
from ferserve.serving.cli import main


def main_with_death(writes: int, after_s: float, arguments: list[str]) -> None:
    """Run a verb; SIGKILL asks nobody."""
    real, timer = RealDisk.write, threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    begun = count(1)

    def write(disk: RealDisk, path: Path, data: bytes) -> None:
        if next(begun) == writes:
            timer.start()
        real(disk, path, data)

    RealDisk.write = write
    main(arguments)


if __name__ == "__main__":
    main_with_death(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
