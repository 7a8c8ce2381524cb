"""Disks that fail."""

import errno
from collections.abc import Callable
from pathlib import Path

from ferserve.serving.bulk.disk import RealDisk


class PowerCutError(BaseException):
    """The machine is off; nothing of the program runs after it."""


class CrashingDisk:
    """A disk in memory whose power goes in the middle of its n-th change.

    What it was told to do before is there for good, as `Disk` promises. The change under way is there or not, and a
    file that was being written may end anywhere: `choose(n)` decides, a number from 0 to n - 1.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.files: dict[Path, bytes] = {}
        self.changes_left: int | None = None
        self._choose = choose

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self.files if path.parent == folder)

    def read(self, path: Path) -> bytes:
        return self.files[path]

    def write(self, path: Path, data: bytes) -> None:
        if self._is_cut():
            self.files[path] = data[: self._choose(len(data) + 1)]
            raise PowerCutError
        self.files[path] = data

    def rename(self, path: Path, to: Path) -> None:
        is_cut = self._is_cut()
        if not is_cut or self._choose(2):
            self.files[to] = self.files.pop(path)
        if is_cut:
            raise PowerCutError

    def remove(self, path: Path) -> None:
        is_cut = self._is_cut()
        if not is_cut or self._choose(2):
            self.files.pop(path, None)
        if is_cut:
            raise PowerCutError

    def _is_cut(self) -> bool:
        if self.changes_left is None:
            return False
        self.changes_left -= 1
        return self.changes_left < 0


class FullDisk(RealDisk):
    """A real one that has room for so many more files."""

    def __init__(self, files_left: int) -> None:
        self.files_left = files_left

    def write(self, path: Path, data: bytes) -> None:
        if self.files_left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.files_left -= 1
        super().write(path, data)
