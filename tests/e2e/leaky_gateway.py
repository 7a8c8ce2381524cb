"""`ferserve` with a leak planted: of every photo some bytes stay behind. For the test that the memory check sees it."""

from typing import Any, Final

from ferserve.serving import cli
from ferserve.serving.preparer import PreparedPhoto, Preparer, Steps
from ferserve.serving.preparers import process

LEAK_BYTES: Final = 2048
_left_behind: list[bytes] = []


class LeakyPreparer(Preparer):
    """Forgets nothing."""

    def photo(self, *arguments: Any, **named: Any) -> Steps[PreparedPhoto]:
        """Prepare a photo, and keep some bytes for it."""
        _left_behind.append(b"\x01" * LEAK_BYTES)
        return super().photo(*arguments, **named)


if __name__ == "__main__":
    process.Preparer = LeakyPreparer  # the processes that prepare photos are forked from this one
    cli.main()
