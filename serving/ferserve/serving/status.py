"""The one error table: what each reason is over gRPC and over HTTP, and what of an error a caller gets to see.

`public_error` decides what may leave the process; both protocols put every error through it. `rich_status` writes the
`google.rpc.Status` that gRPC answers carry, `error_of` reads it back in the client.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeVar

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ferserve.faces.errors import (
    FerserveError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidRequestError,
    Reason,
    UnsupportedMediaError,
)
from ferserve.serving.errors import (
    CallCancelledError,
    DeadlineError,
    ForbiddenError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    PurposeRefusedError,
    RateLimitedError,
    UnauthenticatedError,
    WorkerFailedError,
)

ERROR_DOMAIN: Final = "ferserve"
INTERNAL_MESSAGE: Final = "internal error"
MAX_MESSAGE_CHARS: Final = 400
"""A message may quote what the caller sent, and travels twice in gRPC's trailers, for which peers set aside 8 KiB."""
RICH_STATUS_KEY: Final = "grpc-status-details-bin"
_MS_PER_S: Final = 1000
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class WireStatus:
    """What one reason is over each protocol."""

    grpc_code: grpc.StatusCode
    http_status: int


STATUS: Final[Mapping[Reason, WireStatus]] = MappingProxyType(
    {
        Reason.INVALID_REQUEST: WireStatus(grpc.StatusCode.INVALID_ARGUMENT, 400),
        Reason.INVALID_IMAGE: WireStatus(grpc.StatusCode.INVALID_ARGUMENT, 400),
        Reason.UNSUPPORTED_MEDIA: WireStatus(grpc.StatusCode.INVALID_ARGUMENT, 415),
        Reason.IMAGE_TOO_LARGE: WireStatus(grpc.StatusCode.INVALID_ARGUMENT, 413),
        Reason.MODEL_NOT_FOUND: WireStatus(grpc.StatusCode.NOT_FOUND, 404),
        Reason.UNAUTHENTICATED: WireStatus(grpc.StatusCode.UNAUTHENTICATED, 401),
        Reason.FORBIDDEN: WireStatus(grpc.StatusCode.PERMISSION_DENIED, 403),
        Reason.PURPOSE_REFUSED: WireStatus(grpc.StatusCode.PERMISSION_DENIED, 403),
        Reason.OVERLOADED: WireStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        Reason.RATE_LIMITED: WireStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        Reason.NOT_READY: WireStatus(grpc.StatusCode.UNAVAILABLE, 503),
        Reason.WORKER_FAILED: WireStatus(grpc.StatusCode.UNAVAILABLE, 503),
        Reason.DEADLINE: WireStatus(grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        Reason.CANCELLED: WireStatus(grpc.StatusCode.CANCELLED, 499),
        Reason.INTERNAL: WireStatus(grpc.StatusCode.INTERNAL, 500),
    }
)

_LEAVES: Final[Mapping[str, type[FerserveError]]] = MappingProxyType(
    {
        leaf.reason.value: leaf
        for leaf in (
            InvalidRequestError,
            InvalidImageError,
            UnsupportedMediaError,
            ImageTooLargeError,
            UnauthenticatedError,
            ForbiddenError,
            PurposeRefusedError,
            RateLimitedError,
            ModelNotFoundError,
            OverloadedError,
            NotReadyError,
            WorkerFailedError,
            DeadlineError,
            CallCancelledError,
        )
    }
)
_Detail = TypeVar("_Detail", ErrorInfo, RetryInfo)


def public_error(error: Exception) -> FerserveError:
    """What a caller may see of an error: itself, or `internal error` where its message was not written for callers."""
    if isinstance(error, FerserveError) and error.reason is not Reason.INTERNAL:
        return error
    return FerserveError(INTERNAL_MESSAGE)


def rich_status(error: Exception) -> Status:
    """The `google.rpc.Status` of an error: ErrorInfo with the reason, and RetryInfo where a retry may help."""
    shown = public_error(error)
    status = _said(shown.reason, shown.message)
    if shown.retry_after_s is not None:
        status.MergeFrom(_retrying(round(shown.retry_after_s * _NS_PER_S)))
    return status


@dataclass(frozen=True, slots=True)
class GrpcStatus:
    """A `google.rpc.Status` as gRPC sends it.

    Attributes:
        rich: what goes into the trailing metadata under `RICH_STATUS_KEY`.
    """

    code: grpc.StatusCode
    message: str
    rich: bytes


def grpc_status(error: Exception) -> GrpcStatus:
    """What a call ends with for an error.

    Of a refusal with a time to come back, in whole milliseconds, both parts are written once and kept: an overload
    says the same to thousands.
    """
    shown = public_error(error)
    code = STATUS[shown.reason].grpc_code
    if shown.retry_after_s is None:
        return GrpcStatus(code, shown.message[:MAX_MESSAGE_CHARS], rich_status(shown).SerializeToString())
    # Encoded messages that follow each other are one message.
    rich = _written(shown.reason, shown.message) + _written_retry(math.ceil(shown.retry_after_s * _MS_PER_S))
    return GrpcStatus(code, shown.message[:MAX_MESSAGE_CHARS], rich)


def _said(reason: Reason, message: str) -> Status:
    status = Status(code=STATUS[reason].grpc_code.value[0], message=message[:MAX_MESSAGE_CHARS])
    status.details.add().Pack(ErrorInfo(reason=reason, domain=ERROR_DOMAIN))
    return status


def _retrying(delay_ns: int) -> Status:
    retry, status = RetryInfo(), Status()
    retry.retry_delay.FromNanoseconds(delay_ns)
    status.details.add().Pack(retry)
    return status


@lru_cache(maxsize=64)
def _written(reason: Reason, message: str) -> bytes:
    written: bytes = _said(reason, message).SerializeToString()
    return written


@lru_cache(maxsize=1024)
def _written_retry(delay_ms: int) -> bytes:
    written: bytes = _retrying(delay_ms * _NS_PER_MS).SerializeToString()
    return written


def error_of(status: Status) -> FerserveError | None:
    """Read an error back from what `rich_status` wrote; None where the status is not ferserve's own.

    A reason that this version has no class for becomes a plain `FerserveError` that names the reason.
    """
    reason = next((info.reason for info in _unpacked(status, ErrorInfo) if info.domain == ERROR_DOMAIN), None)
    if reason is None:
        return None
    delays_ns = [info.retry_delay.ToNanoseconds() for info in _unpacked(status, RetryInfo)]
    retry_after_s = delays_ns[0] / _NS_PER_S if delays_ns else None
    leaf = _LEAVES.get(reason)
    if leaf is None:
        return FerserveError(f"{reason}: {status.message}", retry_after_s=retry_after_s)
    return leaf(status.message, retry_after_s=retry_after_s)


def _unpacked(status: Status, kind: type[_Detail]) -> list[_Detail]:
    found = []
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    return found
