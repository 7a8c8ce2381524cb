"""Everything that can go wrong with a request, as one tree with one stable reason a leaf.

FerserveError
├── RequestError            what the caller sent cannot be used
│   ├── InvalidRequestError     a field, an option or a shape is wrong
│   ├── InvalidImageError       the bytes are no whole picture
│   ├── UnsupportedMediaError   a picture, but of a format that ferserve does not read
│   ├── ImageTooLargeError      more bytes or pixels than the limits allow
│   └── DegenerateFaceError     a box or landmarks that no crop can be cut from
└── ArchiveError            an archive or a detector file is missing, altered, malformed or not to be run as asked

The serving package adds its own leaves (overload, deadline, workers); the reasons stand here because bulk rows,
handlers and both protocols use the same words.
"""

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """The stable code of an error, the same over gRPC (ErrorInfo.reason), REST and bulk rows."""

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_IMAGE = "INVALID_IMAGE"
    UNSUPPORTED_MEDIA = "UNSUPPORTED_MEDIA"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    PURPOSE_REFUSED = "PURPOSE_REFUSED"
    OVERLOADED = "OVERLOADED"
    RATE_LIMITED = "RATE_LIMITED"
    NOT_READY = "NOT_READY"
    WORKER_FAILED = "WORKER_FAILED"
    DEADLINE = "DEADLINE"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


class FerserveError(Exception):
    """Base of every error whose message is safe to show to a caller.

    Attributes:
        reason: the stable code.
        message: what was expected and what came; never a path of the server, a pixel or a stack.
        retry_after_s: seconds after which the same call may succeed; None where a retry does not help.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class RequestError(FerserveError):
    """What the caller sent cannot be used; sending the same again gives the same answer."""

    reason = Reason.INVALID_REQUEST


class InvalidRequestError(RequestError):
    """A field, an option or a shape is not what the API asks for."""


class InvalidImageError(RequestError):
    """The bytes are not one whole picture: undecodable, truncated or of zero size."""

    reason = Reason.INVALID_IMAGE


class UnsupportedMediaError(RequestError):
    """The bytes are a format that ferserve does not read."""

    reason = Reason.UNSUPPORTED_MEDIA


class ImageTooLargeError(RequestError):
    """The picture has more bytes or more pixels than the limits allow."""

    reason = Reason.IMAGE_TOO_LARGE


class DegenerateFaceError(RequestError):
    """No crop can be cut: the box is empty, outside the picture, or the eyes coincide."""

    reason = Reason.INVALID_REQUEST


class ArchiveError(FerserveError):
    """An archive or a detector file is missing, altered or malformed, or cannot be run as it was asked for.

    Raised while loading, to whoever runs ferserve, so its message may name the file.
    """
