"""Which processes take the CPU, by Linux's count."""

import os
from collections import Counter
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""Of /proc/stat's first line: user, nice, system, irq, softirq, steal; not idle and not waiting for disks."""


def all_processes() -> list[int]:
    """Those that run now."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def descendants(root: int) -> set[int]:
    """A process and all that it started, and those in turn."""
    parents = {pid: int(fields[1]) for pid in all_processes() if (fields := _stat(pid))}
    found = {root}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def command_of(pid: int) -> list[str]:
    """Its words; Chromium's children write theirs anew with spaces in between."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
    except OSError:
        return []


def cpu_s(pids: set[int]) -> Counter[int]:
    """Seconds of CPU time of each process so far; those that ended are left out."""
    return Counter({pid: (int(fields[11]) + int(fields[12])) / TICKS_PER_S for pid in pids if (fields := _stat(pid))})


def machine_busy_s() -> float:
    """Seconds that the cores were not idle, together, since the machine started; stolen time counts."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[place]) for place in BUSY_FIELDS) / TICKS_PER_S


def _stat(pid: int) -> list[str]:
    """The fields after the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
