"""A process and all that it has started: what the machine loses to them together. Linux only.

Memory of their own that several of them share, as a fork does, counts once, and so do the files that they all map,
libraries before all: those of the process that has the most of them in memory, for the others have hardly any besides.
A container's limit counts the same. Who else maps those files does not matter, as it does for the kernel's own
proportional set size.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READ_EVERY_S: Final = 0.1
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


def family_pids(pid: int) -> list[int]:
    """The process, its children, and theirs; those that end meanwhile may be missing."""
    found = [pid]
    for parent in found:  # grows as it goes
        with suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU time that the family has used so far, with that of its dead whom it has buried."""
    return sum(map(_cpu_s, family_pids(pid)))


def memory_bytes(pid: int) -> int:
    """The memory that the family holds now."""
    parts = [_memory_bytes(each) for each in family_pids(pid)]
    return sum(own for own, _ in parts) + max(files for _, files in parts)


class PeakMemory:
    """The most memory that a family held while this was entered, read every `READ_EVERY_S`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most_bytes = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def most_bytes(self) -> int:
        """The most so far."""
        self._most_bytes = max(self._most_bytes, memory_bytes(self._pid))
        return self._most_bytes

    def _watch(self) -> None:
        while not self._is_over.wait(READ_EVERY_S):
            self._most_bytes = max(self._most_bytes, memory_bytes(self._pid))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _memory_bytes(pid: int) -> tuple[int, int]:
    """Its part of memory that no file backs, and what it has of files."""
    try:
        rollup, status = (Path(f"/proc/{pid}/{name}").read_text() for name in ("smaps_rollup", "status"))
    except OSError:  # it has ended
        return 0, 0
    return _sum_bytes(rollup, "Pss_Anon:", "Pss_Shmem:"), _sum_bytes(status, "RssFile:")


def _sum_bytes(text: str, *names: str) -> int:
    return sum(int(line.split()[1]) * _KIB for line in text.splitlines() if line.startswith(names))
