"""The program that `leaky_gateway` forks its preparers from."""

import sys
from typing import Any, Final

from ferserve.serving.preparer import PreparedPhoto, Preparer, Steps
from ferserve.serving.preparers import process, zygote

LEAK_BYTES: Final = 2048
_left_behind: list[bytes] = []


class LeakyPreparer(Preparer):
    """Forgets nothing."""

    def photo(self, *arguments: Any, **named: Any) -> Steps[PreparedPhoto]:
        """Prepare a photo, and keep some bytes for it."""
        _left_behind.append(b"\x01" * LEAK_BYTES)
        return super().photo(*arguments, **named)


if __name__ == "__main__":
    process.Preparer = LeakyPreparer
    zygote.main(*map(int, sys.argv[1:]))
