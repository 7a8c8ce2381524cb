import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ferserve.faces.errors import (
    ArchiveError,
    DegenerateFaceError,
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
from ferserve.serving.status import MAX_MESSAGE_CHARS, STATUS, error_of, grpc_status, public_error, rich_status

# The agreement with callers, spelt out a second time on purpose.
AGREED = {
    "INVALID_REQUEST": ("INVALID_ARGUMENT", 400),
    "INVALID_IMAGE": ("INVALID_ARGUMENT", 400),
    "UNSUPPORTED_MEDIA": ("INVALID_ARGUMENT", 415),
    "IMAGE_TOO_LARGE": ("INVALID_ARGUMENT", 413),
    "MODEL_NOT_FOUND": ("NOT_FOUND", 404),
    "UNAUTHENTICATED": ("UNAUTHENTICATED", 401),
    "FORBIDDEN": ("PERMISSION_DENIED", 403),
    "PURPOSE_REFUSED": ("PERMISSION_DENIED", 403),
    "OVERLOADED": ("RESOURCE_EXHAUSTED", 429),
    "RATE_LIMITED": ("RESOURCE_EXHAUSTED", 429),
    "NOT_READY": ("UNAVAILABLE", 503),
    "WORKER_FAILED": ("UNAVAILABLE", 503),
    "DEADLINE": ("DEADLINE_EXCEEDED", 504),
    "CANCELLED": ("CANCELLED", 499),
    "INTERNAL": ("INTERNAL", 500),
}
LEAVES = [
    InvalidRequestError("bad field"),
    InvalidImageError("bad picture"),
    UnsupportedMediaError("a tiff"),
    ImageTooLargeError("too many pixels"),
    UnauthenticatedError("no key"),
    ForbiddenError("another's scope"),
    PurposeRefusedError("at work"),
    RateLimitedError("too many faces", retry_after_s=2.0),
    ModelNotFoundError("no such model"),
    OverloadedError("full", retry_after_s=0.25),
    NotReadyError("starting", retry_after_s=1.0),
    NotReadyError("nobody there"),
    WorkerFailedError("worker"),
    DeadlineError("late"),
    CallCancelledError("gone"),
]


def error_with(reason):
    return type("AnyError", (FerserveError,), {"reason": reason})("what was expected and what came")


def unpacked(status, kind):
    detail = kind()
    assert [packed for packed in status.details if packed.Unpack(detail)]
    return detail


def test_the_table_is_the_agreed_one():
    assert {reason.value: (wire.grpc_code.name, wire.http_status) for reason, wire in STATUS.items()} == AGREED


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_status(reason):
    status = rich_status(error_with(reason))
    assert status.code == STATUS[reason].grpc_code.value[0]
    info = unpacked(status, ErrorInfo)
    assert (info.reason, info.domain) == (reason.value, "ferserve")


def test_a_code_is_grpcs_own_number():
    assert rich_status(OverloadedError("full", retry_after_s=1.0)).code == 8
    assert rich_status(ValueError()).code == grpc.StatusCode.INTERNAL.value[0] == 13


def test_the_message_goes_out_as_it_is():
    assert (
        rich_status(InvalidImageError("expected a picture, got 3 bytes")).message == "expected a picture, got 3 bytes"
    )


def test_a_long_message_is_cut():
    assert rich_status(InvalidRequestError("x" * 10_000)).message == "x" * MAX_MESSAGE_CHARS


def test_a_delay_becomes_retry_info():
    retry = unpacked(rich_status(OverloadedError("full", retry_after_s=1.25)), RetryInfo)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 250_000_000)


def test_no_delay_is_no_retry_info():
    assert len(rich_status(DeadlineError("late")).details) == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), FerserveError("secret"), ArchiveError("/srv/secret.mar", retry_after_s=1.0)]
)
def test_what_was_not_written_for_callers_stays_inside(error):
    shown = public_error(error)
    assert (shown.reason, shown.message, shown.retry_after_s) == (Reason.INTERNAL, "internal error", None)
    assert b"secret" not in rich_status(error).SerializeToString()


@pytest.mark.parametrize("error", LEAVES)
def test_what_was_written_for_callers_is_shown(error):
    assert public_error(error) is error


@pytest.mark.parametrize("error", LEAVES)
def test_an_error_comes_back_as_it_left(error):
    came = error_of(rich_status(error))
    assert type(came) is type(error)
    assert (came.message, came.retry_after_s) == (error.message, error.retry_after_s)


def test_the_faces_leaf_that_shares_a_reason_comes_back_as_the_general_one():
    assert type(error_of(rich_status(DegenerateFaceError("the eyes coincide")))) is InvalidRequestError


def test_a_reason_of_a_newer_server_keeps_its_delay():
    status = rich_status(OverloadedError("later", retry_after_s=2.0))
    status.details[0].Pack(ErrorInfo(reason="SOMETHING_NEW", domain="ferserve"))
    came = error_of(status)
    assert (came.message, came.retry_after_s) == ("SOMETHING_NEW: later", 2.0)


def test_overload_without_a_delay_is_not_to_be_retried():
    status = rich_status(OverloadedError("full", retry_after_s=2.0))
    del status.details[1]
    came = error_of(status)
    assert isinstance(came, OverloadedError)
    assert came.retry_after_s is None


def test_a_status_of_someone_else_is_no_error_of_ours():
    foreign = Any()
    foreign.Pack(ErrorInfo(reason="OVERLOADED", domain="proxy.example"))
    assert error_of(Status(code=8, message="full", details=[foreign])) is None
    assert error_of(Status(code=8, message="full")) is None


@pytest.mark.parametrize("error", [OverloadedError("full", retry_after_s=1.25), InvalidRequestError("x" * 10_000)])
def test_grpc_gets_the_same_status_written(error):
    for _ in range(2):
        written = grpc_status(error)
        assert (written.code, written.message) == (STATUS[error.reason].grpc_code, error.message[:MAX_MESSAGE_CHARS])
        assert Status.FromString(written.rich) == rich_status(error)


def test_a_time_to_come_back_is_never_cut_short():
    written = Status.FromString(grpc_status(OverloadedError("full", retry_after_s=0.0501)).rich)
    assert error_of(written).retry_after_s == 0.051
