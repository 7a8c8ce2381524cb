"""Files that may be replaced while the gateway runs: whether they have been, found out at use and not by a watcher."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

CHECK_EVERY_S: Final = 1.0
_Version = tuple[int, int, int]


class WatchedFiles:
    """Some files, looked at once in `CHECK_EVERY_S` at most.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float]) -> None:
        self._paths = paths
        self._clock = clock
        self._versions = self._versions_now()
        self._checked_s = clock()

    def have_changed(self) -> bool:
        """Whether one of them is another one than at the last time that this said so; to be asked before they are read.

        A file that is being written counts as changed, and once more when it is whole.
        """
        now_s = self._clock()
        if now_s - self._checked_s < CHECK_EVERY_S:
            return False
        self._checked_s = now_s
        versions = self._versions_now()
        changed = versions != self._versions
        self._versions = versions
        return changed

    def _versions_now(self) -> list[_Version]:
        return [_version_of(path) for path in self._paths]


def _version_of(path: Path) -> _Version:
    """What changes with a file; follows the link that Kubernetes swaps."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
