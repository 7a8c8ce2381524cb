"""What can go wrong inside the gateway: the serving leaves of the tree in `ferserve.faces.errors`.

FerserveError
├── UnauthenticatedError    no key, or none that is known
├── ForbiddenError          the key is not for this
├── PurposeRefusedError     the key's purpose is one that the law forbids
├── RateLimitedError        the key's faces of this minute are used up; says when to come back
├── ModelNotFoundError      no loaded archive has that name
├── OverloadedError         the queue is full; says when to come back
├── NotReadyError           starting, draining, or nobody there
├── WorkerFailedError       the computation failed on every worker that was tried
├── DeadlineError           the caller's time ran out
├── CallCancelledError      the caller left
├── ConfigError             a setting is unknown or wrong ┐ raised to whoever runs ferserve,
└── StartError              the gateway cannot start      ┘ never to a caller

`status` maps each reason to a gRPC and an HTTP status.
"""

from collections.abc import Iterator

from ferserve.faces.errors import FerserveError, Reason


class UnauthenticatedError(FerserveError):
    """No key came, or none that is known and still good."""

    reason = Reason.UNAUTHENTICATED


class ForbiddenError(FerserveError):
    """The key is good, but not for what was asked."""

    reason = Reason.FORBIDDEN


class PurposeRefusedError(FerserveError):
    """The key's declared purpose is one for which inferring emotions is forbidden."""

    reason = Reason.PURPOSE_REFUSED


class RateLimitedError(FerserveError):
    """The key's faces are used up for now; always says after how many seconds one is free."""

    reason = Reason.RATE_LIMITED

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class ModelNotFoundError(FerserveError):
    """No loaded archive has the name asked for."""

    reason = Reason.MODEL_NOT_FOUND


class OverloadedError(FerserveError):
    """The queue has no room for the request's faces; always says after how many seconds it may have."""

    reason = Reason.OVERLOADED

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class NotReadyError(FerserveError):
    """The gateway is starting, draining or not there."""

    reason = Reason.NOT_READY


class WorkerFailedError(FerserveError):
    """The computation failed on every worker that was tried."""

    reason = Reason.WORKER_FAILED


class DeadlineError(FerserveError):
    """The caller's time ran out before the answer was there."""

    reason = Reason.DEADLINE


class CallCancelledError(FerserveError):
    """The caller left; named so that it never passes for `asyncio.CancelledError`."""

    reason = Reason.CANCELLED


class ConfigError(FerserveError):
    """A setting is unknown, malformed or out of range; the message names it, and may name a file."""


class StartError(FerserveError):
    """The gateway cannot start as it is told to, because a port is taken or the like; the message may name a file."""


def without_frames(error: BaseException) -> None:
    """Let an error that was answered, and those behind it, go of the frames that they passed through.

    These hold what they worked on, a caller's picture before all. And one of them may hold the error, such as by the
    future that raised it: both would stay until the next collection of garbage, which nothing hurries while a gateway
    is quiet.
    """
    for link in with_those_behind(error):
        link.__traceback__ = None


def with_those_behind(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it or are part of it, each once: causes may go round in a circle."""
    pending, seen = [error], set[int]()
    while pending:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [behind for behind in (link.__cause__, link.__context__) if behind is not None]
        if isinstance(link, BaseExceptionGroup):
            pending += link.exceptions
