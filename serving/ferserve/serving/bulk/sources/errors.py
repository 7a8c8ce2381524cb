"""What can go wrong with a source before a picture of it reaches the analyzer."""

from enum import StrEnum


class SourceCode(StrEnum):
    """Stable codes of rows beside those of `Reason`: these never cross the wire."""

    UNREADABLE = "UNREADABLE"
    CHANGED = "CHANGED"


class SourceError(Exception):
    """A file, folder, archive or video cannot be read; becomes a row.

    Attributes:
        code: stable.
        message: what was expected and what came; holds no path.
    """

    def __init__(self, code: SourceCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def unreadable(what: str, error: OSError) -> SourceError:
    """The row's error for what the system refused; `what` is a file, folder, archive or list."""
    return SourceError(SourceCode.UNREADABLE, f"the {what} cannot be read: {error.strerror or type(error).__name__}")
