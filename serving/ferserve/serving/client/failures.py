"""From a failed call to the error that the server meant, or to one that says what went wrong on the way."""

from typing import Final, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from ferserve.faces.errors import FerserveError, ImageTooLargeError
from ferserve.serving.errors import CallCancelledError, DeadlineError, NotReadyError
from ferserve.serving.status import error_of

# gRPC itself refuses an oversized message, before any code of the server's, with these words and no details.
_TOO_LARGE_WORDS: Final = "larger than max"
# A proxy whose gateway went in the middle of an answer can only reset the stream; gRPC makes INTERNAL of that.
_RESET_WORDS: Final = "RST_STREAM"
# Words for what this side cancelled. Any other CANCELLED is a server's that stopped before it saw the call.
_OWN_WORDS: Final = ("Locally cancelled", "Channel closed")


class NoAnswerError(NotReadyError):
    """No server is there, or the connection broke before its answer; what was asked may have been done or not."""


def error_of_rpc(failure: grpc.RpcError, target: str) -> FerserveError:
    """The error of a failed call to `target`.

    Failures that ferserve did not answer itself carry no reason; they become NoAnswerError, DeadlineError,
    CallCancelledError or ImageTooLargeError (a request above the server's message limit), and else a plain
    `FerserveError` with gRPC's own words. None of them names a time to retry after.
    """
    call = cast("grpc.Call", failure)  # what gRPC raises is both; the types do not say so
    answered = _answered(call)
    if answered is not None:
        return answered
    code, details = call.code(), call.details() or "no details"
    if _nobody_answered(code, details):
        return NoAnswerError(f"no answer from {target}: {details}")
    match code:
        case grpc.StatusCode.CANCELLED:
            return CallCancelledError(f"the call to {target} was cancelled: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(f"no answer from {target} in time: {details}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if _TOO_LARGE_WORDS in details:
            return ImageTooLargeError(f"the request is above the message limit of {target}: {details}")
        case _:
            return FerserveError(f"{target} answered {code.name}: {details}")


def _nobody_answered(code: grpc.StatusCode, details: str) -> bool:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return True
        case grpc.StatusCode.CANCELLED:
            return not details.startswith(_OWN_WORDS)
        case _:
            return code is grpc.StatusCode.INTERNAL and _RESET_WORDS in details


def _answered(call: grpc.Call) -> FerserveError | None:
    """What ferserve itself answered; None where it did not."""
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # details of some other make, which contradict the status or are no Status
        return None
    return None if status is None else error_of(status)
