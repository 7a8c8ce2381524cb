"""Cores that do not halt while something is measured (docs/adr/0099-cores-kept-awake.md).

Whoever computes on a virtual machine's core after a pause waits for its host to run that core again. A message between
two processes takes 0.07 ms where both cores are awake and up to 6 ms where they are not, and a photo is six messages.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ferserve.serving.benchmarks import spinning
from ferserve.serving.cores import available_cores
from ferserve.serving.errors import ConfigError
from ferserve.serving.process_family import cpu_s


class AwakeCores:
    """What keeps them so.

    Args:
        pids: a process a core.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def cpu_s(self) -> float:
        """Seconds of CPU time that it took so far: nobody else wanted them."""
        return sum(map(cpu_s, self._pids))


@contextmanager
def cores_awake() -> Iterator[AwakeCores]:
    """Keep every core that this process may run on from halting until the block ends.

    Raises:
        ConfigError: the system has no priority that is low enough, or a quota of CPU time, which this would use up.
    """
    if not hasattr(os, "SCHED_IDLE"):
        raise ConfigError(f"--keep-awake: expected Linux, got {sys.platform}")
    cores = sorted(os.sched_getaffinity(0))
    if available_cores() < len(cores):
        raise ConfigError(f"--keep-awake: expected {len(cores)} cores without a quota, got one of {available_cores()}")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes += [
            subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", spinning.__file__, str(core), str(os.getpid())]
            )
            for core in cores
        ]
        yield AwakeCores([process.pid for process in processes])
    finally:
        for process in processes:
            process.kill()
            process.wait()
